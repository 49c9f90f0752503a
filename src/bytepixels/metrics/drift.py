"""Compare colour, brightness, spectrum and classes of samples and data, beside the spread of held-out data."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import InputError
from ..randomness import ORDER, seeded
from .features import rgb

BINS = 32  # of brightness
DRAWS = 400
CONFIDENCE = 0.99  # of sets that are like the data, this share is within all of one statistic's intervals
MIN_SPREAD_SHARE = 0.05  # of a statistic's largest spread: none is taken to be smaller
MIN_SPREAD = 1e-9  # spread and half interval of a statistic that never varies, such as the colour of equal images


class ImageStatistics(NamedTuple):
    """Per-image statistics of n images, one row each, whose means describe the set."""

    mean: Tensor  # [n, C] of each channel, grey levels of 255
    square: Tensor  # [n, C] of their squares
    brightness: Tensor  # [n, BINS] shares of pixels
    power: Tensor  # [n, R] of each radial frequency, 1 to half the shorter side
    classes: Tensor | None  # [n, K] one-hot, as the features' classifier names them


@dataclass(frozen=True)
class Drift:
    """One statistic of the samples beside the data's; the interval holds for all of its numbers at once."""

    name: str
    samples: list[float]
    data: list[float]
    half: list[float]  # half the interval round the data's

    @property
    def outside(self) -> list[int]:
        """Positions of the numbers that leave their interval."""
        triples = zip(self.samples, self.data, self.half, strict=True)
        return [k for k, (sample, data, half) in enumerate(triples) if abs(sample - data) > half]


def image_statistics(images: Tensor, probabilities: Tensor | None = None) -> ImageStatistics:
    """Statistics of each of uint8 [n, C, H, W]; probabilities [n, K] of classes, where a classifier knows them."""
    values, grey, classes = images.double(), rgb(images).double().mean(1), None  # grey: [n, H, W]
    bins = (grey * BINS / 256).long().flatten(1)
    brightness = torch.stack([(bins == k).double().mean(1) for k in range(BINS)], 1)
    if probabilities is not None:
        classes = torch.nn.functional.one_hot(probabilities.argmax(1), probabilities.shape[1]).double()
    return ImageStatistics(values.mean((2, 3)), values.square().mean((2, 3)), brightness, _radial_power(grey), classes)


def _radial_power(grey: Tensor) -> Tensor:
    """Mean power at each whole radial frequency above 0: [n, H, W] -> [n, R]."""
    height, width = grey.shape[1:]
    if min(height, width) < 2:
        return grey.new_zeros(len(grey), 1)
    power = torch.fft.fft2(grey - grey.mean((1, 2), keepdim=True)).abs().square() / (height * width)
    rows, columns = (torch.fft.fftfreq(side, dtype=torch.float64) * min(height, width) for side in (height, width))
    radius = (rows[:, None].square() + columns.square()).sqrt().round().long().flatten()
    rings = torch.stack([power.flatten(1)[:, radius == r].mean(1) for r in range(1, min(height, width) // 2 + 1)])
    return rings.T


def drift(samples: ImageStatistics, data: ImageStatistics, seed: int = 0) -> list[Drift]:
    """Compare each statistic of the samples with the data's, beside its spread over sets of as many real images.

    By the bootstrap: a draw as large as the samples against one as large as the data, both of the data, so that the
    intervals are as wide as chance makes them. InputError for fewer than two images.
    """
    if min(len(samples.mean), len(data.mean)) < 2:
        raise InputError(f"drift needs two or more images, got {len(samples.mean)} and {len(data.mean)}")
    if samples.classes is None or data.classes is None:
        samples, data = (one._replace(classes=None) for one in (samples, data))
    generator = seeded(seed, ORDER)
    drawn, others = (_statistics(_means(data, _draws(data, len(one.mean), generator))) for one in (samples, data))
    own, theirs = (_statistics(_means(one, torch.ones(1, len(one.mean)).double())) for one in (samples, data))
    found = []
    for name in own:
        apart = drawn[name] - others[name]  # [draws, numbers]
        spread = apart.std(0)
        spread = spread.clamp(min=max(MIN_SPREAD_SHARE * spread.max().item(), MIN_SPREAD))
        reach = (apart.abs() / spread).amax(1).quantile(CONFIDENCE)
        half = (reach * spread).clamp(min=MIN_SPREAD)
        found.append(Drift(name, own[name][0].tolist(), theirs[name][0].tolist(), half.tolist()))
    return found


def _draws(looks: ImageStatistics, n: int, generator: torch.Generator) -> Tensor:
    """Bootstrap counts [DRAWS, images]: how often each image is among n drawn with replacement."""
    rows = torch.randint(len(looks.mean), (DRAWS, n), generator=generator)
    return torch.stack([row.bincount(minlength=len(looks.mean)) for row in rows]).double()


def _means(looks: ImageStatistics, counts: Tensor) -> ImageStatistics:
    """Means over the images, [sets, numbers] each, where counts[k] weighs the images of set k."""
    parts = (None if part is None else counts @ part / counts.sum(1, keepdim=True) for part in looks)
    return ImageStatistics(*parts)  # type: ignore[arg-type]


def _statistics(means: ImageStatistics) -> dict[str, Tensor]:
    """The statistics that are compared, [sets, numbers] each."""
    found = {
        "mean of each channel": means.mean,
        "standard deviation of each channel": (means.square - means.mean.square()).clamp(min=0).sqrt(),
        "brightness": means.brightness,
        "power spectrum, dB": 10 * torch.log10(means.power + 1e-6),
    }
    return found if means.classes is None else found | {"classes": means.classes}
