"""A sampler on a grid as a table of numbers: all that another program needs, beside the network, to draw as we do.

Every sampler here is linear in x, in the estimates of x0 that it was given, and in fresh noise; the network alone is
not. So where it evaluates, and where it ends, is a sum of those with fixed factors: x_k = row_k . (x_T, D_0, D_1, ...,
z_0, z_1, ...). The factors are found by sampling once with unit vectors in place of images.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .levels import Level
from .samplers import Step, trajectory


class Evaluation(NamedTuple):
    """One call of the denoiser."""

    level: Level
    destination: Level | None  # that a flow map's is told
    row: list[float]  # x there: the factors of the start, of the estimates so far, and of all fresh noise


class Recipe(NamedTuple):
    """A sampler on a grid. Rows have a number for the start, for every estimate of x0, and for every fresh noise."""

    evaluations: list[Evaluation]
    noises: int  # how many are drawn on the way, beside the start
    last: list[float]  # the image


def recipe_of(levels: Sequence[Level], step: Step) -> Recipe:
    """The recipe of a sampler's step along these levels, in float64."""
    most = 1 + 8 * len(levels)  # columns; no sampler evaluates or draws more than four times a step
    estimates, fresh = iter(range(1, most // 2)), iter(range(most // 2, most))
    met: list[tuple[Level, Level | None, Tensor]] = []

    def unit(column: int) -> Tensor:
        found = torch.zeros(1, most, 1, 1, dtype=torch.float64)
        found[0, column] = 1
        return found

    def denoise(x: Tensor, level: Level, destination: Level | None = None) -> Tensor:
        met.append((level, destination, x.flatten()))
        return unit(next(estimates))

    drawn: list[int] = []

    def noise(x: Tensor) -> Tensor:
        drawn.append(next(fresh))
        return unit(drawn[-1])

    *_, last = trajectory(unit(0), levels, denoise, step, noise)
    columns = [*range(1 + len(met)), *drawn]
    rows = [row[columns].tolist() for row in (*(x for _, _, x in met), last.flatten())]
    calls = [Evaluation(level, way, row) for (level, way, _), row in zip(met, rows, strict=False)]
    return Recipe(calls, len(drawn), rows[-1])
