"""The Frechet distance: mean and covariance of features in float64, batch by batch, and their distance."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce

import torch
from torch import Tensor

from ..errors import InputError


@dataclass(frozen=True)
class Moments:
    """A summary of n feature vectors: enough for their mean and covariance, and to be merged with others."""

    n: int
    mean: Tensor  # [D] float64
    scatter: Tensor  # [D, D] float64, the sum of (x - mean) (x - mean)^T

    @staticmethod
    def of(features: Tensor) -> Moments:
        """Moments of features [N, D], N at least 1. InputError for another shape and for values that are not finite."""
        features = checked(features)
        mean = features.mean(0)
        centred = features - mean
        return Moments(len(features), mean, centred.T @ centred)

    def merge(self, other: Moments) -> Moments:
        """The moments of both sets together (Chan, Golub & LeVeque 1983, eq. 2.1)."""
        check_same_length(self.mean, other.mean)
        n, shift = self.n + other.n, other.mean - self.mean
        scatter = self.scatter + other.scatter + self.n * other.n / n * torch.outer(shift, shift)
        return Moments(n, self.mean + other.n / n * shift, scatter)

    @property
    def covariance(self) -> Tensor:
        """The covariance [D, D], over n - 1. InputError for one image, which has none."""
        if self.n < 2:
            raise InputError(f"a covariance needs two or more images, got {self.n}")
        return self.scatter / (self.n - 1)

    @cached_property
    def root(self) -> Tensor:
        """A root R [D, rank] with R R^T = covariance, without directions below rounding error. Computed once."""
        values, vectors = torch.linalg.eigh(self.covariance)
        kept = values > len(values) * torch.finfo(values.dtype).eps * values[-1]
        return vectors[:, kept] * values[kept].sqrt()


def merged(several: Iterable[Moments]) -> Moments:
    """The moments of several sets together, at least one."""
    return reduce(Moments.merge, several)


def frechet_distance(one: Moments, other: Moments) -> float:
    """Squared 2-Wasserstein distance of the two Gaussians: |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)).

    Heusel et al. 2017, eq. 6; with Inception's features it is called FID. tr (C1 C2)^(1/2) is the sum of the singular
    values of R1^T R2, where C = R R^T: defined for singular covariances too, with nothing added to them.
    """
    check_same_length(one.mean, other.mean)
    c1, c2 = one.covariance, other.covariance
    spread = min(c1.trace(), c2.trace()) > 0
    shared = torch.linalg.svdvals(one.root.T @ other.root).sum() if spread else c1.new_zeros(())
    distance = (one.mean - other.mean).square().sum() + c1.trace() + c2.trace() - 2 * shared
    return max(0.0, distance.item())


def frechet_interval(parts: Sequence[Moments], reference: Moments) -> tuple[float, float]:
    """The distance of all parts together from the reference, and half its 95% interval over other such samples.

    By the jackknife. The reference is taken as it is; the bias that a small n has stays.
    """
    return frechet_distance(merged(parts), reference), jackknife_interval(frechet_without(parts, reference))


def frechet_without(parts: Sequence[Moments], reference: Moments) -> list[float]:
    """The distance of all parts but one from the reference, for each part: what the jackknife is made of."""
    if len(parts) < 2:
        raise InputError(f"an interval needs two or more parts, got {len(parts)}")
    return [frechet_distance(merged([*parts[:k], *parts[k + 1 :]]), reference) for k in range(len(parts))]


def jackknife_interval(without: Sequence[float]) -> float:
    """1.96 standard errors of a number, from its values with one of K equal parts left out (Efron 1982, chapter 3)."""
    values = torch.tensor(without, dtype=torch.float64)
    return 1.96 * ((len(values) - 1) * values.var(unbiased=False)).sqrt().item()


def split_rows(n: int, count: int) -> list[slice]:
    """Split 0..n into `count` parts, or fewer if n is smaller, whose sizes differ by one at most."""
    count = min(n, count)
    return [slice(k * n // count, (k + 1) * n // count) for k in range(count)]


def checked(features: Tensor) -> Tensor:
    """Features [N, D] in float64. InputError for another shape, for no images, or values that are not finite."""
    if features.ndim != 2 or not features.numel():
        raise InputError(f"features must be [images, numbers], none of them 0, got {list(features.shape)}")
    if not bool(features.isfinite().all()):
        raise InputError("features must be finite: those of some image are not")
    return features.double()


def check_same_length(one: Tensor, other: Tensor) -> None:
    """Raise InputError unless both features, [..., D], have the same D."""
    if one.shape[-1] != other.shape[-1]:
        raise InputError(f"features of {one.shape[-1]} and of {other.shape[-1]} numbers cannot be compared")


def too_few(n: int, dimensions: int) -> str | None:
    """A warning where n images are too few for so many dimensions; None where they are enough."""
    if n > dimensions:
        return None
    return (
        f"{n:,} images do not span the {dimensions:,} dimensions of these features: their covariance is singular "
        f"and a Frechet distance from it is far too high"
    )
