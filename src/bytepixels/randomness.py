"""Randomness as a function of a key: the same draws on one process or eight, before or after a resume."""

import hashlib
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from .choices import MAX_SEED
from .errors import InputError, check_count

# What a training step draws. Each purpose has its own stream, so that adding one never moves another.
ORDER, FLIP, TIMES, NOISE, LABELS, DROPOUT, INIT, LATENT, CODES, TEXT, LEAP = range(11)


def derived_seed(*key: int) -> int:
    """A 64-bit seed that depends on every number of the key and on their order, e.g. (seed, purpose, step).

    torch's generator on the CPU reads the low 32 bits of it.
    """
    packed = struct.pack(f"<{len(key)}q", *key)
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little")


def seeded(*key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator whose state depends on its key alone."""
    return torch.Generator(device).manual_seed(derived_seed(*key))


_TORCH = threading.Lock()  # on torch's own generator, which all threads share


def seed_torch(*key: int) -> None:
    """Seed torch's global generator, while no other thread initialises a network from it."""
    with _TORCH:
        torch.manual_seed(derived_seed(*key))


@contextmanager
def torch_seeded(*key: int) -> Iterator[None]:
    """Seed torch's global CPU generator by the key for the block (for weights), and restore it afterwards."""
    with _TORCH, torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(*key))
        yield


class SeededNoise:
    """noise(x) for images that each have their own seed: image k depends on seeds[k], whatever the batch size.

    Drawn on the host in float32 (the same numbers on every device), uploaded once per call.
    """

    def __init__(self, seeds: Sequence[int]):
        for seed in seeds:
            check_count("seed", seed, 0, MAX_SEED)
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, x: Tensor) -> Tensor:
        """Standard normal noise like x [B, C, H, W], B = len(seeds). InputError for another B."""
        if len(x) != len(self.generators):
            raise InputError(f"noise for {len(self.generators)} seeds was asked for {len(x)} images")
        draws = torch.empty(x.shape, dtype=torch.float32)
        for row, generator in zip(draws, self.generators, strict=True):
            row.normal_(generator=generator)
        return draws.to(x.device, x.dtype)
