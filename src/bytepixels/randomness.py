"""Randomness as a function of a key: the same draws on one process or eight, before or after a resume."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

# What a training step draws. Each purpose has its own stream, so that adding one never moves another.
ORDER, FLIP, TIMES, NOISE, LABELS, DROPOUT, INIT = range(7)


def derived_seed(*key: int) -> int:
    """A 64-bit seed that depends on every number of the key, e.g. (seed, purpose, step)."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])


def seeded(*key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator that is a function of its key alone."""
    return torch.Generator(device).manual_seed(derived_seed(*key))


class SeededNoise:
    """noise(x) for pictures that each have their own seed: picture k depends on seeds[k], whatever the batch size.

    Drawn on the host in float32 (the same numbers on every device), uploaded once per call.
    """

    def __init__(self, seeds: Sequence[int]):
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, x: Tensor) -> Tensor:
        """Standard normal noise like x [B, C, H, W], B = len(seeds)."""
        draws = torch.empty(x.shape, dtype=torch.float32)
        for row, generator in zip(draws, self.generators, strict=True):
            row.normal_(generator=generator)
        return draws.to(x.device, x.dtype)
