"""DDPM's forward process, x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) eps; for continuous time see continuous.py."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..choices import SPACINGS
from ..errors import InputError, check_choice, check_count
from .continuous import EDMProcess, RectifiedFlow
from .levels import CLEAN, Level, Process, check_times, log_snr_spacing, sigmoid, spacing_fractions
from .posterior import Posterior, posteriors
from .schedules import Schedule, linear_schedule

__all__ = ["CLEAN", "SPACINGS", "EDMProcess", "GaussianDiffusion", "Level", "Process", "RectifiedFlow"]


LEAST_ALPHA = 1e-15  # below, the weights of a loss, about alpha^-2, leave float32's range


class GaussianDiffusion(Process):
    """DDPM's variance-preserving process over the integer timesteps 0..T-1 (Ho et al. 2020, eq. 2 and 4).

    `betas`, `alphas` (1 - betas), `alpha_bar` (their cumulative product) are float64 tensors [T] on the host.
    `schedule` maps T to the betas. Half precision never touches them: they are rounded once, to the precision of the
    arithmetic (float32, or float64 for float64 images).
    """

    sigma_data = 1.0  # with it c_in is 1: the network sees x_t as it is
    whole_times, default_spacing = True, "trailing"

    def __init__(self, timesteps: int = 1000, schedule: Schedule = linear_schedule):
        check_count("timesteps", timesteps, 1)
        self.T = timesteps = int(timesteps)
        self.betas = torch.as_tensor(schedule(timesteps), dtype=torch.float64)
        if self.betas.shape != (timesteps,) or not bool(((self.betas > 0) & (self.betas <= 1)).all()):
            raise InputError(f"a schedule must give {timesteps} betas in (0, 1], got {_describe(self.betas)}")
        if bool((self.betas[:-1] == 1).any()):
            raise InputError("only the last beta may be 1: after it nothing is left of the image")
        self.alphas = 1 - self.betas
        self.alpha_bar = torch.cumprod(self.alphas, dim=0)
        least = self.alpha_bar[self.alpha_bar > 0].sqrt().min().item() if bool((self.alpha_bar > 0).any()) else 1.0
        if least < LEAST_ALPHA:
            raise InputError(
                f"{timesteps} timesteps of this schedule leave {least:.1e} of an image (sqrt(alpha_bar)), less than "
                f"{LEAST_ALPHA:.0e}, which float32 needs: take fewer timesteps or schedule cosine"
            )
        alpha_sigma = torch.stack([self.alpha_bar.sqrt(), (1 - self.alpha_bar).sqrt()])  # [2, T]
        levels = [Level(float(t), *row) for t, row in enumerate(alpha_sigma.T.tolist())][::-1]
        half_log_snr = (torch.log(self.alpha_bar) - torch.log1p(-self.alpha_bar)).numpy() / 2  # [T]
        self._half_log_snr = half_log_snr[np.isfinite(half_log_snr)]  # all T, or all but a zero-SNR end
        self.pure_noise = bool(self.alpha_bar[-1] == 0)
        self.noisiest = float(self._half_log_snr[-1]) if len(self._half_log_snr) else -math.inf
        density = torch.full((1, timesteps), math.nan, dtype=torch.float64)  # of log SNR, by central differences
        if len(self._half_log_snr) == timesteps > 1:
            density[0] = torch.from_numpy(-1 / (timesteps * 2 * np.gradient(half_log_snr)))
        posterior = torch.stack(posteriors([*levels, CLEAN])).flip(1)  # [4, T]
        self._tables = {"cpu": torch.cat([alpha_sigma, posterior, density])}  # [7, T]

    def draw_times(self, batch: int, generator: torch.Generator | None = None) -> Tensor:
        """Uniform timesteps [batch], int64, on the generator's device (Ho et al. 2020, Algorithm 1, line 3)."""
        device = "cpu" if generator is None else generator.device
        return torch.randint(self.T, (batch,), generator=generator, device=device)

    def alpha_sigma(self, t: Tensor, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """Timesteps t [B] in 0..T-1 -> sqrt(abar_t), sqrt(1 - abar_t), each [B, 1, 1, 1], on t's device."""
        t = torch.as_tensor(t)
        if t.device.type == "cpu" and t.numel() and (int(t.min()) < 0 or int(t.max()) >= self.T):
            raise InputError(f"t must be in 0..{self.T - 1}, got {int(t.min())}..{int(t.max())}")
        alpha, sigma = self._table(t.device)[:2, t.long()].to(dtype)[..., None, None, None]
        return alpha, sigma

    def posterior(self, t: Tensor, dtype: torch.dtype = torch.float32) -> Posterior[Tensor]:
        """q(x_(t-1) | x_t, x0) at timesteps t [B], each field [B, 1, 1, 1]; at t = 0, `variance` is that of t = 1."""
        return Posterior(*self._table(t.device)[2:6, t].to(dtype)[..., None, None, None])

    def level(self, half_log_snr: float) -> Level:
        """The level with this log(alpha / sigma), between two timesteps if need be. InputError outside 0..T-1."""
        if half_log_snr == -math.inf and self.pure_noise:
            return Level(self.T - 1.0, *self._tables["cpu"][:2, -1].tolist())
        first = max(self._half_log_snr, default=self.noisiest)
        if not self.noisiest - 1e-9 <= half_log_snr <= first + 1e-9:
            raise InputError(f"log(alpha / sigma) must be in {self.noisiest:.4g}..{first:.4g}, got {half_log_snr:.4g}")
        t = float(self._between(half_log_snr))
        return Level(t, math.sqrt(sigmoid(2 * half_log_snr)), math.sqrt(sigmoid(-2 * half_log_snr)))

    def time_at(self, angle: Tensor) -> Tensor:
        """The timestep with the nearest angle: [B] int64."""
        alpha, sigma = self._table(angle.device)[:2]
        angles = torch.atan2(sigma, alpha).to(angle.dtype)  # ascending, [T]
        return torch.bucketize(angle, (angles[:-1] + angles[1:]) / 2)

    def levels(
        self, steps: int | None = None, spacing: str | None = None, times: Sequence[float] | None = None
    ) -> list[Level]:
        """`steps` different levels, noisiest first, then CLEAN: exactly `steps` steps, for every number from 1 to T.

        spacing, in t unless said: "trailing" (even, from T - 1), "leading" (DDIM's code: t = i * (T // steps)),
        "linspace" (even, from T - 1 to 0), "quadratic" (sqrt(t) even, DDIM's for CIFAR-10 but from T - 1),
        "log_snr" (even in log(alpha / sigma)), "karras" ((sigma / alpha)^(1/7) even; Karras et al. 2022, eq. 5).
        `times`: the timesteps themselves, descending. Default: all T.
        """
        spacing = check_choice("spacing", self.default_spacing if spacing is None else spacing, SPACINGS)
        if times is None:
            chosen = self._times(self.T if steps is None else steps, spacing)
        else:
            if len(times) == 0 or any(not 0 <= t < self.T or t != int(t) for t in times):
                raise InputError(f"times must be whole numbers in 0..{self.T - 1}, got {list(times)}")
            check_times(times, steps)
            chosen = [int(t) for t in times]
        alpha, sigma = self._tables["cpu"][:2, chosen].tolist()
        return [Level(float(t), a, s) for t, a, s in zip(chosen, alpha, sigma, strict=True)] + [CLEAN]

    def log_snr_density(self, t: Tensor) -> Tensor:
        """1 / (T |d log SNR / dt|) at timesteps t [B], by central differences: [B, 1, 1, 1] float32."""
        if len(self._half_log_snr) < max(self.T, 2):
            raise InputError("a weight that is even in log SNR needs two timesteps or more, none of them at zero SNR")
        return self._table(t.device)[6, t].float()[:, None, None, None]

    def _times(self, steps: int, spacing: str) -> list[int]:
        check_count("steps", steps, 1, self.T)
        if steps == self.T:
            return list(range(self.T))[::-1]
        steps = int(steps)
        share = spacing_fractions(steps, spacing)
        match spacing:
            case "trailing":
                wanted = np.round(self.T * share) - 1
            case "leading":
                wanted = np.round(steps * share) * (self.T // steps)
            case "linspace" | "quadratic":
                wanted = (self.T - 1) * share
            case _:  # a zero-SNR end is infinitely far: it is put first, the rest is even
                first, last = self._half_log_snr[[0, -1]].tolist()
                wanted = self._between(log_snr_spacing(steps, spacing, last, first))
                wanted[0] = self.T - 1
        return _distinct(wanted, self.T)

    def _between(self, half_log_snr: float | np.ndarray) -> np.ndarray:
        """Interpolate the timesteps at these values of log(alpha / sigma)."""
        return np.interp(-np.asarray(half_log_snr), -self._half_log_snr, np.arange(len(self._half_log_snr)))

    def _table(self, device: torch.device) -> Tensor:
        """The [7, T] table of alpha, sigma, the posterior and the density on `device`, copied there once."""
        key = str(device)
        if key not in self._tables:
            table = self._tables["cpu"]
            self._tables[key] = (table.float() if device.type == "mps" else table).to(device)  # MPS has no float64
        return self._tables[key]


def _distinct(wanted: np.ndarray, T: int) -> list[int]:
    """Round descending real times to the nearest distinct integers within 0..T-1."""
    rounded = np.round(wanted).astype(int)[::-1]
    i = np.arange(len(rounded))
    apart = np.maximum.accumulate(rounded - i) + i  # each at least one above the one before
    return np.minimum(apart, T - len(rounded) + i)[::-1].tolist()  # and room for those that follow


def _describe(betas: Tensor) -> str:
    return f"shape {tuple(betas.shape)}" + (f" from {betas.min():.3g} to {betas.max():.3g}" if betas.numel() else "")
