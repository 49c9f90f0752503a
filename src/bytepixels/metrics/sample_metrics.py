"""Sample quality in numbers: distances from the reference, and a ladder of corruptions as a scale."""

import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..choices import LEAST_SAMPLES as LEAST
from ..errors import InputError
from ..randomness import NOISE, seeded
from .distances import inception_score, kernel_distance
from .feature_cache import FeatureSet
from .frechet import Moments, frechet_interval, split_rows
from .precision_recall import density_coverage, precision_recall

PAIRS = 10_000  # vectors of the reference that are compared one by one
PARTS = 10
Measures = dict[str, dict[str, float | None]]  # name -> value, and half its 95% interval where it has one


def measure(samples: FeatureSet, reference: FeatureSet, moments: Moments) -> Measures:
    """Compute every distance of the samples from the reference, whose `moments` are of all of its vectors.

    Precision, recall, density and coverage compare as many vectors of the reference as there are samples: they depend
    on both numbers, and are published for equal ones.
    InputError for fewer than 16 samples.
    """
    if len(samples) < LEAST:
        raise InputError(f"a set of {len(samples)} images says nothing: {LEAST} or more are needed")
    own, known = samples.features, reference.features[:PAIRS]
    found: Measures = {"frechet": _pair(*frechet(own, moments)), "kernel": _pair(*kernel_distance(own, known))}
    own, some = own[:PAIRS], known[: len(own)]
    precision, recall = precision_recall(some, own)
    density, coverage = density_coverage(some, own)
    for name, share in (("precision", precision), ("recall", recall), ("coverage", coverage)):
        found[name] = _pair(share, 1.96 * math.sqrt(share * (1 - share) / min(len(some), len(own))))
    return found | {"density": _pair(density)}


def frechet(features: Tensor, moments: Moments) -> tuple[float, float]:
    """The Frechet distance of features [n, D] from the reference's moments, and half its 95% interval."""
    return frechet_interval([Moments.of(features[rows]) for rows in split_rows(len(features), PARTS)], moments)


def inception_measures(samples: FeatureSet) -> Measures:
    """The Inception score, if the probabilities are Inception's; else nothing."""
    assert samples.probabilities is not None
    return {"inception_score": _pair(*inception_score(samples.probabilities))}


def _pair(value: float, interval: float | None = None) -> dict[str, float | None]:
    return {"value": value, "interval": interval}


# ---- the ladder

NOISES = (2, 4, 8, 16, 32, 64, 128)  # grey levels
BLURS = (0.5, 1.0, 2.0)  # pixels
LADDER = len(NOISES) + len(BLURS) + 2  # rungs


def ladder(images: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield (name, images) of images uint8 [n, C, H, W] under known corruptions: noise, blur, light, duplicates."""
    for noise in NOISES:
        drawn = torch.randn(images.shape, generator=seeded(noise, NOISE))
        yield f"noise {noise}", _levels(images.float() + noise * drawn)
    for sigma in BLURS:
        yield f"blur {sigma:g}", _levels(blurred(images.float(), sigma))
    yield "brighter by 16", _levels(images.float() + 16)
    yield "half of them twice", images[torch.arange(len(images)) // 2]


def as_noise(value: float, rungs: dict[str, float]) -> str:
    """Describe a distance by the noise level of real images that has the same."""
    distances, noises = zip(*sorted((rungs[f"noise {noise}"], noise) for noise in NOISES), strict=True)
    if value <= distances[0]:
        return f"noise of std {noises[0]}/255 or less"
    if value > distances[-1]:
        return f"noise of more than std {noises[-1]}/255"
    return f"noise of std {np.exp(np.interp(value, distances, np.log(noises))):.0f}/255"


def blurred(x: Tensor, sigma: float) -> Tensor:
    """Blur each channel of [n, C, H, W] with a Gaussian of so many pixels, with replicated edges."""
    reach = math.ceil(3 * sigma)
    weight = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    weight, channels = weight / weight.sum(), x.shape[1]
    x = F.pad(x, (reach, reach, reach, reach), mode="replicate")
    x = F.conv2d(x, weight.view(1, 1, 1, -1).repeat(channels, 1, 1, 1), groups=channels)
    return F.conv2d(x, weight.view(1, 1, -1, 1).repeat(channels, 1, 1, 1), groups=channels)


def _levels(x: Tensor) -> Tensor:
    return x.round().clamp(0, 255).to(torch.uint8)
