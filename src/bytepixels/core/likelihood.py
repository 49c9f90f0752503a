"""Likelihood of images: the variational bound of a chain of steps, and the density along the probability-flow ODE.

Bits are per dimension: of a whole image, divided by its C * H * W numbers. Nats are of the whole image.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ..choices import DEQUANTISATIONS
from ..errors import InputError, check_choice, check_count
from .denoiser import Denoise, eps_of
from .levels import Level, Process
from .multistep import Noise
from .posterior import Posterior, bound_term, interpolated_log_variance, log_likelihood_of_bins, posteriors

Estimate = Callable[[Tensor, Level], tuple[Tensor, Tensor | None]]  # x_t -> x0 and the fraction: Denoiser.estimate
VARIANCES = ("small", "large", "learned")


class Bound(NamedTuple):
    """The variational bound: -log2 P(x0) is at most `total`, in bits per dimension (Ho et al. 2020, eq. 5)."""

    prior: Tensor  # [B]: L_T
    terms: Tensor  # [steps, B]: noisiest first; the last is L_0, the decoder's

    @property
    def total(self) -> Tensor:
        """The bound of each image, the sum of its terms: [B]."""
        return self.prior + self.terms.sum(0)


class Measured(NamedTuple):
    """One number per image, and its standard error due to random probes."""

    value: Tensor  # [B]
    standard_error: Tensor  # [B]: 0 where the divergence was exact, NaN for a single probe


def variational_bound(
    x0: Tensor,
    levels: Sequence[Level],
    estimate: Estimate,
    noise: Noise,
    variance: str = "large",
    sigma_data: float = 1,
) -> Bound:
    """The bound of the chain along `levels`, for images x0 [B, C, H, W] of 256 grey levels in -1..1.

    levels: noisiest first, CLEAN last. estimate: `Denoiser.estimate`. Every term has its own x_t, from one call of
    `noise`: a fair draw of the bound, not the bound itself. variance: "small", "large" or "learned" (then `estimate`
    must return the fraction). The chain begins at Normal(0, alpha^2 sigma_data^2 + sigma^2), where samplers begin.
    """
    terms = torch.cat(list(bound_terms(x0, levels, estimate, noise, (variance,))))
    return Bound(prior_term(x0, levels[0], sigma_data), terms)


@torch.no_grad()
def bound_terms(
    x0: Tensor, levels: Sequence[Level], estimate: Estimate, noise: Noise, variances: Sequence[str] = ("large",)
) -> Iterator[Tensor]:
    """Yield the terms [len(variances), B] of each step, noisiest first, in bits per dimension, by one evaluation each.

    Raises InputError for levels that do not go from noise to CLEAN, and for "learned" where no variance was.
    """
    if (
        len(levels) < 2
        or levels[-1].sigma != 0
        or not all(a.half_log_snr < b.half_log_snr for a, b in pairwise(levels))
    ):
        raise InputError(f"a chain goes from noisy levels to CLEAN, got {list(levels)}")
    chain = posteriors(levels)
    for step, (now, nxt) in enumerate(pairwise(levels)):
        guess, fraction = estimate(now.alpha * x0 + now.sigma * noise(x0), now)
        q = Posterior(*(field[step] for field in chain))  # float64 on the host, as samplers have it
        last = torch.tensor(nxt.sigma == 0, device=x0.device)
        chosen = (_log_variance(variance, q, fraction) for variance in variances)
        yield torch.stack([bound_term(x0, guess, q, log_variance, last) for log_variance in chosen])


def prior_term(x0: Tensor, level: Level, sigma_data: float = 1) -> Tensor:
    """L_T, exactly: KL(q(x_T | x0) || Normal(0, alpha^2 sigma_data^2 + sigma^2)) in bits per dimension [B]."""
    variance, added = (level.alpha * sigma_data) ** 2 + level.sigma**2, level.sigma**2
    second = level.alpha**2 * x0.square().mean(dim=(1, 2, 3)) + added
    return (second / variance - 1 - math.log(added / variance)) / (2 * math.log(2))


def _log_variance(variance: str, q: Posterior[Tensor], fraction: Tensor | None) -> Tensor:
    if check_choice("variance", variance, VARIANCES) != "learned":
        return torch.log(q.variance if variance == "small" else q.beta)
    if fraction is None:
        raise InputError("variance learned needs a network that returns twice the channels")
    return interpolated_log_variance(fraction, q.variance.log().item(), q.beta.log().item())


def noise_range(process: Process) -> tuple[float, float]:
    """The noisiest and the cleanest finite log(alpha / sigma) of a process's own grid."""
    known = [level.half_log_snr for level in process.levels(spacing="log_snr") if math.isfinite(level.half_log_snr)]
    if len(known) < 2:
        raise InputError(f"a range of noise needs two levels with some image left, the process has {len(known)}")
    return known[0], known[-1]


