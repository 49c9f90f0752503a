"""Samplers: pure steps from one noise level to the next, and the loop that strings them together.

step(x, now, nxt, denoise, noise, memory) -> (x at nxt, memory). `noise(x)` draws standard normal noise like x; `memory`
is what a multistep method carries (None at first). Coefficients are host floats, so a step never waits for the device.
Every step works for any x_t = alpha * x0 + sigma * eps: the formulas are the papers', written in (alpha, sigma).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from .denoise import Denoise
from .errors import InputError, check_choice, check_range
from .process import Level

Noise = Callable[[Tensor], Tensor]
Step = Callable[..., tuple[Tensor, Any]]


def ddpm_step(
    x: Tensor, now: Level, nxt: Level, denoise: Denoise, noise: Noise, memory: None = None, variance: str = "small"
) -> tuple[Tensor, None]:
    """Ancestral sampling, Ho et al. 2020, eq. 7 and Algorithm 2: q(x_nxt | x_now, x0) at the estimate of x0.

    variance: "small" is the posterior's, beta~; "large" is beta, all that was added between the two levels. At 1000
    steps they are alike, on fewer the small one is much better.
    """
    check_choice("variance", variance, ("small", "large"))
    x0 = denoise(x, now)
    added = _variance_added(now, nxt)
    mean = (now.alpha / nxt.alpha * nxt.sigma**2 * x + nxt.alpha * added * x0) / now.sigma**2
    if nxt.sigma == 0:
        return mean, None
    std = math.sqrt(added) * (nxt.sigma / now.sigma if variance == "small" else 1.0)
    return mean + std * noise(x), None


def ddim_step(
    x: Tensor, now: Level, nxt: Level, denoise: Denoise, noise: Noise, memory: None = None, eta: float = 0.0
) -> tuple[Tensor, None]:
    """Song et al. 2021 (DDIM), eq. 12 and 16. eta 0 is deterministic and draws no noise; eta 1 is ddpm_step."""
    check_range("eta", eta, 0, 1)
    x0 = denoise(x, now)
    std = eta * math.sqrt(_variance_added(now, nxt)) * nxt.sigma / now.sigma
    x = nxt.alpha * x0 + math.sqrt(max(nxt.sigma**2 - std**2, 0.0)) * _eps(x, x0, now)
    return (x + std * noise(x) if std > 0 else x), None


def heun_step(
    x: Tensor, now: Level, nxt: Level, denoise: Denoise, noise: Noise, memory: None = None
) -> tuple[Tensor, None]:
    """Karras et al. 2022, Algorithm 1: a ddim step, then again with the average of the slopes at both ends.

    The slope is d(x / alpha) / d(sigma / alpha) = eps. Two evaluations, one for the step to the clean end.
    """
    x0 = denoise(x, now)
    eps = _eps(x, x0, now)
    guess = nxt.alpha * x0 + nxt.sigma * eps
    if nxt.sigma == 0 or now.alpha == 0:  # no slope at the clean end, nor at pure noise
        return guess, None
    eps = (eps + _eps(guess, denoise(guess, nxt), nxt)) / 2
    ratio = nxt.alpha / now.alpha
    return ratio * x + (nxt.sigma - ratio * now.sigma) * eps, None


def dpmpp_2m_step(
    x: Tensor, now: Level, nxt: Level, denoise: Denoise, noise: Noise, memory: tuple[Tensor, float] | None = None
) -> tuple[Tensor, tuple[Tensor, float]]:
    """Lu et al. 2022b, DPM-Solver++(2M), Algorithm 2: extrapolates x0 from the last two estimates.

    The first step and the step to the clean end (h infinite) are first order, which is ddim_step.
    """
    x0 = denoise(x, now)
    h = nxt.half_log_snr - now.half_log_snr
    aim = x0
    if memory is not None and nxt.sigma > 0:
        last_x0, last_h = memory
        aim = x0 + (x0 - last_x0) * (h / last_h / 2)
    return nxt.sigma / now.sigma * x - nxt.alpha * math.expm1(-h) * aim, (x0, h)


SAMPLERS: dict[str, Step] = {"ddpm": ddpm_step, "ddim": ddim_step, "heun": heun_step, "dpmpp_2m": dpmpp_2m_step}


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


def _eps(x: Tensor, x0: Tensor, level: Level) -> Tensor:
    """The noise in x, given the estimate of x0."""
    return (x - level.alpha * x0) / level.sigma


def _variance_added(now: Level, nxt: Level) -> float:
    """Var(x_now | x_nxt): b_t between neighbours, and its like between any two levels."""
    return now.sigma**2 - (now.alpha / nxt.alpha) ** 2 * nxt.sigma**2
