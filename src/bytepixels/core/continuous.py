"""Processes in continuous time: Karras et al.'s (EDM) and rectified flow."""

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from ..choices import SPACINGS
from ..errors import InputError, check_choice, check_count
from .levels import CLEAN, Level, Process, check_times, log_snr_spacing, sigmoid, spacing_fractions


class _Continuous(Process):
    """The common part of EDM and rectified flow: continuous times, and a range of them for the sampling grids."""

    whole_times = False
    noisiest = -math.inf
    default_steps: int
    _ends: tuple[float, float]  # half_log_snr of the noisiest level from which a grid is even, and of the cleanest
    _first: Level  # the noisiest level of all
    _clean_time: float  # where an even grid in t ("trailing") would reach the clean end

    def levels(
        self, steps: int | None = None, spacing: str | None = None, times: Sequence[float] | None = None
    ) -> list[Level]:
        """`steps` levels, noisiest first, then CLEAN; spacings as for GaussianDiffusion. `times`: t, descending."""
        spacing = check_choice("spacing", self.default_spacing if spacing is None else spacing, SPACINGS)
        if times is not None:
            check_times(times, steps)
            return [*(self.level(self._half_log_snr(float(t))) for t in times), CLEAN]
        steps = self.default_steps if steps is None else steps
        check_count("steps", steps, 1)
        if spacing in ("log_snr", "karras"):
            chosen = log_snr_spacing(int(steps), spacing, *self._ends).tolist()
        else:
            low = self._clean_time if spacing == "trailing" else self.level(self._ends[1]).t
            chosen = [
                self._half_log_snr(low + share * (self._first.t - low)) for share in spacing_fractions(steps, spacing)
            ]
        first = self.level(chosen[0]) if spacing == "leading" else self._first
        return [first, *map(self.level, chosen[1:]), CLEAN]

    @abstractmethod
    def _half_log_snr(self, t: float) -> float: ...


