"""Exponential integration where it is exact: Gaussian data of the standard deviation that it is told."""

import math
from collections.abc import Iterator
from itertools import pairwise

import torch

from ..core.exact_denoisers import Mixture
from ..core.samplers import step_of
from ..registries import SAMPLERS, sampler_facts
from .check import Check, largest, processes, run

ABOUT = """Data: one Gaussian around 0 with the standard deviation sigma_data, and its exact denoiser. The integrators
of what a network with prediction v outputs keep x / sqrt(alpha^2 sigma_data^2 + sigma^2) as it is, in any number of
steps: shown is the largest error from the noisiest level to the clean end, in 1, 2, 3, 5 and 10 of them, in units of
sigma_data. Last row: ddim, which is not exact, less what the same law says of it."""
STEPS = (1, 2, 3, 5, 10)
TOLERANCE = 1e-12


def exact_checks() -> Iterator[Check]:
    """Every exponential integrator on every process; ddim, by the product of the cosines of its turns."""
    for name in (each for each in SAMPLERS if sampler_facts(each).sigma_data):
        worst = (_error(path, steps, name, 1.0) for path in processes() for steps in STEPS)
        yield Check(f"{name}, all processes", largest(torch.tensor(list(worst))), 0, TOLERANCE)
    off = [_error(path, steps, "ddim", _cosines(path, steps)) for path in processes() for steps in STEPS]
    yield Check("ddim less the product of cosines, all processes", largest(torch.tensor(off)), 0, TOLERANCE)


def _error(path: str, steps: int, sampler: str, kept: float) -> float:
    """The largest error at the clean end, where x0 / sigma_data should be `kept` times y at the noisiest level."""
    process = processes()[path]
    data = Mixture((1.0,), (0.0,), (process.sigma_data**2,)).denoise
    step = step_of(sampler, process)
    levels = process.levels(steps)
    y = torch.linspace(-3, 3, 16, dtype=torch.float64).view(1, 1, 4, 4)
    start = math.hypot(levels[0].alpha * process.sigma_data, levels[0].sigma)
    return largest(run(start * y, levels, data, step) / process.sigma_data - kept * y)


def _cosines(path: str, steps: int) -> float:
    """What ddim leaves of y: the product of cos(a_now - a_nxt) over its steps, tan a = sigma / (alpha sigma_data)."""
    process = processes()[path]
    angles = [math.atan2(level.sigma, level.alpha * process.sigma_data) for level in process.levels(steps)]
    return math.prod(math.cos(a - b) for a, b in pairwise(angles))
