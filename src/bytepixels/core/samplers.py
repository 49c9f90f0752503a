"""Samplers: pure steps from one noise level to the next, and the loop over them.

step(x, now, nxt, denoise, noise, memory) -> (x at nxt, memory). `noise(x)` draws standard normal noise like x; `memory`
is what a multistep method carries (None at first). Coefficients are host floats, so a step never waits for the device.
Every step works for any x_t = alpha * x0 + sigma * eps: the formulas are the papers', written in (alpha, sigma).
"""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from ..choices import MAX_CHURN
from ..errors import InputError, check_choice, check_range
from ..registries import SAMPLERS, sampler_facts
from .denoiser import Denoise, linear_combination
from .levels import Level, Process
from .multistep import Noise, Step
from .posterior import interpolated_log_variance, posterior


def ddpm_step(
    x: Tensor,
    now: Level,
    nxt: Level,
    denoise: Denoise,
    noise: Noise,
    memory: None = None,
    variance: str | Denoise = "small",
) -> tuple[Tensor, None]:
    """Ancestral sampling, Ho et al. 2020, eq. 7 and Algorithm 2: q(x_nxt | x_now, x0) at the estimate of x0.

    variance: "small" is the posterior's, beta~; "large" is beta, all that was added between the two levels; a function
    (x, level) -> fraction says how far between them (Nichol & Dhariwal 2021, eq. 15; `learned_variance`). At 1000 steps
    the first two are alike, on fewer the small one is much better.
    """
    if isinstance(variance, str):
        check_choice("variance", variance, ("small", "large"))
    x0 = denoise(x, now)
    q = posterior(*now[1:], *nxt[1:])
    mean = linear_combination((q.coef_xt, x), (q.coef_x0, x0))
    if nxt.sigma == 0:
        return mean, None
    if isinstance(variance, str):
        return mean.add_(noise(x), alpha=math.sqrt(q.variance if variance == "small" else q.beta)), None
    log_variance = interpolated_log_variance(variance(x, now), math.log(q.variance), math.log(q.beta))
    return mean + torch.exp(log_variance / 2) * noise(x), None


def ddim_step(
    x: Tensor, now: Level, nxt: Level, denoise: Denoise, noise: Noise, memory: None = None, eta: float = 0.0
) -> tuple[Tensor, None]:
    """Song et al. 2021 (DDIM), eq. 12 and 16. eta 0 is deterministic and draws no noise; eta 1 is ddpm_step."""
    check_range("eta", eta, 0, 1)
    x0 = denoise(x, now)
    std = eta * math.sqrt(posterior(*now[1:], *nxt[1:]).variance) if eta > 0 else 0.0
    # nxt.alpha * x0 + direction * eps, with eps = (x - now.alpha * x0) / now.sigma
    ratio = math.sqrt(max(nxt.sigma**2 - std**2, 0.0)) / now.sigma
    x = linear_combination((ratio, x), (nxt.alpha - ratio * now.alpha, x0))
    return (x.add_(noise(x), alpha=std) if std > 0 else x), None


def euler_step(
    x: Tensor, now: Level, nxt: Level, denoise: Denoise, noise: Noise, memory: None = None
) -> tuple[Tensor, None]:
    """Euler's method for d(x / alpha) / d(sigma / alpha) = eps (Karras et al. 2022, eq. 4): ddim_step with eta 0."""
    return ddim_step(x, now, nxt, denoise, noise)


def heun_step(
    x: Tensor, now: Level, nxt: Level, denoise: Denoise, noise: Noise, memory: None = None
) -> tuple[Tensor, None]:
    """Karras et al. 2022, Algorithm 1: an Euler step, then again with the average of the slopes at both ends.

    The slope is d(x / alpha) / d(sigma / alpha) = eps. Two evaluations, one for the step to the clean end.
    """
    x0 = denoise(x, now)
    shrink = nxt.sigma / now.sigma
    guess = linear_combination((shrink, x), (nxt.alpha - shrink * now.alpha, x0))
    if nxt.sigma == 0 or now.alpha == 0:  # no slope at the clean end, nor at pure noise
        return guess, None
    ratio = nxt.alpha / now.alpha
    half = (nxt.sigma - ratio * now.sigma) / 2  # of the way; eps = (x - alpha * x0) / sigma at both of its ends
    first, last = half / now.sigma, half / nxt.sigma
    x = linear_combination(
        (ratio + first, x), (-first * now.alpha, x0), (last, guess), (-last * nxt.alpha, denoise(guess, nxt))
    )
    return x, None


def churned(
    step: Step,
    process: Process,
    churn: float,
    interval: tuple[float, float] = (0.0, math.inf),
    noise_scale: float = 1.0,
) -> Step:
    """Churn (Karras et al. 2022, Algorithm 2): add noise that multiplies sigma / alpha by 1 + churn, then step.

    churn: gamma_i, 0..sqrt(2) - 1 (theirs is S_churn / steps); interval: S_tmin..S_tmax of sigma / alpha; noise_scale:
    S_noise. `process` knows the raised level's t; nothing rises above its noisiest level.
    """
    check_range("churn", churn, 0, MAX_CHURN)
    low, high = interval

    def churned_step(x: Tensor, now: Level, nxt: Level, denoise: Denoise, noise: Noise, memory=None):
        half_log_snr = max(now.half_log_snr - math.log1p(churn), process.noisiest)
        if now.alpha > 0 and low <= now.sigma / now.alpha <= high and half_log_snr < now.half_log_snr:
            raised = process.level(half_log_snr)
            x, now = diffuse(x, now, raised, noise, noise_scale), raised
        return step(x, now, nxt, denoise, noise, memory)

    return churned_step


def diffuse(x: Tensor, now: Level, noisier: Level, noise: Noise, noise_scale: float = 1.0) -> Tensor:
    """Add noise, q(x_noisier | x_now), between any two levels (Ho et al. 2020, eq. 2)."""
    ratio = noisier.alpha / now.alpha
    return ratio * x + noise_scale * math.sqrt(noisier.sigma**2 - (ratio * now.sigma) ** 2) * noise(x)


def step_of(sampler: str, process: Process) -> Step:
    """The step of a sampler by its name; of those that have one, with the standard deviation of the process' data."""
    step = SAMPLERS[check_choice("sampler", sampler, SAMPLERS)]
    return partial(step, sigma_data=process.sigma_data) if sampler_facts(sampler).sigma_data else step


def best_sampler(steps: int) -> tuple[str, str]:
    """The sampler and spacing that are nearest to the data at `steps` steps of three models (RESULTS.md, grids)."""
    return "unipc_3", "trailing" if steps < 20 else "log_snr"


@torch.no_grad()
def trajectory(
    x: Tensor, levels: Sequence[Level], denoise: Denoise, step: Step, noise: Noise = torch.randn_like
) -> Iterator[Tensor]:
    """Yield x [B, C, H, W] at every level after the first; x comes in at levels[0]."""
    if len(levels) < 2 or not all(a.half_log_snr < b.half_log_snr for a, b in pairwise(levels)):
        raise InputError(f"levels must be at least two, from noisy to clean, got {list(levels)}")
    memory = None
    for now, nxt in pairwise(levels):
        x, memory = step(x, now, nxt, denoise, noise, memory)
        yield x
