"""Exponential integration of what the network outputs: exact in any number of steps for Gaussian data.

Divide x_t = alpha x0 + sigma eps by the standard deviation that it has when x0 has sigma_data, and name an angle:

    y = x_t / R,   R = sqrt(alpha^2 sigma_data^2 + sigma^2),   cos a = alpha sigma_data / R,   sin a = sigma / R
    y = cos a (x0 / sigma_data) + sin a eps

whatever the process: a is all that is left of it, pi / 2 at pure noise and 0 at the clean end. Along the probability
flow y moves with the mean, over the x0 and eps that may have led to it, of dy / da:

    dy / da = E[cos a eps - sin a x0 / sigma_data | x_t] = F

which is the very thing that a network with prediction "v" outputs (core/prediction.py; Karras et al. 2022's F but for
the sign). So R has integrated the linear part of the ODE exactly, and a step is an integral of F alone over the angle.
In terms of the estimate D of x0, D / sigma_data = cos a y - sin a F. Data N(0, sigma_data^2) have F = 0: y stays, and
one step is as exact as many. As sigma_data grows the steps become DEIS's, in sigma / alpha. Unlike sigma / alpha and
its logarithm, the angle is regular at either end: pure noise and the clean end are levels like others.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from .denoiser import Denoise, linear_combination
from .levels import Level
from .multistep import Noise, solve_vandermonde

Slopes = list[tuple[float, Tensor]]  # F at earlier angles, the newest first


class Turned(NamedTuple):
    """Where the last step began, and the slopes that it had."""

    y: Tensor
    angle: float
    slopes: Slopes


def exponential_step(
    x: Tensor,
    now: Level,
    nxt: Level,
    denoise: Denoise,
    noise: Noise,
    memory: Turned | None = None,
    order: int = 1,
    correct: bool = False,
    sigma_data: float = 1.0,
) -> tuple[Tensor, Turned]:
    """Adams-Bashforth's step in the angle, with the polynomial through the last `order` slopes F; 1 is Euler's.

    correct: the slope at `now` first redoes the step that led here, as the end of its polynomial, which costs no
    evaluation and adds one to the order (as UniC does to UniP, Zhao et al. 2023, in another variable).
    """
    radius, angle = polar(now, sigma_data)
    after, end = polar(nxt, sigma_data)
    x0 = denoise(x, now)
    # F = (cos a y - x0 / sigma_data) / sin a
    turn = now.alpha * sigma_data / (now.sigma * radius), -radius / (now.sigma * sigma_data)
    slopes = [(angle, linear_combination((turn[0], x), (turn[1], x0))), *(memory.slopes if memory else [])]
    y = x / radius
    if correct and memory is not None:
        y = _turned(memory.y, memory.angle, angle, slopes)
    slopes = slopes[:order]
    return after * _turned(y, angle, end, slopes), Turned(y, angle, slopes)


def polar(level: Level, sigma_data: float) -> tuple[float, float]:
    """R, the standard deviation of x_t, and the angle a: pi / 2 at pure noise, 0 at the clean end."""
    signal = level.alpha * sigma_data
    return math.hypot(signal, level.sigma), math.atan2(level.sigma, signal)


def _turned(y: Tensor, start: float, end: float, slopes: Sequence[tuple[float, Tensor]]) -> Tensor:
    """y moved by the integral, over start..end, of the polynomial through the slopes."""
    back = [(at - end) / (start - end) for at, _ in slopes]  # how far behind the end, in steps
    weights = solve_vandermonde(back, [1 / (k + 1) for k in range(len(back))])  # of powers, over 0..1
    terms = (((end - start) * weight, slope) for weight, (_, slope) in zip(weights, slopes, strict=True))
    return linear_combination((1.0, y), *terms)
