"""Checks of the order of convergence of every deterministic sampler."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch

from ..core.exact_denoisers import TWO_MODES
from ..core.levels import Level, Process
from ..registries import SAMPLERS, sampler_facts
from .check import Check, log_snr_grid, order_check, processes, run

ABOUT = """Data: a mixture of two Gaussians, whose denoiser E[x0 | x_t] and probability-flow ODE are known exactly, with
x_t = alpha x0 + sigma eps. In N steps a sampler of order p has an error proportional to N^-p. The order is measured
from 128 to 512 steps, equal in log(alpha/sigma) or, where it says so, in sigma/alpha, on three processes: VP
(alpha^2 + sigma^2 = 1, as in DDPM), EDM (alpha = 1) and flow (alpha + sigma = 1)."""
EVEN_ORDERS = {"ipndm": 4}  # on grids even in sigma / alpha
# log(alpha / sigma) at the ends of those grids. The first-order start costs iPNDM an error of order 2, which wins as
# steps grow or the range shrinks; in this range the error of its four terms is what one sees.
EVEN_ENDS = -2.5, 1.25
STEPS = (8, 16, 32, 64, 128, 256, 512)
Grid = Callable[[Process, int], list[Level]]


def order_checks() -> Iterator[Check]:
    """Check every deterministic sampler on every process; rows are named "sampler, process"."""
    names = [name for name in SAMPLERS if not sampler_facts(name).stochastic]
    for name in names:
        yield from sampler_checks(name, name, log_snr_grid, sampler_facts(name).order)
    for name in EVEN_ORDERS.keys() & names:
        yield from sampler_checks(name, f"{name} (equal in sigma/alpha)", even_grid, EVEN_ORDERS[name])


def sampler_checks(sampler: str, title: str, grid: Grid, expected: float) -> Iterator[Check]:
    """Check one sampler on every process against the exact flow x_s = F_s^-1(F_t(x_t)) at 16 quantiles."""
    p = torch.linspace(0.05, 0.95, 16, dtype=torch.float64).view(1, 1, 4, 4)
    for path, process in processes().items():
        x, exact = (TWO_MODES.quantile(p, end) for end in grid(process, 1))
        ends = {steps: run(x, grid(process, steps), TWO_MODES.denoise, SAMPLERS[sampler]) for steps in STEPS}
        errors = {steps: float((end - exact).abs().mean()) for steps, end in ends.items()}
        yield order_check(f"{title}, {path}", errors, expected)


def even_grid(process: Process, steps: int) -> list[Level]:
    """A grid of steps + 1 levels, evenly spaced in sigma / alpha."""
    first, last = EVEN_ENDS
    ratios = np.linspace(math.exp(-first), math.exp(-last), steps + 1)
    return [process.level(-math.log(ratio)) for ratio in ratios.tolist()]
