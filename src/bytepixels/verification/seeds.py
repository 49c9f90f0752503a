"""An image is a function of its seed: the same alone and in any batch."""

import torch
from torch import Tensor

from ..core.denoiser import Denoiser
from ..core.gaussian_diffusion import GaussianDiffusion
from ..core.losses import pure_noise
from ..core.samplers import SAMPLERS
from ..networks import UNet
from ..randomness import SeededNoise
from .common import Check, largest, run

SEEDS = range(7)
SHAPE = (1, 8, 8)
TOLERANCE = 1e-5  # of pixels in -1..1: matrix products of another shape round otherwise


def seed_checks() -> list[Check]:
    """Seeds 0..6 in one batch against the same alone, and in twos: noise bitwise, images but for rounding."""
    network = small_network()
    noise, pictures = noise_of(SEEDS), draw(network, SEEDS)
    rows = []
    for size in (1, 2):
        parts = [SEEDS[k : k + size] for k in range(0, len(SEEDS), size)]
        noises = torch.cat([noise_of(part) for part in parts])
        drawn = torch.cat([draw(network, part) for part in parts])
        rows += [
            Check(f"noise: by {size} against all {len(SEEDS)} at once", largest(noises - noise)),
            Check(f"images: by {size} against all {len(SEEDS)} at once", largest(drawn - pictures), 0, TOLERANCE),
        ]
    apart = min(largest(pictures[i] - pictures[j]) for i in range(len(SEEDS)) for j in range(i))
    return [*rows, Check("other seeds are other images", float(apart > 1000 * TOLERANCE), 1)]


def noise_of(seeds: range) -> Tensor:
    """The second draw of each seed, which depends on the first having left its generator in the right place."""
    noise, like = SeededNoise(seeds), torch.empty(len(seeds), *SHAPE)
    noise(like)
    return noise(like)


def small_network() -> UNet:
    """Every weight random, because the last layer of a new network is zero and would answer nothing."""
    with torch.random.fork_rng(devices=[]):
        network = UNet(channels=1, width=8, multipliers=(1, 2), blocks=1, attention=(1,), dropout=0.0).eval()
    generator = torch.Generator().manual_seed(0)
    for weight in network.parameters():
        weight.data.normal_(std=0.1, generator=generator)
    return network


def draw(network: UNet, seeds: range) -> Tensor:
    """Ten steps of ddpm in float32, [len(seeds), *SHAPE]."""
    noise, levels = SeededNoise(seeds), GaussianDiffusion().levels(10)
    x = pure_noise(torch.empty(len(seeds), *SHAPE), levels[0], noise)
    return run(x, levels, Denoiser(network, "v"), SAMPLERS["ddpm"], noise)
