"""Check that an image depends on its seed alone, by itself and in any batch."""

from collections.abc import Iterator
from itertools import combinations

import torch
from torch import Tensor

from ..core.denoiser import Denoiser
from ..core.gaussian_diffusion import GaussianDiffusion
from ..core.losses import pure_noise
from ..networks import UNet
from ..randomness import SeededNoise
from ..registries import SAMPLERS
from .check import Check, largest, run

ABOUT = """Seven seeds in one batch, and the same in batches of 1 and 2: ten steps of ddpm with a small random U-Net, in
float32. Shown are the largest differences; pixels are in -1..1, and batches of another size may round otherwise."""
SEEDS = range(7)
SHAPE = (1, 8, 8)
TOLERANCE = 1e-5
DIFFERENT = 0.01  # two images that differ by less at every pixel are one


def seed_checks() -> Iterator[Check]:
    """Compare seeds 0..6 in one batch with smaller batches: noise bitwise, images up to rounding."""
    network = small_network()
    noise, images = noise_of(SEEDS), draw(network, SEEDS)
    for size in (1, 2):
        parts = [SEEDS[k : k + size] for k in range(0, len(SEEDS), size)]
        noises, drawn = ([make(part) for part in parts] for make in (noise_of, lambda part: draw(network, part)))
        yield Check(f"noise, batches of {size}", largest(torch.cat(noises) - noise))
        yield Check(f"images, batches of {size}", largest(torch.cat(drawn) - images), 0, TOLERANCE)
    alike = [largest(one - other) < DIFFERENT for one, other in combinations(images, 2)]
    yield Check("pairs of seeds with the same image", sum(alike))


def noise_of(seeds: range) -> Tensor:
    """The second draw of each seed, which also tests the state that the first draw leaves."""
    noise, like = SeededNoise(seeds), torch.empty(len(seeds), *SHAPE)
    noise(like)
    return noise(like)


def small_network() -> UNet:
    """A small network with all weights random: the zero-initialised last layer would output nothing."""
    with torch.random.fork_rng(devices=[]):
        network = UNet(channels=1, width=8, multipliers=(1, 2), blocks=1, attention=(1,), dropout=0.0).eval()
    generator = torch.Generator().manual_seed(0)
    for weight in network.parameters():
        weight.data.normal_(std=0.1, generator=generator)
    return network


def draw(network: UNet, seeds: range) -> Tensor:
    """Draw images [len(seeds), *SHAPE] with ten steps of ddpm in float32."""
    noise, levels = SeededNoise(seeds), GaussianDiffusion().levels(10)
    x = pure_noise(torch.empty(len(seeds), *SHAPE), levels[0], noise)
    return run(x, levels, Denoiser(network, "v"), SAMPLERS["ddpm"], noise)
