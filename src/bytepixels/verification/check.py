"""One row of `bytepixels verify`, and what the checks share: processes, a grid of noise levels, a sampler's run."""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..core.denoiser import Denoise
from ..core.gaussian_diffusion import EDMProcess, GaussianDiffusion, RectifiedFlow
from ..core.levels import Level, Process
from ..core.samplers import Noise, Step, trajectory

NOISIEST, CLEANEST = -4.0, 3.0  # log(alpha / sigma) at the ends of the grids: sigma / alpha from 55 to 0.05
COARSE, FINE = 128, 512  # an order is the slope between them: the error of fewer steps is not yet a power law
ORDER_TOLERANCE = 0.15


@dataclass(frozen=True)
class Check:
    """A measured number, its expected value, and the tolerance."""

    name: str
    measured: float
    expected: float = 0.0
    tolerance: float = 0.0
    errors: Mapping[int, float] = field(default_factory=dict)  # number of steps -> error, where an order was measured
    note: str = ""  # what broke, where something did
    section: str = ""  # title of the section it belongs to
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether the number is within the tolerance; NaN, measured or expected, never is."""
        return abs(self.measured - self.expected) <= self.tolerance


def order_check(name: str, errors: Mapping[int, float], expected: float) -> Check:
    """Check the order p of error ~ steps^-p between COARSE and FINE steps. expected: NaN, which fails, if unknown."""
    ratio = errors[COARSE] / errors[FINE] if errors[FINE] else math.nan
    order = math.log(ratio) / math.log(FINE / COARSE) if ratio > 0 else math.nan
    note = "no order is known for this sampler" if math.isnan(expected) else ""
    return Check(name, order, expected, ORDER_TOLERANCE, errors, note)


def processes() -> dict[str, Process]:
    """One process for each relation of alpha and sigma."""
    return {"VP": GaussianDiffusion(), "EDM": EDMProcess(), "flow": RectifiedFlow()}


def log_snr_grid(process: Process, steps: int) -> list[Level]:
    """A grid of steps + 1 levels, evenly spaced in log(alpha / sigma) from NOISIEST to CLEANEST."""
    return [process.level(at) for at in np.linspace(NOISIEST, CLEANEST, steps + 1).tolist()]


def no_noise(x: Tensor) -> Tensor:
    """Raise an error: a deterministic sampler must not ask for noise."""
    raise RuntimeError("a deterministic sampler asked for noise")


def run(x: Tensor, levels: Sequence[Level], denoise: Denoise, step: Step, noise: Noise = no_noise) -> Tensor:
    """Run a sampler along the levels and return x at the last one."""
    (last,) = deque(trajectory(x, levels, denoise, step, noise), maxlen=1)
    return last


def largest(values: Tensor) -> float:
    """The largest absolute value; NaN where one is NaN."""
    return float(torch.as_tensor(values).abs().max())