def ode_log_likelihood(
    x: Tensor,
    process: Process,
    denoise: Denoise,
    steps: int = 64,
    probes: int = 4,
    noise: Noise = torch.randn_like,
    ends: tuple[float, float] | None = None,
) -> Measured:
    """Log density in nats of x [B, C, H, W] at the cleanest level (Song et al. 2021b, section 4.3 and appendix D.2).

    It is that of what an exact deterministic sampler draws from Normal(0, alpha^2 sigma_data^2 + sigma^2), by the
    instantaneous change of variables (Chen et al. 2018, eq. 8) in x / alpha, which moves by the noise alone.
    ends: the noisiest and the cleanest log(alpha / sigma); `noise_range` unless told. steps: of the classical
    Runge-Kutta method of order 4, even in log(alpha / sigma), four evaluations each. probes: random signs for the
    divergence (Hutchinson's estimate), drawn by one call of `noise` each and kept on the way; 0 is exact, and takes
    one pass back for every number of an image.
    """
    check_count("steps", steps, 1)
    check_count("probes", probes, 0)
    noisiest, cleanest = noise_range(process) if ends is None else ends
    nodes = torch.linspace(cleanest, noisiest, steps + 1, dtype=torch.float64).tolist()
    first, last = process.level(nodes[0]), process.level(nodes[-1])
    slope = partial(_slope, process=process, denoise=denoise, directions=_directions(x, probes, noise))
    state, log_change = x / first.alpha, torch.zeros((), device=x.device)
    for start, end in pairwise(nodes):
        state, change = _runge_kutta(slope, state, start, end)
        log_change = log_change + change  # [K, B]
    variance = (last.alpha * process.sigma_data) ** 2 + last.sigma**2
    at_noise = -(last.alpha * state).square().flatten(1).sum(1) / (2 * variance)
    constant = math.log(last.alpha / first.alpha) - math.log(2 * math.pi * variance) / 2
    each = at_noise + x[0].numel() * constant + log_change
    if probes > 1:
        return Measured(each.mean(0), each.std(0) / math.sqrt(probes))
    return Measured(each.mean(0), torch.full_like(each[0], math.nan if probes else 0.0))


def _directions(x: Tensor, probes: int, noise: Noise) -> Tensor:
    """Probes v [K, B, C, H, W] whose mean v' J v is the trace of J: random signs, or sqrt(D) along every axis."""
    if probes:
        return torch.stack([torch.ones_like(x).copysign(noise(x)) for _ in range(probes)])
    axes = math.sqrt(x[0].numel()) * torch.eye(x[0].numel(), dtype=x.dtype, device=x.device)
    return axes.view(-1, 1, *x.shape[1:]).expand(-1, *x.shape)


def _slope(
    state: Tensor, half_log_snr: float, process: Process, denoise: Denoise, directions: Tensor
) -> tuple[Tensor, Tensor]:
    """Slope d(x / alpha) / d log(alpha / sigma) = -(sigma / alpha) eps, and its divergence by probe [K, B]."""
    level = process.level(half_log_snr)
    with torch.enable_grad():
        leaf = state.detach().requires_grad_()
        x = level.alpha * leaf
        slope = -(level.sigma / level.alpha) * eps_of(x, denoise(x, level), level)
        rows = (torch.autograd.grad(slope, leaf, v, retain_graph=True)[0] for v in directions)
        divergence = torch.stack([(v * row).flatten(1).sum(1) for v, row in zip(directions, rows, strict=True)])
    return slope.detach(), divergence


def _runge_kutta(
    slope: Callable[[Tensor, float], tuple[Tensor, Tensor]], state: Tensor, start: float, end: float
) -> tuple[Tensor, Tensor]:
    """Take one classical Runge-Kutta step of order 4; returns the new state and the integral of the divergence."""
    h, middle = end - start, (start + end) / 2
    one = slope(state, start)
    two = slope(state + h / 2 * one[0], middle)
    three = slope(state + h / 2 * two[0], middle)
    four = slope(state + h * three[0], end)
    total, divergence = (h / 6 * (a + 2 * b + 2 * c + d) for a, b, c, d in zip(one, two, three, four, strict=True))
    return state + total, divergence


def ode_bits(
    x0: Tensor,
    process: Process,
    denoise: Denoise,
    steps: int = 64,
    probes: int = 4,
    noise: Noise = torch.randn_like,
    dequantisation: str = "noise",
    ends: tuple[float, float] | None = None,
) -> Measured:
    """An upper bound in bits per dimension, by the ODE, for images x0 [B, C, H, W] of 256 grey levels in -1..1.

    At most, once more steps change it no more: with too few the density is not one, and the number means nothing.

    dequantisation, which makes a density's point of a grey level:
      "noise": the process' own, x_t = alpha x0 + sigma eps at the cleanest level, and the discretised decoder of the
        chain's last step with the large variance (Ho et al. 2020, eq. 13): log q(x_t | x0) - log p(x_t) -
        log P(x0 | x_t). The last part is L_0 of the full chain with variance "large"; the ODE stands for
        all terms before.
      "uniform": x0 + u, u even over one grey level (Theis et al. 2016, section 3.1), taken for x_t / alpha: what most
        papers report.
    The other arguments are `ode_log_likelihood`'s; `noise` is called once more, first.
    """
    check_choice("dequantisation", dequantisation, DEQUANTISATIONS)
    ends = noise_range(process) if ends is None else ends
    level, dimensions, z = process.level(ends[1]), x0[0].numel(), noise(x0)
    if dequantisation == "uniform":
        x = level.alpha * (x0 + (torch.special.ndtr(z) - 0.5) / 127.5)
        others = torch.full_like(x0[:, 0, 0, 0], dimensions * math.log(level.alpha / 127.5))  # to x0's units, one bin
    else:
        x = level.alpha * x0 + level.sigma * z
        with torch.no_grad():
            decoded = log_likelihood_of_bins(x0, denoise(x, level), torch.tensor(2 * math.log(level.sigma)))
        log_q = -z.square() / 2 - math.log(2 * math.pi * level.sigma**2) / 2
        others = (decoded - log_q).flatten(1).sum(1)
    density = ode_log_likelihood(x, process, denoise, steps, probes, noise, ends)
    bits = dimensions * math.log(2)
    return Measured(-(density.value + others) / bits, density.standard_error / bits)
