"""How far apart two sets of feature vectors are, beyond their Gaussians. Features are [N, D]; all is in float64."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import InputError
from ..randomness import seeded
from .frechet import checked, jackknife_interval, split_rows

PARTS = 10  # of the jackknife
LARGEST = 2**24  # numbers in a block of kernel values: 128 MiB


def kernel_distance(one: Tensor, other: Tensor, parts: int = PARTS) -> tuple[float, float]:
    """Unbiased squared MMD under the kernel (x . y / D + 1)^3, and half its 95% interval.

    Binkowski et al. 2018, section 4; with Inception's features it is called KID. 0 on average for equal laws, so it may
    be negative. Over all pairs, which has less spread than their mean over subsets and the same expectation; the
    interval by the jackknife over `parts` of both sets (NaN where a set has fewer than 4 vectors).
    """
    one, other = _pair(one, other)
    if min(len(one), len(other)) < 2:
        raise InputError(f"a kernel distance needs two or more images a side, got {len(one)} and {len(other)}")
    count = min(parts, len(one) // 2, len(other) // 2)
    rows, columns = split_rows(len(one), count), split_rows(len(other), count)
    within_one, within_other = _kernel_sums(one, one, rows, rows), _kernel_sums(other, other, columns, columns)
    across = _kernel_sums(one, other, rows, columns)
    sizes = torch.tensor([[s.stop - s.start for s in slices] for slices in (rows, columns)], dtype=torch.float64)
    everything = torch.ones(count, dtype=torch.bool)

    def value(kept: Tensor) -> float:
        n, m = sizes[:, kept].sum(1).tolist()
        xx, yy, xy = (sums[kept][:, kept].sum().item() for sums in (within_one, within_other, across))
        return xx / (n * (n - 1)) + yy / (m * (m - 1)) - 2 * xy / (n * m)

    without = [value(everything & (torch.arange(count) != k)) for k in range(count)] if count > 1 else []
    return value(everything), jackknife_interval(without) if without else math.nan


def _kernel_sums(x: Tensor, y: Tensor, rows: list[slice], columns: list[slice]) -> Tensor:
    """Sums of the kernel over every pair of parts; of a set with itself, without the pairs of a vector with itself."""
    sums = torch.zeros(len(rows), len(columns), dtype=torch.float64)
    for i, row in enumerate(rows):
        block = max(1, LARGEST // len(y))
        for start in range(row.start, row.stop, block):
            part = x[start : min(start + block, row.stop)]
            kernel = (part @ y.T / x.shape[1] + 1) ** 3
            if x is y:
                kernel.diagonal(start).zero_()
            sums[i] += torch.stack([kernel[:, column].sum() for column in columns])
    return sums


def sliced_wasserstein(one: Tensor, other: Tensor, projections: int = 128, seed: int = 0) -> float:
    """The 2-Wasserstein distance along random directions: the root of the mean of its squares.

    Bonneel et al. 2015. In one dimension it is the distance of the sorted values, exactly, for unequal numbers of
    vectors too. Points that are all shifted by d come out at about |d| / sqrt(D).
    """
    one, other = _pair(one, other)
    dimensions = one.shape[1]
    directions = torch.randn(dimensions, projections, dtype=torch.float64, generator=seeded(seed))
    directions /= directions.norm(dim=0)
    x, y = (one @ directions).sort(0).values, (other @ directions).sort(0).values
    n, m = len(x), len(y)  # both step functions of the quantile, cut where either steps: in units of 1 / (n m)
    cuts = torch.cat([m * torch.arange(1, n + 1), n * torch.arange(1, m + 1)]).unique()
    widths = torch.diff(cuts, prepend=cuts.new_zeros(1)).double() / (n * m)
    gaps = x[(cuts - 1) // m] - y[(cuts - 1) // n]
    return (widths @ gaps.square()).mean().sqrt().item()


class TwoSampleTest(NamedTuple):
    """Can a classifier tell the two sets apart? 0.5: it cannot."""

    accuracy: float  # on images that it did not learn from
    interval: float  # half the 95% one
    p_value: float  # how likely so high an accuracy is where the laws are the same
    n: int  # images that it was tested on


def two_sample_test(one: Tensor, other: Tensor, seed: int = 0) -> TwoSampleTest:
    """Lopez-Paz & Oquab 2017: logistic regression on one half of both sets, tested on the other half.

    Both sets count alike: of the larger one, as many vectors as the smaller has, at least 4.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    one, other = _pair(one, other)
    n = min(len(one), len(other))
    if n < 4:
        raise InputError(f"a two-sample test needs 4 or more images a side, got {len(one)} and {len(other)}")
    order = [torch.randperm(len(x), generator=seeded(seed, k))[:n] for k, x in enumerate((one, other))]
    both = torch.stack([one[order[0]], other[order[1]]])  # [2, n, D]
    learn, test = both[:, : n // 2].flatten(0, 1).numpy(), both[:, n // 2 :].flatten(0, 1).numpy()
    scaler = StandardScaler().fit(learn)
    classifier = LogisticRegression(C=0.1, max_iter=1000).fit(scaler.transform(learn), [0] * (n // 2) + [1] * (n // 2))
    tested = n - n // 2
    right = classifier.predict(scaler.transform(test)) == [0] * tested + [1] * tested
    accuracy, size = float(right.mean()), 2 * tested
    p_value = math.erfc((accuracy - 0.5) * math.sqrt(2 * size)) / 2  # N(1/2, 1 / (4 size)), as in their section 3
    return TwoSampleTest(accuracy, 1.96 * math.sqrt(accuracy * (1 - accuracy) / size), p_value, size)


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


def _pair(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float64. InputError where they cannot be compared."""
    one, other = checked(one), one.double() if other is one else checked(other)
    if one.shape[1] != other.shape[1]:
        raise InputError(f"features of {one.shape[1]} and of {other.shape[1]} numbers cannot be compared")
    return one, other
