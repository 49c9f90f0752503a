"""Exact laws in float64, to compare with: FIELD's mixtures, their probability-flow map, and grids of levels to walk.

Nothing of bytepixels is used here but the Level that a grid is made of.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import norm
from torch import Tensor

from bytepixels import Level


@dataclass(frozen=True)
class Mixture:
    """A Gaussian mixture in one dimension, one number per pixel: x0 ~ sum_k w_k N(mu_k, S_k)."""

    weights: tuple[float, ...]
    means: tuple[float, ...]
    variances: tuple[float, ...]

    def at(self, alpha: float, sigma: float) -> tuple[np.ndarray, np.ndarray]:
        """Means and variances of the components of x_t = alpha * x0 + sigma * eps."""
        return alpha * np.array(self.means), alpha**2 * np.array(self.variances) + sigma**2

    def expected_x0(self, x: np.ndarray, alpha: float, sigma: float) -> np.ndarray:
        """E[x0 | x_t = x]."""
        x = x[..., None]
        mean, variance = self.at(alpha, sigma)
        logit = np.log(self.weights) - np.log(variance) / 2 - (x - mean) ** 2 / variance / 2
        share = np.exp(logit - logit.max(-1, keepdims=True))
        share /= share.sum(-1, keepdims=True)
        return (share * (self.means + alpha * np.array(self.variances) / variance * (x - mean))).sum(-1)

    def cdf(self, x: np.ndarray, alpha: float, sigma: float) -> np.ndarray:
        mean, variance = self.at(alpha, sigma)
        return (np.array(self.weights) * norm.cdf((x[..., None] - mean) / np.sqrt(variance))).sum(-1)

    def quantile(self, p: np.ndarray, alpha: float, sigma: float) -> np.ndarray:
        mean, variance = self.at(alpha, sigma)
        low = np.full(p.shape, (mean - 10 * np.sqrt(variance)).min())
        high = np.full(p.shape, (mean + 10 * np.sqrt(variance)).max())
        for _ in range(80):
            middle = (low + high) / 2
            below = self.cdf(middle, alpha, sigma) < p
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return (low + high) / 2

    def denoise(self, x: Tensor, level: Level) -> Tensor:
        """The exact denoiser, as samplers want it."""
        return torch.from_numpy(self.expected_x0(x.double().numpy(), level.alpha, level.sigma)).to(x.dtype)

    def network(self, alpha_bar: np.ndarray, prediction: str) -> Callable[..., Tensor]:
        """The exact network of a variance-preserving process: it reads x and t, and answers in float64 for float64."""

        def network(x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
            rows = []
            for image, time in zip(x.double().numpy(), t.tolist(), strict=True):
                alpha, sigma = np.sqrt(alpha_bar[int(time)]), np.sqrt(1 - alpha_bar[int(time)])
                x0 = self.expected_x0(image, alpha, sigma)
                eps = (image - alpha * x0) / sigma
                rows.append({"eps": eps, "x0": x0, "v": alpha * eps - sigma * x0}[prediction])
            return torch.from_numpy(np.stack(rows)).to(x.dtype)

        return network


TWO_MODES = Mixture((0.4, 0.6), (-1.0, 0.8), (0.04, 0.09))
GAUSSIAN = Mixture((1.0,), (0.3,), (0.25,))

PATHS: dict[str, Callable[[float], tuple[float, float]]] = {  # lambda = log(alpha / sigma) -> alpha, sigma
    "vp": lambda lam: ((1 + np.exp(-2 * lam)) ** -0.5, (1 + np.exp(2 * lam)) ** -0.5),
    "edm": lambda lam: (1.0, np.exp(-lam)),
    "flow": lambda lam: (1 - 1 / (1 + np.exp(lam)), 1 / (1 + np.exp(lam))),
}


def levels_at(path: str, half_log_snrs: np.ndarray) -> list[Level]:
    """Levels with these values of log(alpha / sigma). t is the index: laws read alpha and sigma."""
    pairs = [PATHS[path](lam) for lam in half_log_snrs]
    return [Level(float(i), float(alpha), float(sigma)) for i, (alpha, sigma) in enumerate(pairs)]


def log_snr_grid(path: str, steps: int, start: float = -2.0, end: float = 3.0) -> list[Level]:
    """steps + 1 levels, even in log(alpha / sigma)."""
    return levels_at(path, np.linspace(start, end, steps + 1))


def linear_alpha_bar(T: int) -> np.ndarray:
    """abar of Ho et al.'s linear schedule, in numpy."""
    return np.cumprod(1 - np.linspace(1e-4, 0.02, T))


def zero_snr_alpha_bar(T: int) -> np.ndarray:
    """The same after Lin et al. 2024, Algorithm 1: no signal at T - 1."""
    root = np.sqrt(linear_alpha_bar(T))
    return ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
