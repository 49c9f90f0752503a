"""Loss weightings over noise levels, all expressed as weights of the squared error of x0.

A weighting takes alpha, sigma, the density of log SNR where times are drawn (each [B, 1, 1, 1]) and sigma_data.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Weighting = Callable[[Tensor, Tensor, Callable[[], Tensor], float], Tensor]
LEAST = 1e-30  # of a density: at pure noise, where it is 0, the weight is 0 and not 0 / 0


def eps_weight(alpha: Tensor, sigma: Tensor, density: Callable[[], Tensor], sigma_data: float) -> Tensor:
    """The squared error of eps: Ho et al. 2020, eq. 14, for every prediction. SNR = alpha^2 / sigma^2."""
    return (alpha / sigma) ** 2


def min_snr_weight(alpha: Tensor, sigma: Tensor, density: Callable[[], Tensor], sigma_data: float) -> Tensor:
    """Hang et al. 2023, eq. 6: min(SNR, 5)."""
    return (alpha / sigma).square().clamp(max=5)


def p2_weight(alpha: Tensor, sigma: Tensor, density: Callable[[], Tensor], sigma_data: float) -> Tensor:
    """Choi et al. 2022, eq. 8 with k = 1, gamma = 1: the squared error of eps over 1 + SNR."""
    return alpha**2 / (alpha**2 + sigma**2)


def edm_weight(alpha: Tensor, sigma: Tensor, density: Callable[[], Tensor], sigma_data: float) -> Tensor:
    """Karras et al. 2022, table 1: (s^2 + sigma_data^2) / (s sigma_data)^2 at s = sigma / alpha."""
    return (alpha / sigma) ** 2 + 1 / sigma_data**2


def velocity_weight(alpha: Tensor, sigma: Tensor, density: Callable[[], Tensor], sigma_data: float) -> Tensor:
    """The squared error of eps - x0, rectified flow's velocity (Liu et al. 2023, eq. 1)."""
    return ((alpha + sigma) / sigma) ** 2


def uniform_weight(alpha: Tensor, sigma: Tensor, density: Callable[[], Tensor], sigma_data: float) -> Tensor:
    """The squared error of eps, evenly over log SNR: twice the continuous bound (Kingma et al. 2021, eq. 17).

    Over EDM's and rectified flow's times that is an integral without an end: rare clean times weigh very much.
    """
    return (alpha / sigma) ** 2 / density().clamp(min=LEAST)


def sigmoid_weight(alpha: Tensor, sigma: Tensor, density: Callable[[], Tensor], sigma_data: float) -> Tensor:
    """Kingma & Gao 2023, table 1: the squared error of eps over log SNR, weighted with sigmoid(2 - log SNR)."""
    return torch.sigmoid(2 - 2 * torch.log(alpha / sigma)) * (alpha / sigma) ** 2 / density().clamp(min=LEAST)
