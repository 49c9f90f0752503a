"""Precision, recall, density and coverage of two sets of features, by nearest neighbours."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import InputError
from .frechet import checked

BLOCK_NUMBERS = 2**24  # numbers in a block of distances: 128 MiB


class Nearest(NamedTuple):
    """The k nearest neighbours in a set, nearest first."""

    distance: Tensor  # [N, k] float64
    position: Tensor  # [N, k] int64, rows of the set


def nearest(of: Tensor, among: Tensor, k: int, skip_self: bool = False) -> Nearest:
    """The k vectors of `among` [M, D] that are nearest to each of `of` [N, D], by Euclidean distance.

    skip_self: both are the same set, and no vector is its own neighbour.
    """
    of, among = checked(of), checked(among)
    most = len(among) - skip_self
    if not 1 <= k <= most:
        raise InputError(f"k must be in 1..{most}, the images that may be neighbours, got {k}")
    found = []
    for start, distances in _blocks(of, among):
        if skip_self:
            distances.diagonal(start).fill_(torch.inf)
        found.append(distances.topk(k, largest=False))
    return Nearest(torch.cat([one.values for one in found]), torch.cat([one.indices for one in found]))


def precision_recall(data: Tensor, samples: Tensor, k: int = 3) -> tuple[float, float]:
    """Precision: samples within the data's manifold; recall: the reverse (Kynkaanniemi et al. 2019, eq. 1-2).

    The manifold of a set: around each of its vectors a ball that reaches to its k-th neighbour.
    """
    return _share_within(samples, data, k), _share_within(data, samples, k)


def density_coverage(data: Tensor, samples: Tensor, k: int = 5) -> tuple[float, float]:
    """Density: the data's balls around a sample, over k; coverage: balls with a sample (Naeem et al. 2020).

    Where both have the same law, density is 1 on average and coverage near 1 - 2^-k for as many samples as data.
    """
    radius = _radius(data, k)
    blocks = _blocks(checked(data), checked(samples))
    inside = torch.cat([(away <= radius[start : start + len(away), None]).sum(1) for start, away in blocks])
    return inside.sum().item() / (k * len(samples)), (inside > 0).double().mean().item()


def _share_within(points: Tensor, support: Tensor, k: int) -> float:
    """The share of points that lie in some ball of the support."""
    radius, blocks = _radius(support, k), _blocks(checked(points), checked(support))
    return torch.cat([(distances <= radius).any(1) for _, distances in blocks]).double().mean().item()


def _radius(support: Tensor, k: int) -> Tensor:
    """The distance of each vector's k-th neighbour, [M]."""
    if len(support) <= k:
        raise InputError(f"{len(support)} images have no {k}-th neighbour each: more than {k} are needed")
    return nearest(support, support, k, skip_self=True).distance[:, -1]


def _blocks(x: Tensor, y: Tensor) -> Iterator[tuple[int, Tensor]]:
    """(position of the first row, Euclidean distances [rows, M]) for blocks of rows of x."""
    size = max(1, BLOCK_NUMBERS // len(y))
    x, y = x - y.mean(0), y - y.mean(0)  # small numbers, for the differences of their squares
    for start in range(0, len(x), size):
        yield start, torch.cdist(x[start : start + size], y, compute_mode="use_mm_for_euclid_dist")
