"""Noise schedules: the variance beta_t that each step adds, as float64 betas of shape [T], on the host."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import check_count

Schedule = Callable[[int], Tensor]  # timesteps T -> betas [T]

MAX_BETA = 0.999  # Nichol & Dhariwal 2021: no single step destroys everything


def linear_schedule(timesteps: int, beta_start: float = 1e-4, beta_end: float = 0.02) -> Tensor:
    """Ho et al. 2020, section 4: betas evenly spaced. The ends suit T = 1000 and are not rescaled for another."""
    check_count("timesteps", timesteps, 1)
    return torch.linspace(beta_start, beta_end, timesteps, dtype=torch.float64)


def scaled_linear_schedule(timesteps: int, beta_start: float = 0.00085, beta_end: float = 0.012) -> Tensor:
    """Rombach et al. 2022 (latent diffusion): the square roots of the betas evenly spaced."""
    check_count("timesteps", timesteps, 1)
    return torch.linspace(beta_start**0.5, beta_end**0.5, timesteps, dtype=torch.float64) ** 2


def cosine_schedule(timesteps: int, s: float = 0.008) -> Tensor:
    """Nichol & Dhariwal 2021, eq. 17. `s` keeps the first step from being too small."""
    return betas_from_alpha_bar(timesteps, lambda u: torch.cos((u + s) / (1 + s) * math.pi / 2) ** 2)


def sigmoid_schedule(timesteps: int, start: float = -3.0, end: float = 3.0, tau: float = 1.0) -> Tensor:
    """Jabri et al. 2022, Algorithm 2: alpha_bar falls along a sigmoid from `start` to `end` at temperature `tau`."""
    last = 1 / (1 + math.exp(-end / tau))
    return betas_from_alpha_bar(timesteps, lambda u: last - torch.sigmoid((start + u * (end - start)) / tau))


def betas_from_alpha_bar(timesteps: int, alpha_bar: Callable[[Tensor], Tensor]) -> Tensor:
    """The betas for an alpha_bar(u), u from 0 to 1, that is given up to a constant factor.

    b_t = 1 - alpha_bar(t) / alpha_bar(t - 1), clamped to [0, 0.999].
    """
    check_count("timesteps", timesteps, 1)
    curve = alpha_bar(torch.linspace(0, 1, timesteps + 1, dtype=torch.float64))
    return (1 - curve[1:] / curve[:-1]).clamp(0, MAX_BETA)


def zero_terminal_snr(betas: Tensor) -> Tensor:
    """Lin et al. 2024, Algorithm 1: shift and scale sqrt(alpha_bar) so that the last level is pure noise (beta_T = 1).

    Noise prediction has nothing to say at that level: train with prediction "v" or "x0".
    """
    root = torch.cumprod(1 - betas, dim=0).sqrt()
    if len(betas) > 1:
        root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    else:
        root = torch.zeros_like(root)
    alpha_bar = root**2
    return 1 - torch.cat([alpha_bar[:1], alpha_bar[1:] / alpha_bar[:-1]])
