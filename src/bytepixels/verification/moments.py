"""The samplers that draw noise, on Gaussian data: their mean and variance, without drawing any.

Gaussian data makes the denoiser affine, so what comes out is A x + B + sum_i C_i z_i for the noise z_i of each call.
One run on a batch of unit impulses measures them all, whatever a multistep method remembers on the way.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ..core.exact_denoisers import GAUSSIAN, TWO_MODES
from ..core.levels import CLEAN, Level
from ..core.samplers import SAMPLERS, STOCHASTIC, Step
from .common import Check, largest, log_snr_grid, paths, run

WEAK_ORDERS = {"ddpm": 1, "dpmpp_sde_2m": 2}  # of the variance, as the steps grow
STEPS = (128, 512)
TOLERANCE = 0.15


def moment_checks() -> list[Check]:
    """Means are exact, variances converge with the known order, and ddim with eta 1 is ddpm."""
    return [row for name, (step, order) in stochastic().items() for row in _moment_rows(name, step, order)] + [
        _eta_one_is_ddpm(path) for path in paths()
    ]


def stochastic() -> dict[str, tuple[Step, float]]:
    """Every sampler that draws noise, its variants too, with the order that its variance should have."""
    own = {name: (SAMPLERS[name], WEAK_ORDERS.get(name, math.nan)) for name in STOCHASTIC}
    large, eta_one = partial(SAMPLERS["ddpm"], variance="large"), partial(SAMPLERS["ddim"], eta=1)
    return {**own, "ddpm with large variance": (large, 1), "ddim with eta 1": (eta_one, 1)}


def _moment_rows(name: str, step: Step, order: float) -> list[Check]:
    """One row for the mean, the worst of all; one for the variance on each path."""
    rows, worst = [], 0.0
    for path, process in paths().items():
        errors = []
        for steps in STEPS:
            levels = log_snr_grid(process, steps)
            (mean,), (variance,) = GAUSSIAN.components(levels[-1])
            got_mean, got_variance = moments(step, levels)
            worst = max(worst, abs(got_mean - float(mean)), key=lambda error: (math.isnan(error), error))
            errors.append(abs(got_variance / float(variance) - 1))
        measured = math.log(errors[0] / errors[1]) / math.log(STEPS[1] / STEPS[0]) if all(errors) else math.nan
        note = f"{errors[0]:.1e} at {STEPS[0]} steps, {errors[1]:.1e} at {STEPS[1]}"
        rows.append(Check(f"{name}, {path}: order of variance", measured, order, TOLERANCE, note))
    return [Check(f"{name}: error of the mean", worst, 0, 1e-12), *rows]


def moments(step: Step, levels: list[Level]) -> tuple[float, float]:
    """Mean and variance at the last level, for x with the data's own moments at the first."""
    batch = torch.zeros(len(levels) + 1, 1, 1, 1, dtype=torch.float64)
    batch[1] = 1  # row 0 stays at the origin, row 1 starts at 1, row 2 + i meets the i-th noise
    last = run(batch, levels, GAUSSIAN.denoise, step, _impulses()).flatten()
    (mean,), (variance,) = GAUSSIAN.components(levels[0])
    gains = last[1:] - last[0]  # A, then every C_i
    return float(gains[0] * mean + last[0]), float(gains[0] ** 2 * variance + gains[1:].square().sum())


def _impulses() -> Callable[[Tensor], Tensor]:
    """noise(x) whose i-th call is 1 in row 2 + i, and 0 elsewhere."""
    calls = 0

    def noise(x: Tensor) -> Tensor:
        nonlocal calls
        impulse = torch.zeros_like(x)
        impulse[2 + calls] = 1
        calls += 1
        return impulse

    return noise


def _eta_one_is_ddpm(path: str) -> Check:
    """Song et al. 2021, section 4.1, on the same noise."""
    levels = [*log_snr_grid(paths()[path], 16), CLEAN]
    x = torch.linspace(-3, 3, 16, dtype=torch.float64).view(1, 1, 4, 4)

    def end(step: Step) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return run(x, levels, TWO_MODES.denoise, step, lambda x: torch.empty_like(x).normal_(generator=generator))

    difference = end(partial(SAMPLERS["ddim"], eta=1)) - end(SAMPLERS["ddpm"])
    return Check(f"ddim with eta 1 is ddpm, {path}", largest(difference), 0, 1e-10)
