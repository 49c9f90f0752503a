"""Exact laws to check samplers with: a Gaussian mixture in one dimension, pixel by pixel, and a Gaussian's flow map.

The mixture's best denoiser and its probability flow are known. The best denoiser of a set of images is in
metrics/optimal_denoiser.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .levels import Level

BISECTIONS = 80  # each halves the interval: 20 standard deviations down to the spacing of float64


@dataclass(frozen=True)
class Mixture:
    """x0 ~ sum_k weights_k N(means_k, variances_k), independently at every pixel. All arithmetic is float64."""

    weights: tuple[float, ...]
    means: tuple[float, ...]
    variances: tuple[float, ...]

    def components(self, level: Level) -> tuple[Tensor, Tensor]:
        """Means and variances [K] of the components of x_t = alpha * x0 + sigma * eps, whose weights stay the same."""
        return level.alpha * _float64(self.means), level.alpha**2 * _float64(self.variances) + level.sigma**2

    def denoise(self, x: Tensor, level: Level) -> Tensor:
        """E[x0 | x_t = x], like x: each component's own estimate, weighed by how probably x came from it (Bayes)."""
        mean, variance = self.components(level)
        away = x.double()[..., None] - mean  # [..., K]
        share = torch.softmax(_float64(self.weights).log() - variance.log() / 2 - away**2 / (2 * variance), dim=-1)
        gain = level.alpha * _float64(self.variances) / variance
        return (share * (_float64(self.means) + gain * away)).sum(-1).to(x.dtype)

    def cdf(self, x: Tensor, level: Level) -> Tensor:
        """F_t(x) = P(x_t <= x), in 0..1, float64."""
        mean, variance = self.components(level)
        return (_float64(self.weights) * torch.special.ndtr((x.double()[..., None] - mean) / variance.sqrt())).sum(-1)

    def quantile(self, p: Tensor, level: Level) -> Tensor:
        """The x with F_t(x) = p, for p within (0, 1), by bisection: float64, like p."""
        mean, variance = self.components(level)
        reach = 10 * variance.sqrt()  # F_t is 0 or 1 in float64 beyond it
        low, high = torch.full_like(p, float((mean - reach).min())), torch.full_like(p, float((mean + reach).max()))
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            below = self.cdf(middle, level) < p
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2

    def flow(self, x: Tensor, now: Level, nxt: Level) -> Tensor:
        """The probability-flow ODE's exact solution from level `now` to `nxt`: x_s = F_s^-1(F_t(x_t)).

        In one dimension paths cannot cross, so each keeps its quantile. x beyond some 7 standard deviations has none
        that float64 tells from 1.
        """
        return self.quantile(self.cdf(x, now), nxt)


@dataclass(frozen=True)
class GaussianFlowMap:
    """D(x, now -> nxt) of x0 ~ N(mean, std^2), independently at every pixel: its flow in one step, of any length.

    With `std` for sigma_data, x scaled to variance 1 stays where it is along the flow, and ddim's formula turns it by
    the difference of angles: the step is exact with D = mean + std cos((a + b) / 2) / cos((a - b) / 2) * scaled x, for
    the angles a and b of the two levels. At b = a that is E[x0 | x]; at the clean end mean + std * scaled x.
    """

    mean: float
    std: float

    def __call__(self, x: Tensor, now: Level, nxt: Level | None = None) -> Tensor:
        a, b = now.angle(self.std), (nxt or now).angle(self.std)
        gain = self.std * math.cos((a + b) / 2) / math.cos((a - b) / 2) / math.hypot(now.alpha * self.std, now.sigma)
        return self.mean + gain * (x - now.alpha * self.mean)


def _float64(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


TWO_MODES = Mixture((0.4, 0.6), (-1.0, 0.8), (0.04, 0.09))
GAUSSIAN = Mixture((1.0,), (0.3,), (0.25,))
