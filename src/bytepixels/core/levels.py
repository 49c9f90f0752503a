"""Noise levels, sampling grids, and the interface of every process: x_t = alpha * x0 + sigma * eps."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError

RHO = 7  # Karras et al. 2022, eq. 5


class Level(NamedTuple):
    """One noise level, on the host, in float64: x_t = alpha * x0 + sigma * eps."""

    t: float  # what the network is told
    alpha: float
    sigma: float

    @property
    def half_log_snr(self) -> float:
        """log(alpha / sigma): DPM-Solver's lambda. -inf at pure noise, inf at the clean end."""
        if self.alpha == 0:
            return -math.inf
        return math.inf if self.sigma == 0 else math.log(self.alpha / self.sigma)

    def angle(self, sigma_data: float = 1.0) -> float:
        """atan2(sigma, alpha sigma_data), the time in which all processes are one (Lu & Song 2025, section 3): 0 at the
        clean end, pi / 2 at pure noise; x, scaled to variance 1, is cos(angle) x0 / sigma_data + sin(angle) eps."""
        return math.atan2(self.sigma, self.alpha * sigma_data)


CLEAN = Level(t=0.0, alpha=1.0, sigma=0.0)


def way_between(now: Level, nxt: Level, sigma_data: float = 1.0) -> float:
    """How far it is from one level to a cleaner one: 0 where they are the same, 1 from pure noise to the clean end."""
    return (now.angle(sigma_data) - nxt.angle(sigma_data)) / (math.pi / 2)


class Process(ABC):
    """A forward process: training times, their alpha and sigma, and levels to sample along."""

    sigma_data: float  # the standard deviation that x0 is taken to have
    noisiest: float  # the least half_log_snr above pure noise that `level` takes; -inf where there is no such limit
    pure_noise: bool  # whether nothing is left of the image at the noisiest level: alpha is 0
    whole_times: bool  # whether t counts timesteps
    default_spacing: str

    @abstractmethod
    def draw_times(self, batch: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw training times [batch] on the generator's device."""

    @abstractmethod
    def alpha_sigma(self, t: Tensor, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """Times t [B] -> alpha, sigma, each [B, 1, 1, 1], on t's device."""

    @abstractmethod
    def level(self, half_log_snr: float) -> Level:
        """The level with this log(alpha / sigma), and the t that the network is given for it."""

    @abstractmethod
    def time_at(self, angle: Tensor) -> Tensor:
        """The times nearest to angles [B] in 0..pi / 2 (see `Level.angle`), such as `alpha_sigma` takes."""

    @abstractmethod
    def levels(
        self, steps: int | None = None, spacing: str | None = None, times: Sequence[float] | None = None
    ) -> list[Level]:
        """`steps` different levels, noisiest first, then CLEAN."""

    @abstractmethod
    def log_snr_density(self, t: Tensor) -> Tensor:
        """The density, under `draw_times`, of log(alpha^2 / sigma^2) at times t [B]: [B, 1, 1, 1] float32."""

    def angle(self, t: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Times t [B] -> their angles [B], as `Level.angle`."""
        alpha, sigma = self.alpha_sigma(t, dtype)
        return torch.atan2(sigma, alpha * self.sigma_data).flatten()

    def add_noise(self, x0: Tensor, t: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x_t and the noise in it, each like x0 [B, C, H, W]: alpha_t x0 + sigma_t noise (Ho et al. 2020, eq. 4).

        x0: floating point, pixels in [-1, 1]; t: [B] times of this process. InputError for other shapes or types.
        """
        t = torch.as_tensor(t)
        _check_batch(x0, t, noise, self.whole_times)
        compute = torch.promote_types(x0.dtype, torch.float32)
        if noise is None:
            noise = torch.randn(x0.shape, dtype=compute, device=x0.device).to(x0.dtype)
        alpha, sigma = self.alpha_sigma(t.to(x0.device), compute)
        return (alpha * x0 + sigma * noise).to(x0.dtype), noise

    def match_levels(self, levels: Sequence[Level]) -> list[Level]:
        """Convert the grid of another process: the same levels, with this network's t.

        InputError where alpha and sigma go together in another way, or where this process has no such level.
        """
        own = [level if level.sigma == 0 else self.level(level.half_log_snr) for level in levels]
        for mine, theirs in zip(own, levels, strict=True):
            if not np.allclose(mine[1:], theirs[1:], rtol=1e-6, atol=1e-9):
                raise InputError(
                    f"the grid is of a process that relates alpha and sigma otherwise: at log(alpha / sigma) = "
                    f"{theirs.half_log_snr:.4g} it has alpha {theirs.alpha:.4g}, this one {mine.alpha:.4g}"
                )
        return own


def spacing_fractions(steps: int, spacing: str) -> np.ndarray:
    """The position of each of `steps` levels in the range of times, noisiest first: 1 is its end, 0 its beginning."""
    i = np.arange(steps, dtype=np.float64)
    if spacing == "trailing":
        return (steps - i) / steps
    if spacing == "leading":
        return (steps - 1 - i) / steps
    share = 1 - i / max(steps - 1, 1)
    return share**2 if spacing == "quadratic" else share


def log_snr_spacing(steps: int, spacing: str, noisiest: float, cleanest: float) -> np.ndarray:
    """`steps` values of half_log_snr, evenly spaced in it ("log_snr") or in (sigma / alpha)^(1/7) ("karras")."""
    share = spacing_fractions(steps, "linspace")
    if spacing == "log_snr":
        return cleanest + share * (noisiest - cleanest)
    high, low = math.exp(-noisiest / RHO), math.exp(-cleanest / RHO)
    return -RHO * np.log(low + share * (high - low))


def check_times(times: Sequence[float], steps: int | None) -> None:
    """Raise InputError unless explicit times descend, and are as many as `steps` where that is given."""
    if len(times) == 0 or any(not a > b for a, b in pairwise(times)):
        raise InputError(f"times must descend from the noisiest level, got {list(times)}")
    if steps is not None and len(times) != steps:
        raise InputError(f"steps is {steps} but {len(times)} times are given: leave one of them out")


def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)), without overflow at either end."""
    return 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x))


def _check_batch(x0: Tensor, t: Tensor, noise: Tensor | None, whole_times: bool) -> None:
    """Raise InputError for shapes or types that would broadcast or round silently."""
    if x0.ndim != 4 or not x0.is_floating_point():
        raise InputError(f"x0 must be floating point [B, C, H, W], got {x0.dtype} {list(x0.shape)}")
    if t.shape != x0.shape[:1] or t.is_floating_point() == whole_times:
        kind = "integers" if whole_times else "floating-point times"
        raise InputError(f"t must be [{len(x0)}] {kind}, one for each image, got {t.dtype} {list(t.shape)}")
    if noise is not None and noise.shape != x0.shape:
        raise InputError(f"noise must have the shape of x0, {list(x0.shape)}, got {list(noise.shape)}")
