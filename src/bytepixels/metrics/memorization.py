"""Detect samples that copy training images, by nearest neighbours, with held-out images as the null."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot, sqrt
from typing import Any

import torch
from torch import Tensor

from ..core.levels import Process
from ..core.losses import pure_noise
from ..core.samplers import trajectory
from ..randomness import SeededNoise
from ..registries import SAMPLERS
from .optimal_denoiser import EmpiricalImages, OptimalDenoiser, WienerDenoiser
from .precision_recall import Nearest

COPY_RATIO = 1 / 3  # Yoon et al. 2023: a copy is three times as near to its image as to the next one
NEAR_SHARE = 0.05  # the share of held-out images that count as near, by definition
COPYIST_STEPS = 20


def nearest_images(x0: Tensor, images: EmpiricalImages, k: int = 2) -> Nearest:
    """The k training images nearest to each of x0 [n, C, H, W], root mean square over pixels, in grey levels of 255.

    Where the run mirrors, an image is as near as the nearer of itself and its mirror image. k below their number.
    """
    flat, start = x0.flatten(1), 0
    distance = torch.full((len(x0), k), torch.inf, device=x0.device)
    row = torch.zeros(len(x0), k, dtype=torch.int64, device=x0.device)
    for block in images.blocks(x0.device):
        squared = torch.cdist(flat, block.flatten(1), compute_mode="use_mm_for_euclid_dist").square()
        if images.mirrored:
            squared = squared.unflatten(1, (2, -1)).amin(1)  # [n, K]
        rows = torch.arange(start, start + squared.shape[1], device=x0.device).expand_as(squared)
        start += squared.shape[1]
        kept = torch.cat([distance, squared], 1).topk(k, largest=False)
        distance, row = kept.values, torch.cat([row, rows], 1).gather(1, kept.indices)
    return Nearest(127.5 * (distance.double() / flat.shape[1]).sqrt().cpu(), row.cpu())


def copyist(images: EmpiricalImages, process: Process, seeds: Sequence[int], device: torch.device) -> Tensor:
    """Draw like a model that knows its training set by heart: x0 [n, C, H, W], by DDIM with the ideal denoiser."""
    centre = WienerDenoiser(images, device).mean
    ideal = OptimalDenoiser(EmpiricalImages(images.images, None, images.mirrored), centre)
    levels, noise = process.levels(COPYIST_STEPS), SeededNoise(seeds)
    like = torch.empty(len(seeds), *images.images.shape[1:], device=device)
    x = pure_noise(like, levels[0], noise, process.sigma_data)
    (copy,) = deque(trajectory(x, levels, ideal, SAMPLERS["ddim"], noise), maxlen=1)
    return copy.clamp(-1, 1)


@dataclass(frozen=True)
class CopyRate:
    """The rate of copies, and of near images, among n images."""

    rate: float  # share that is three times as near to one training image as to the next
    near: float | None  # share nearer than 95% of the held-out images are; None without such
    n: int

    @property
    def interval(self) -> float:
        """Half the 95% interval of the rate (Wilson's, so that 0 of n has one too)."""
        z2 = 1.96**2
        return 1.96 * sqrt(self.rate * (1 - self.rate) / self.n + z2 / (4 * self.n**2)) / (1 + z2 / self.n)

    def record(self) -> dict[str, Any]:
        """The record of it that eval.jsonl holds."""
        return {"rate": self.rate, "interval": self.interval, "near": self.near, "n": self.n}


def copies(found: Nearest, held_out: Nearest | None) -> CopyRate:
    """Count copies by the two nearest training images of each; held_out: those of images that nobody trained on.

    An image that lies on two training images at once is a copy.
    """
    first, second = found.distance.unbind(1)
    copied, near = (first < COPY_RATIO * second) | (second == 0), None
    if held_out is not None:
        near = (first < held_out.distance[:, 0].quantile(NEAR_SHARE)).double().mean().item()
    return CopyRate(copied.double().mean().item(), near, len(first))


def copies_more(samples: CopyRate, held_out: CopyRate) -> bool:
    """True if samples are copies more often than held-out images are, by over 2 standard errors; or near them so."""
    spread = hypot(samples.interval, held_out.interval) / 1.96
    chance = sqrt(NEAR_SHARE * (1 - NEAR_SHARE) * (1 / samples.n + 1 / held_out.n))
    nearer = samples.near is not None and samples.near - NEAR_SHARE > 3 * chance
    return samples.rate - held_out.rate > 2 * spread or nearer