class EDMProcess(_Continuous):
    """Karras et al. 2022 (EDM): x_t = x0 + sigma * eps. t = ln(sigma) / 4, their c_noise (table 1).

    ln(sigma) ~ Normal(p_mean, p_std) in training; grids lie in sigma_min..sigma_max, "karras" unless told. Prediction
    "v" is their preconditioned network F, negated; its mean squared error is their weighted loss.
    """

    pure_noise, default_steps, default_spacing = False, 18, "karras"

    def __init__(
        self,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        p_mean: float = -1.2,
        p_std: float = 1.2,
        sigma_data: float = 0.5,
    ):
        if not 0 < sigma_min < sigma_max < math.inf:
            raise InputError(f"0 < sigma_min < sigma_max must hold, got {sigma_min} and {sigma_max}")
        if not (sigma_data > 0 and p_std > 0):
            raise InputError(f"sigma_data and p_std must be above 0, got {sigma_data} and {p_std}")
        self.p_mean, self.p_std, self.sigma_data = p_mean, p_std, sigma_data
        self._ends = -math.log(sigma_max), -math.log(sigma_min)
        self._first, self._clean_time = self.level(self._ends[0]), math.log(sigma_min) / 4

    def draw_times(self, batch: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw training times t = ln(sigma) / 4 with ln(sigma) ~ Normal(p_mean, p_std): [batch] float32."""
        return (self.p_mean + self.p_std * _randn(batch, generator)) / 4

    def alpha_sigma(self, t: Tensor, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """t [B] -> 1, exp(4 t), each [B, 1, 1, 1]."""
        sigma = torch.exp(4 * torch.as_tensor(t).to(dtype))[:, None, None, None]
        return torch.ones_like(sigma), sigma

    def level(self, half_log_snr: float) -> Level:
        """The level with this log(alpha / sigma), which is -ln(sigma)."""
        if not -300 < half_log_snr < 300:
            raise InputError(f"ln(sigma) must be in -300..300, got {-half_log_snr}")
        return Level(-half_log_snr / 4, 1.0, math.exp(-half_log_snr))

    def time_at(self, angle: Tensor) -> Tensor:
        """ln(sigma) / 4 at sigma = sigma_data tan(angle): [B], like the angle."""
        return torch.log(self.sigma_data * torch.tan(angle)) / 4

    def log_snr_density(self, t: Tensor) -> Tensor:
        """The density of log SNR = -2 ln(sigma), which is normal, at times t: [B, 1, 1, 1]."""
        return _normal_density(4 * t, self.p_mean, self.p_std) / 2

    def _half_log_snr(self, t: float) -> float:
        return -4 * t


class RectifiedFlow(_Continuous):
    """Liu et al. 2023, Lipman et al. 2023: x_t = (1 - t) x0 + t eps, t from 0 (clean) to 1 (noise).

    times: "uniform", or "logit_normal" (Esser et al. 2024, eq. 19: logit t ~ Normal(mean, std)). The loss on the
    velocity eps - x0 is weighting "velocity". Grids are even in t ("trailing": 1, 1 - 1/steps, ...) unless told; those
    even in the noise begin at t = 1 and are even from 0.999 to 0.001.
    """

    sigma_data, pure_noise = 1.0, True
    default_steps, default_spacing = 50, "trailing"
    _first, _clean_time = Level(1.0, 0.0, 1.0), 0.0
    _ends = -math.log(999), math.log(999)

    def __init__(self, times: str = "uniform", mean: float = 0.0, std: float = 1.0):
        self.times, self.mean, self.std = check_choice("times", times, ("uniform", "logit_normal")), mean, std
        if not std > 0:
            raise InputError(f"std must be above 0, got {std}")

    def draw_times(self, batch: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw training times t in (0, 1]: [batch] float32."""
        if self.times == "logit_normal":
            return torch.sigmoid(self.mean + self.std * _randn(batch, generator))
        return 1 - torch.rand(batch, generator=generator, device=None if generator is None else generator.device)

    def alpha_sigma(self, t: Tensor, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """t [B] in 0..1 -> 1 - t, t, each [B, 1, 1, 1]."""
        t = torch.as_tensor(t)
        if t.device.type == "cpu" and t.numel() and not (t.min() >= 0 and t.max() <= 1):
            raise InputError(f"t must be in 0..1, got {float(t.min()):g}..{float(t.max()):g}")
        sigma = t.to(dtype)[:, None, None, None]
        return 1 - sigma, sigma

    def level(self, half_log_snr: float) -> Level:
        """The level with this log(alpha / sigma) = log((1 - t) / t)."""
        sigma = sigmoid(-half_log_snr)
        return Level(sigma, sigmoid(half_log_snr), sigma)

    def time_at(self, angle: Tensor) -> Tensor:
        """t with t / (1 - t) = tan(angle): [B], like the angle."""
        return (torch.sin(angle) / (torch.sin(angle) + torch.cos(angle))).clamp(0, 1)  # pi / 2 is rounded

    def log_snr_density(self, t: Tensor) -> Tensor:
        """The density of log SNR = 2 log((1 - t) / t) at times t: [B, 1, 1, 1]."""
        if self.times == "logit_normal":
            return _normal_density(torch.logit(t), self.mean, self.std) / 2
        return (t * (1 - t))[:, None, None, None] / 2

    def _half_log_snr(self, t: float) -> float:
        if not 0 < t <= 1:
            raise InputError(f"t must be above 0 and at most 1, got {t:g}")
        return math.log((1 - t) / t) if t < 1 else -math.inf


def _randn(batch: int, generator: torch.Generator | None) -> Tensor:
    return torch.randn(batch, generator=generator, device=None if generator is None else generator.device)


def _normal_density(x: Tensor, mean: float, std: float) -> Tensor:
    return (torch.exp(-(((x - mean) / std) ** 2) / 2) / (std * math.sqrt(2 * math.pi)))[:, None, None, None]
