"""Higher-order steps that reuse earlier estimates: DPM-Solver++, UniPC, iPNDM and DEIS.

The probability-flow ODE in lambda = log(alpha / sigma) has the exact solution (Lu et al. 2022b, eq. 8)

    x_nxt = sigma_nxt / sigma_now * x_now + sigma_nxt * integral of exp(lambda) x0(lambda) from lambda_now to lambda_nxt

and the methods differ in the polynomial that they put for x0 there. In sigma / alpha instead, it is the integral of eps
that is left (Zhang & Chen 2023). Every method's step to the clean end, or from pure noise, is first order.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from .denoiser import Denoise, eps_of, linear_combination
from .levels import Level

Noise = Callable[[Tensor], Tensor]
Step = Callable[..., tuple[Tensor, Any]]
Estimates = list[tuple[Level, Tensor]]  # x0 (or eps) at earlier levels, the newest first


def _constant_x0_step(x: Tensor, now: Level, nxt: Level, x0: Tensor) -> Tensor:
    """The exact solution for an x0 that is constant over the step: DDIM's step."""
    h = nxt.half_log_snr - now.half_log_snr
    return linear_combination((nxt.sigma / now.sigma, x), (-nxt.alpha * math.expm1(-h), x0))


def dpmpp_2s_step(
    x: Tensor,
    now: Level,
    nxt: Level,
    denoise: Denoise,
    noise: Noise,
    memory: tuple[Tensor, Level, Tensor] | None = None,
) -> tuple[Tensor, tuple[Tensor, Level, Tensor] | None]:
    """Lu et al. 2022b, DPM-Solver++(2S), Algorithm 1: the grid's levels by twos, the first of each being the midpoint.

    At the midpoint x is first order; the step after it goes again from where the pair began, with both estimates.
    """
    x0 = denoise(x, now)
    if memory is None or nxt.sigma == 0:
        return _constant_x0_step(x, now, nxt, x0), (x, now, x0) if now.alpha > 0 else None
    start, first, first_x0 = memory
    r = (now.half_log_snr - first.half_log_snr) / (nxt.half_log_snr - first.half_log_snr)
    return _constant_x0_step(start, first, nxt, first_x0 + (x0 - first_x0) / (2 * r)), None


def dpmpp_2m_step(
    x: Tensor, now: Level, nxt: Level, denoise: Denoise, noise: Noise, memory: tuple[Tensor, float] | None = None
) -> tuple[Tensor, tuple[Tensor, float]]:
    """Lu et al. 2022b, DPM-Solver++(2M), Algorithm 2: extrapolates x0 from the last two estimates."""
    x0, h = denoise(x, now), nxt.half_log_snr - now.half_log_snr
    return _constant_x0_step(x, now, nxt, _extrapolated(x0, h, nxt, memory)), (x0, h)


def dpmpp_sde_2m_step(
    x: Tensor, now: Level, nxt: Level, denoise: Denoise, noise: Noise, memory: tuple[Tensor, float] | None = None
) -> tuple[Tensor, tuple[Tensor, float]]:
    """Lu et al. 2022b, SDE-DPM-Solver++(2M), appendix: the same for the reverse SDE, with fresh noise in every step."""
    x0, h = denoise(x, now), nxt.half_log_snr - now.half_log_snr
    aim = _extrapolated(x0, h, nxt, memory)
    x = nxt.sigma / now.sigma * math.exp(-h) * x - nxt.alpha * math.expm1(-2 * h) * aim
    return (x + nxt.sigma * math.sqrt(-math.expm1(-2 * h)) * noise(x) if nxt.sigma > 0 else x), (x0, h)


def _extrapolated(x0: Tensor, h: float, nxt: Level, memory: tuple[Tensor, float] | None) -> Tensor:
    """Extrapolate x0 by half a step through the last two estimates; `memory` is the last one and its step."""
    if memory is None or nxt.sigma == 0 or math.isinf(memory[1]):
        return x0
    last_x0, last_h = memory
    ahead = h / last_h / 2
    return linear_combination((1 + ahead, x0), (-ahead, last_x0))


def dpmpp_3m_step(
    x: Tensor, now: Level, nxt: Level, denoise: Denoise, noise: Noise, memory: Estimates | None = None
) -> tuple[Tensor, Estimates]:
    """DPM-Solver++ with three estimates (3M): the parabola through them, integrated exactly."""
    estimates = [(now, denoise(x, now)), *(memory or [])][:3]
    return _polynomial_step(x, now, nxt, estimates), estimates


class Corrected(NamedTuple):
    """UniPC's memory: the start of the last step, and the estimates it used."""

    x: Tensor
    level: Level
    estimates: Estimates


