"""Distances between two sets of feature vectors beyond Gaussian moments. Features are [N, D]; all is in float64."""

import math

import torch
from torch import Tensor

from ..errors import InputError
from .frechet import check_same_length, checked, jackknife_interval, split_rows

PARTS = 10  # of the jackknife
BLOCK_NUMBERS = 2**24  # numbers in a block of kernel values: 128 MiB


def kernel_distance(one: Tensor, other: Tensor, parts: int = PARTS) -> tuple[float, float]:
    """Unbiased squared MMD under the kernel (x . y / D + 1)^3, and half its 95% interval.

    Binkowski et al. 2018, section 4; with Inception's features it is called KID. 0 on average for equal laws, so it may
    be negative. Over all pairs, which has less spread than their mean over subsets and the same expectation; the
    interval by the jackknife over `parts` of both sets (NaN where a set has fewer than 4 vectors).
    """
    one, other = checked(one), checked(other)
    check_same_length(one, other)
    if min(len(one), len(other)) < 2:
        raise InputError(f"a kernel distance needs two or more images a side, got {len(one)} and {len(other)}")
    count = min(parts, len(one) // 2, len(other) // 2)
    rows, columns = split_rows(len(one), count), split_rows(len(other), count)
    within_one, within_other = _kernel_sums(one, one, rows, rows), _kernel_sums(other, other, columns, columns)
    across = _kernel_sums(one, other, rows, columns)
    sizes = torch.tensor([[s.stop - s.start for s in slices] for slices in (rows, columns)], dtype=torch.float64)

    def value(kept: Tensor) -> float:
        """The distance of the parts that are kept, bool [count]."""
        n, m = sizes[:, kept].sum(1).tolist()
        xx, yy, xy = (sums[kept][:, kept].sum().item() for sums in (within_one, within_other, across))
        return xx / (n * (n - 1)) + yy / (m * (m - 1)) - 2 * xy / (n * m)

    without = [value(torch.arange(count) != k) for k in range(count)] if count > 1 else []
    return value(torch.ones(count, dtype=torch.bool)), jackknife_interval(without) if without else math.nan


def _kernel_sums(x: Tensor, y: Tensor, rows: list[slice], columns: list[slice]) -> Tensor:
    """Sums of the kernel over every pair of parts; within one set, without the diagonal."""
    sums = torch.zeros(len(rows), len(columns), dtype=torch.float64)
    for i, row in enumerate(rows):
        start = row.start
        for part in x[row].split(max(1, BLOCK_NUMBERS // len(y))):
            kernel = (part @ y.T / x.shape[1] + 1) ** 3
            if x is y:
                kernel.diagonal(start).zero_()
            sums[i] += torch.stack([kernel[:, column].sum() for column in columns])
            start += len(part)
    return sums


def inception_score(probabilities: Tensor, splits: int = 10) -> tuple[float, float]:
    """exp E KL(p(y|x) || p(y)) of class probabilities [N, K]: mean and standard deviation over `splits` parts.

    Salimans et al. 2016, section 4. Only of Inception's probabilities does it bear that name.
    """
    p = checked(probabilities)
    if p.min() < 0 or not torch.allclose(p.sum(1), p.new_ones(len(p)), atol=1e-3):
        raise InputError("probabilities must be at least 0 and add up to 1 for every image")
    scores = []
    for part in split_rows(len(p), splits):
        own, marginal = p[part], p[part].mean(0)
        kl = torch.special.xlogy(own, own) - torch.special.xlogy(own, marginal)
        scores.append(kl.sum(1).mean().exp())
    values = torch.stack(scores)
    return values.mean().item(), values.std(unbiased=False).item()
