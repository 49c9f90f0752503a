"""The forward process: x_t = alpha_t * x0 + sigma_t * eps, and the grids of noise levels to go back along."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .errors import InputError, check_choice, check_count
from .schedules import Schedule, linear_schedule

SPACINGS = ("trailing", "leading", "linspace", "quadratic", "log_snr", "karras")


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


CLEAN = Level(t=0.0, alpha=1.0, sigma=0.0)


class GaussianDiffusion:
    """DDPM's variance-preserving process over the integer timesteps 0..T-1 (Ho et al. 2020, eq. 2 and 4).

    `betas`, `alphas` (1 - betas), `alpha_bar` (their cumulative product) are float64 tensors [T] on the host.
    `schedule` maps T to the betas. Half precision never touches them: they are rounded once, to the precision of the
    arithmetic (float32, or float64 for float64 images).
    """

    sigma_data = 1.0  # with it c_in is 1: the network sees x_t as it is

    def __init__(self, timesteps: int = 1000, schedule: Schedule = linear_schedule):
        check_count("timesteps", timesteps, 1)
        self.T = timesteps = int(timesteps)
        self.betas = torch.as_tensor(schedule(timesteps), dtype=torch.float64)
        if self.betas.shape != (timesteps,) or not bool(((self.betas > 0) & (self.betas <= 1)).all()):
            raise InputError(f"a schedule must give {timesteps} betas in (0, 1], got {_describe(self.betas)}")
        if bool((self.betas[:-1] == 1).any()):
            raise InputError("only the last beta may be 1: after it nothing is left of the picture")
        self.alphas = 1 - self.betas
        self.alpha_bar = torch.cumprod(self.alphas, dim=0)
        self._tables = {"cpu": torch.stack([self.alpha_bar.sqrt(), (1 - self.alpha_bar).sqrt()])}  # [2, T]

    def draw_times(self, batch: int, generator: torch.Generator | None = None) -> Tensor:
        """Uniform timesteps [batch], int64, on the generator's device (Ho et al. 2020, Algorithm 1, line 3)."""
        device = "cpu" if generator is None else generator.device
        return torch.randint(self.T, (batch,), generator=generator, device=device)

    def alpha_sigma(self, t: Tensor, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """Timesteps t [B] in 0..T-1 -> alpha, sigma, each [B, 1, 1, 1], on t's device."""
        t = torch.as_tensor(t)
        if t.device.type == "cpu" and t.numel() and (int(t.min()) < 0 or int(t.max()) >= self.T):
            raise InputError(f"t must be in 0..{self.T - 1}, got {int(t.min())}..{int(t.max())}")
        alpha, sigma = self._table(t.device)[:, t.long()].to(dtype)[..., None, None, None]
        return alpha, sigma

    def add_noise(self, x0: Tensor, t: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x_t and the noise in it, each like x0 [B, C, H, W]: sqrt(abar_t) x0 + sqrt(1 - abar_t) noise (eq. 4).

        x0: floating point, pixels in [-1, 1]; t: [B] integers in 0..T-1. InputError for other shapes or types.
        """
        t = torch.as_tensor(t)
        _check_batch(x0, t, noise)
        compute = torch.promote_types(x0.dtype, torch.float32)
        if noise is None:
            noise = torch.randn(x0.shape, dtype=compute, device=x0.device).to(x0.dtype)
        alpha, sigma = self.alpha_sigma(t.to(x0.device), compute)
        return (alpha * x0 + sigma * noise).to(x0.dtype), noise

    def levels(
        self, steps: int | None = None, spacing: str = "trailing", times: Sequence[int] | None = None
    ) -> list[Level]:
        """`steps` different levels, noisiest first, then CLEAN: exactly `steps` steps, for every number from 1 to T.

        spacing, in t unless said: "trailing" (even, from T - 1), "leading" (DDIM's code: t = i * (T // steps)),
        "linspace" (even, from T - 1 to 0), "quadratic" (sqrt(t) even, DDIM's for CIFAR-10 but from T - 1),
        "log_snr" (even in log(alpha / sigma)), "karras" ((sigma / alpha)^(1/7) even; Karras et al. 2022, eq. 5).
        `times`: the timesteps themselves, descending. Default: all T.
        """
        check_choice("spacing", spacing, SPACINGS)
        if times is None:
            times = self._times(self.T if steps is None else steps, spacing)
        else:
            times = self._checked(times, steps)
        alpha, sigma = self._tables["cpu"][:, times].tolist()
        return [Level(float(t), a, s) for t, a, s in zip(times, alpha, sigma, strict=True)] + [CLEAN]

    def _times(self, steps: int, spacing: str) -> list[int]:
        check_count("steps", steps, 1, self.T)
        i = np.arange(steps, dtype=np.float64)
        u = i / max(steps - 1, 1)  # 0 at the noisiest level, 1 at the cleanest
        match spacing:
            case "trailing":
                wanted = np.round(self.T * (steps - i) / steps) - 1
            case "leading":
                wanted = (steps - 1 - i) * (self.T // steps)
            case "linspace":
                wanted = (self.T - 1) * (1 - u)
            case "quadratic":
                wanted = (self.T - 1) * (1 - u) ** 2
            case _:
                wanted = self._evenly_in_noise(u, spacing)
        return _distinct(wanted, self.T)

    def _evenly_in_noise(self, u: np.ndarray, spacing: str) -> np.ndarray:
        """Real-valued timesteps at which a measure of the noise, rising in t, is even."""
        alpha, sigma = self._tables["cpu"].numpy()
        finite = max(int((alpha > 0).sum()), 1)  # a zero-SNR end is infinitely far: it is put first, the rest is even
        ratio = sigma[:finite] / np.maximum(alpha[:finite], 1e-300)
        noise = np.log(ratio) if spacing == "log_snr" else ratio ** (1 / 7)
        wanted = np.interp(noise[-1] + u * (noise[0] - noise[-1]), noise, np.arange(finite))
        wanted[0] = self.T - 1
        return wanted

    def _checked(self, times: Sequence[int], steps: int | None) -> list[int]:
        if len(times) == 0 or any(not 0 <= t < self.T or t != int(t) for t in times):
            raise InputError(f"times must be whole numbers in 0..{self.T - 1}, got {list(times)}")
        if any(a <= b for a, b in pairwise(times)):
            raise InputError(f"times must descend from the noisiest level, got {list(times)}")
        if steps is not None and len(times) != steps:
            raise InputError(f"steps is {steps} but {len(times)} times are given: leave one of them out")
        return [int(t) for t in times]

    def _table(self, device: torch.device) -> Tensor:
        """The [2, T] table of alpha and sigma on `device`: copied there once, then kept."""
        key = str(device)
        if key not in self._tables:
            table = self._tables["cpu"]
            self._tables[key] = (table.float() if device.type == "mps" else table).to(device)  # MPS has no float64
        return self._tables[key]


def _distinct(wanted: np.ndarray, T: int) -> list[int]:
    """Round descending real times to the nearest different integers within 0..T-1."""
    rounded = np.round(wanted).astype(int)[::-1]
    i = np.arange(len(rounded))
    apart = np.maximum.accumulate(rounded - i) + i  # each at least one above the one before
    return np.minimum(apart, T - len(rounded) + i)[::-1].tolist()  # and room for those that follow


def _check_batch(x0: Tensor, t: Tensor, noise: Tensor | None) -> None:
    """Whatever would broadcast or round in silence is refused."""
    if x0.ndim != 4 or not x0.is_floating_point():
        raise InputError(f"x0 must be floating point [B, C, H, W], got {x0.dtype} {list(x0.shape)}")
    if t.shape != x0.shape[:1] or t.is_floating_point():
        raise InputError(f"t must be [{len(x0)}] integers, one for each picture, got {t.dtype} {list(t.shape)}")
    if noise is not None and noise.shape != x0.shape:
        raise InputError(f"noise must have the shape of x0, {list(x0.shape)}, got {list(noise.shape)}")


def _describe(betas: Tensor) -> str:
    return f"shape {tuple(betas.shape)}" + (f" from {betas.min():.3g} to {betas.max():.3g}" if betas.numel() else "")