def unipc_step(
    x: Tensor, now: Level, nxt: Level, denoise: Denoise, noise: Noise, memory: Corrected | None = None, order: int = 3
) -> tuple[Tensor, Corrected]:
    """Zhao et al. 2023 (UniPC), Algorithm 1: UniP predicts with `order` estimates, UniC corrects with one more.

    The estimate at `now` first redoes the step that led here, as the end of its polynomial; it costs no evaluation.
    """
    newest = (now, denoise(x, now))
    if memory is not None:
        x = _polynomial_step(memory.x, memory.level, now, [newest, *memory.estimates])
    estimates = [newest, *(memory.estimates if memory else [])][:order]
    return _polynomial_step(x, now, nxt, estimates), Corrected(x, now, estimates)


def _polynomial_step(x: Tensor, now: Level, nxt: Level, estimates: Estimates) -> Tensor:
    """The exact solution where x0 is the polynomial in lambda through the estimates."""
    known = [(level.half_log_snr, x0) for level, x0 in estimates if level.alpha > 0]
    if nxt.sigma == 0 or now.alpha == 0 or len(known) < 2:
        return _constant_x0_step(x, now, nxt, next(x0 for level, x0 in estimates if level == now))
    weights = exponential_weights([at for at, _ in known], now.half_log_snr, nxt.half_log_snr)
    terms = ((nxt.alpha * weight, x0) for weight, (_, x0) in zip(weights, known, strict=True))
    return linear_combination((nxt.sigma / now.sigma, x), *terms)


def exponential_weights(nodes: Sequence[float], start: float, end: float) -> list[float]:
    """Weights w with sum_j w_j p(nodes_j) = integral of exp(u - end) p(u) du over start..end, if deg p < len(nodes)."""
    h = end - start
    back = [(end - node) / h for node in nodes]  # how far behind the end, in steps
    return solve_vandermonde(back, [_lower_gamma(k, h) / h**k for k in range(len(nodes))])


def solve_vandermonde(nodes: Sequence[float], moments: Sequence[float]) -> list[float]:
    """Solve sum_j w_j nodes_j^k = moments[k] for w (Björck & Pereyra 1970), in a fifth of a general solver's time."""
    w, n = list(moments), len(nodes)
    for k in range(n - 1):
        for i in range(n - 1, k, -1):
            w[i] -= nodes[k] * w[i - 1]
    for k in range(n - 2, -1, -1):
        for i in range(k + 1, n):
            w[i] /= nodes[i] - nodes[i - k - 1]
        for i in range(k, n - 1):
            w[i] -= w[i + 1]
    return w


def _lower_gamma(k: int, h: float) -> float:
    """The integral of exp(-s) s^k over 0..h, by its series of positive terms."""
    term = total = h ** (k + 1) / (k + 1)
    n = k + 1
    while term > 1e-17 * total:
        n += 1
        term *= h / n
        total += term
    return math.exp(-h) * total


def deis_step(
    x: Tensor, now: Level, nxt: Level, denoise: Denoise, noise: Noise, memory: Estimates | None = None
) -> tuple[Tensor, Estimates]:
    """Zhang & Chen 2023 (DEIS, rho-AB), eq. 15 and 16: the parabola in sigma / alpha through the last three eps."""
    x0 = denoise(x, now)
    estimates = [(now, eps_of(x, x0, now)), *(memory or [])][:3]
    known = [(level.sigma / level.alpha, eps) for level, eps in estimates if level.alpha > 0]
    if nxt.sigma == 0 or len(known) < 2:
        return _constant_x0_step(x, now, nxt, x0), estimates
    start, end = now.sigma / now.alpha, nxt.sigma / nxt.alpha
    back = [(at - end) / (start - end) for at, _ in known]
    weights = solve_vandermonde(back, [1 / (k + 1) for k in range(len(known))])  # of powers, over 0..1
    slope = sum(weight * eps for weight, (_, eps) in zip(weights, known, strict=True))
    return nxt.alpha / now.alpha * x + nxt.alpha * (end - start) * slope, estimates


ADAMS_BASHFORTH = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))


def ipndm_step(
    x: Tensor, now: Level, nxt: Level, denoise: Denoise, noise: Noise, memory: list[Tensor] | None = None
) -> tuple[Tensor, list[Tensor]]:
    """Liu et al. 2022 (PNDM), eq. 9 and 12, without its Runge-Kutta start (iPNDM, Zhang & Chen 2023): ddim with up to
    four eps, weighted for equal steps."""
    x0 = denoise(x, now)
    estimates = [eps_of(x, x0, now), *(memory or [])][:4]
    if nxt.sigma == 0 or now.alpha == 0:
        return _constant_x0_step(x, now, nxt, x0), estimates
    eps = sum(weight * past for weight, past in zip(ADAMS_BASHFORTH[len(estimates) - 1], estimates, strict=True))
    ratio = nxt.alpha / now.alpha
    return ratio * x + (nxt.sigma - ratio * now.sigma) * eps, estimates
