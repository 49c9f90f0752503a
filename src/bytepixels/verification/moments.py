"""Checks of the stochastic samplers on Gaussian data: their mean and variance, computed without drawing.

Gaussian data makes the denoiser affine, so what comes out is A x + B + sum_i C_i z_i for the noise z_i of each call.
One run on a batch of unit impulses measures them all, whatever a multistep method remembers on the way.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from ..core.exact_denoisers import GAUSSIAN, TWO_MODES
from ..core.levels import CLEAN, Level
from ..core.samplers import Step
from ..registries import SAMPLERS, sampler_facts, stochastic_samplers
from .check import COARSE, FINE, Check, largest, log_snr_grid, order_check, processes, run

ABOUT = """Data: one Gaussian. Its denoiser is linear, so mean and variance of the samples follow from the steps
themselves, without drawing any noise. The mean must be exact: shown is its error. The variance must converge with the
sampler's weak order p: shown is p, of an error proportional to N^-p in N steps. ddpm adds noise of the posterior's
variance beta~_t or, where it says so, of beta_t."""


def moment_checks() -> Iterator[Check]:
    """Check that means are exact, that variances converge with the known order, and that ddim with eta 1 is ddpm."""
    for name, (step, order) in stochastic().items():
        off = []
        for path, process in processes().items():
            errors = {}
            for steps in (COARSE, FINE):
                levels = log_snr_grid(process, steps)
                (mean,), (variance,) = GAUSSIAN.components(levels[-1])
                measured_mean, measured_variance = moments(step, levels)
                off.append(measured_mean - float(mean))
                errors[steps] = abs(measured_variance / float(variance) - 1)
            yield order_check(f"variance of {name}, {path}", errors, order)
        yield Check(f"mean of {name}, all processes", largest(torch.tensor(off)), 0, 1e-12)
    for path in processes():
        yield Check(f"ddim (eta 1) minus ddpm, {path}", _ddim_less_ddpm(path), 0, 1e-10)


def stochastic() -> dict[str, tuple[Step, float]]:
    """Every stochastic sampler and variant, with the expected order of its variance."""
    own = {name: (SAMPLERS[name], sampler_facts(name).order) for name in stochastic_samplers()}
    large, eta_one = partial(SAMPLERS["ddpm"], variance="large"), partial(SAMPLERS["ddim"], eta=1)
    return {**own, "ddpm (beta_t)": (large, 1), "ddim (eta 1)": (eta_one, 1)}


def moments(step: Step, levels: list[Level]) -> tuple[float, float]:
    """Mean and variance at the last level, if x has the data's moments at the first."""
    batch = torch.zeros(len(levels) + 1, 1, 1, 1, dtype=torch.float64)
    batch[1] = 1  # row 0 stays at the origin, row 1 starts at 1, row 2 + i meets the i-th noise
    last = run(batch, levels, GAUSSIAN.denoise, step, _impulses()).flatten()
    (mean,), (variance,) = GAUSSIAN.components(levels[0])
    gains = last[1:] - last[0]  # A, then every C_i
    return float(gains[0] * mean + last[0]), float(gains[0] ** 2 * variance + gains[1:].square().sum())


def _impulses() -> Callable[[Tensor], Tensor]:
    """A noise(x) whose i-th call is 1 in row 2 + i and 0 elsewhere."""
    calls = 0

    def noise(x: Tensor) -> Tensor:
        nonlocal calls
        impulse = torch.zeros_like(x)
        impulse[2 + calls] = 1
        calls += 1
        return impulse

    return noise


def _ddim_less_ddpm(path: str) -> float:
    """The largest difference of ddim with eta 1 from ddpm on the same noise (Song et al. 2021, section 4.1)."""
    levels = [*log_snr_grid(processes()[path], 16), CLEAN]
    x = torch.linspace(-3, 3, 16, dtype=torch.float64).view(1, 1, 4, 4)

    def end(step: Step) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return run(x, levels, TWO_MODES.denoise, step, lambda x: torch.empty_like(x).normal_(generator=generator))

    return largest(end(partial(SAMPLERS["ddim"], eta=1)) - end(SAMPLERS["ddpm"]))
