"""Sinusoidal timestep embeddings."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError, check_range
from .blocks import zero_

MAX_PERIOD = 10000  # the slowest wave's period is about this many timesteps (times 2 pi)


def timestep_embedding(t: Tensor, dim: int) -> Tensor:
    """The article's embedding: freqs = exp(-log(10000) * arange(half) / half), then cos before sin.

    t: [B], integer or floating, of any range (0..T-1 for a discrete process). dim: at least 2, half = dim // 2.
    Returns [B, dim] in -1..1, float32 (float64 when t is float64); an odd dim ends in a column of zeros.
    Raises InputError when dim < 2. The waves are those of Vaswani et al. 2017, section 3.5.
    """
    check_range("dim", dim, 2)
    args = _angles(t, dim // 2, divisor=dim // 2)
    return _pad(torch.cat([args.cos(), args.sin()], dim=1), dim)


def ddpm_timestep_embedding(t: Tensor, dim: int) -> Tensor:
    """The embedding in Ho et al. 2020's code: frequencies over half - 1, so that the last is 1/10000; sin before cos.

    Same shapes and types as `timestep_embedding`. Raises InputError when dim < 4 (half - 1 would be zero).
    """
    check_range("dim", dim, 4)
    args = _angles(t, dim // 2, divisor=dim // 2 - 1)
    return _pad(torch.cat([args.sin(), args.cos()], dim=1), dim)


EMBEDDINGS = {"article": timestep_embedding, "ddpm": ddpm_timestep_embedding}
WAY_SCALE = 1000.0  # what a way in 0..1 is multiplied with before it is embedded


class DestinationReader(nn.Module):
    """The second time of a flow map, as something to add to the embedding of the first; zero in a fresh network.

    forward(way): [B] in 0..1, how far the destination lies from t: 0 is t itself, 1 leads from pure noise to the clean
    end. Returns [B, size] = way * MLP(waves of way). The way is embedded rather than the destination, because it is
    the same number in every process, and because nothing is added where it is 0: there a network with destinations is
    bitwise the ordinary one, trained or not. (t, t - s) was also the best pair of times in MeanFlow (Geng et al. 2025,
    table 1c).
    """

    def __init__(self, waves: int, size: int):
        super().__init__()
        self.waves = waves
        self.first, self.last = nn.Linear(waves, size), zero_(nn.Linear(size, size))

    def forward(self, way: Tensor) -> Tensor:
        waves = timestep_embedding(WAY_SCALE * way, self.waves).to(self.first.weight.dtype)
        return way[:, None].to(waves.dtype) * self.last(F.silu(self.first(waves)))

    def check(self, way: Tensor, batch: int) -> None:
        """Raise InputError unless there is one floating-point number for each image."""
        if way.shape != (batch,) or not way.is_floating_point():
            raise InputError(f"destination must be [{batch}] of floating point, got {list(way.shape)} {way.dtype}")


def _angles(t: Tensor, half: int, divisor: int) -> Tensor:
    t = t if t.dtype == torch.float64 else t.float()
    freqs = torch.exp(-math.log(MAX_PERIOD) * torch.arange(half, dtype=t.dtype, device=t.device) / divisor)
    return t[:, None] * freqs  # [B] -> [B, half]


def _pad(embedding: Tensor, dim: int) -> Tensor:
    return F.pad(embedding, (0, dim - embedding.shape[1]))
