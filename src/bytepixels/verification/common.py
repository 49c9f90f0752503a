"""What the checks share: one row of the table, the three kinds of path, and a run to the end of a grid."""

import math
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..core.denoiser import Denoise
from ..core.gaussian_diffusion import EDMProcess, GaussianDiffusion, RectifiedFlow
from ..core.levels import Level, Process
from ..core.samplers import Noise, Step, trajectory

NOISIEST, CLEANEST = -4.0, 3.0  # half_log_snr of the ends of the grids: sigma / alpha from 55 to 0.05


class Check(NamedTuple):
    """One row: a number that was measured, the one it should be, and how far from it is still right."""

    name: str
    measured: float
    expected: float = 0.0
    tolerance: float = 0.0
    note: str = ""

    @property
    def ok(self) -> bool:
        """Whether it is within the tolerance; NaN, and what has no expected value (NaN), never are."""
        return abs(self.measured - self.expected) <= self.tolerance


def paths() -> dict[str, Process]:
    """One process for each way in which alpha and sigma go together."""
    return {
        "VP": GaussianDiffusion(),
        "EDM": EDMProcess(),
        "flow": RectifiedFlow(),
    }


def log_snr_grid(process: Process, steps: int, start: float = NOISIEST, end: float = CLEANEST) -> list[Level]:
    """steps + 1 levels of the process, even in half_log_snr; none is CLEAN."""
    return [process.level(at) for at in np.linspace(start, end, steps + 1).tolist()]


def even_grid(process: Process, steps: int, start: float, end: float) -> list[Level]:
    """The same, even in sigma / alpha."""
    ratios = np.linspace(math.exp(-start), math.exp(-end), steps + 1)
    return [process.level(-math.log(ratio)) for ratio in ratios.tolist()]


def no_noise(x: Tensor) -> Tensor:
    """For deterministic samplers: whoever asks for noise is not one."""
    raise RuntimeError("a deterministic sampler asked for noise")


def run(x: Tensor, levels: Sequence[Level], denoise: Denoise, step: Step, noise: Noise = no_noise) -> Tensor:
    """x at the last level."""
    (last,) = deque(trajectory(x, levels, denoise, step, noise), maxlen=1)
    return last


def largest(values: Tensor) -> float:
    """The largest absolute value; NaN where one is NaN."""
    return float(torch.as_tensor(values).abs().max())
