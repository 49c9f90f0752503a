"""Statistics of a data set as plain values: sizes, kinds, unreadable files, classes, pixels and duplicates."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..sources.decode import ImageHeader, Layout
from ..sources.folder_labels import printable
from .duplicates import equal_images, members, near_copies
from .survey import DatasetInspection

VARIANTS = 0.1  # share of near copies in a set, above which they are its nature (digits, drawings) and not an accident
KEPT = 0.66  # of an image, below which a crop takes more than a third of it and its owner should know
HEADER_MARKS = "grey", "rotated", "several_frames"
CHANNELS = {1: ["grey"], 2: ["grey", "alpha"], 3: ["red", "green", "blue"], 4: ["red", "green", "blue", "alpha"]}
Groups = list[list[str]]  # names of images


@dataclass(frozen=True)
class Leak:
    """Images of another split that also occur in this split, as pairs of names: the one there, the one here."""

    images: int  # of the other split, in all
    exact: Groups
    near: Groups


@dataclass(frozen=True)
class Copies:
    """Groups of equal images, and of near duplicates."""

    distinct: int  # images, where equal ones count once
    exact: Groups
    near: Groups
    variants: bool  # so many look alike that it is in the nature of the set
    exact_across_classes: Groups  # one image of each class
    near_across_classes: Groups
    across_splits: dict[str, Leak]


@dataclass(frozen=True)
class PixelStatistics:
    """Pixel statistics of all packed images: mean and std of each channel in 0..255, black, white, and images of one
    colour."""

    channels: list[str]
    mean: list[float]
    std: list[float]
    black: float  # share of the pixels
    white: float
    one_colour: list[str]  # names
    dark: list[str]  # names of those that are black or nearly so


@dataclass(frozen=True)
class DatasetStatistics:
    """Statistics of one split of a data set."""

    source: str
    split: str
    packed_size: tuple[int, int]  # height and width
    files: int
    images: int  # that can be read
    unreadable: list[tuple[str, str]]  # name, reason
    notes: list[str]
    kinds: dict[str, int]  # "PNG RGBA" -> images, the commonest first
    counts: dict[str, int]  # grey, rotated, several_frames, transparent, composed, reshaped, enlarged, much_cropped
    different_sizes: int
    smallest: tuple[int, int]
    median: tuple[int, int]
    largest: tuple[int, int]
    commonest_ratio: float
    other_ratios: int  # images of another one
    tallest: tuple[str, int, int]  # name, height and width
    widest: tuple[str, int, int]
    classes: dict[str, int] | None  # name -> readable images; None without labels
    pixels: PixelStatistics
    copies: Copies


def dataset_statistics(
    source: str, splits: Mapping[str, DatasetInspection], headers: Mapping[int, ImageHeader], layout: Layout
) -> DatasetStatistics:
    """Compute the statistics of the first split; the others are searched for duplicates of its images only."""
    split, found = next(iter(splits.items()))
    names = [printable(name) for name in found.images.names]
    readable = {k: headers[k] for k in found.readable.tolist() if k in headers}
    sizes = sorted((one.height * one.width, one.height, one.width) for one in readable.values())
    smallest, median, largest = (sizes[k][1:] for k in (0, (len(sizes) - 1) // 2, -1))
    shapes = sorted((one.width / one.height, one.height, one.width, names[k]) for k, one in readable.items())
    tallest, widest = ((name, height, width) for _, height, width, name in (shapes[0], shapes[-1]))
    ratios = Counter(round(ratio, 2) for ratio, *_ in shapes)
    commonest = max(ratios, key=lambda ratio: (ratios[ratio], -ratio))
    counts = {mark: sum(getattr(one, mark) for one in readable.values()) for mark in HEADER_MARKS}
    counts |= {mark: len(found.marked(mark)) for mark in ("transparent", "composed", "reshaped", "enlarged")}
    stretches = [ratio * layout.height / layout.width for ratio, *_ in shapes] if layout.fit == "crop" else []
    counts["much_cropped"] = sum(min(stretch, 1 / stretch) < KEPT for stretch in stretches)
    return DatasetStatistics(
        source=source,
        split=split,
        packed_size=(layout.height, layout.width),
        files=len(names),
        images=len(readable),
        unreadable=[(names[k], printable(reason)) for k, reason in sorted(found.unreadable.items())],
        notes=list(found.images.notes),
        kinds=dict(Counter(one.kind for one in readable.values()).most_common()),
        counts=counts,
        different_sizes=len(set(sizes)),
        smallest=smallest,
        median=median,
        largest=largest,
        commonest_ratio=commonest,
        other_ratios=len(readable) - ratios[commonest],
        tallest=tallest,
        widest=widest,
        classes=class_counts(found),
        pixels=pixel_statistics(found),
        copies=find_copies(splits),
    )


def class_counts(found: DatasetInspection) -> dict[str, int] | None:
    """The number of readable images of each class; None without labels."""
    labels, classes = found.images.labels, found.images.classes
    if labels is None:
        return None
    return dict(zip(classes, np.bincount(labels[found.readable], minlength=len(classes)).tolist(), strict=True))


def pixel_statistics(found: DatasetInspection) -> PixelStatistics:
    """Compute mean and std of each packed channel, exactly, the shares of black and white, and images of one colour."""
    levels = np.arange(256)
    each = found.histogram.sum(axis=1)  # [C], all alike
    mean = (found.histogram @ levels) / each
    std = np.sqrt(np.maximum((found.histogram @ levels**2) / each - mean**2, 0))
    black, white = found.black / int(each[0]), found.white / int(each[0])
    names = found.images.names
    one_colour, dark = ([printable(names[k]) for k in found.marked(mark)] for mark in ("one_colour", "dark"))
    return PixelStatistics(CHANNELS[len(each)], mean.tolist(), std.tolist(), black, white, one_colour, dark)


def find_copies(splits: Mapping[str, DatasetInspection]) -> Copies:
    """Find duplicates within the first split, across its classes, and between it and the other splits."""
    (split, first), *others = splits.items()
    rows = [(name, one, k) for name, one in splits.items() for k in one.readable.tolist()]
    suffix = {split: ""} | {name: f" ({name})" for name, _ in others}
    names = [printable(one.images.names[k]) + suffix[name] for name, one, k in rows]
    exact = equal_images([one.digests[k] for _, one, k in rows])
    near = near_copies(exact, np.concatenate([one.thumbs[one.readable] for one in splits.values()]))
    own = end = len(first.readable)
    inside, alike = ([part for group in members(of) if len(part := group[group < own]) > 1] for of in (exact, near))
    alike = [group for group in alike if len(set(exact[group].tolist())) > 1]
    leaks = {}
    for name, other in others:
        theirs = range(end, end := end + len(other.readable))
        equal = [(exact[k], k) for k in theirs if exact[k] < own]  # with the first image of its group
        similar = [(near[k], k) for k in theirs if near[k] < own <= exact[k]]
        leaks[name] = Leak(len(theirs), _named(equal, names), _named(similar, names))
    labels = None if first.images.labels is None else first.images.labels[first.readable]
    return Copies(
        distinct=len(set(exact[:own].tolist())),
        exact=_named(inside, names),
        near=_named(alike, names),
        variants=sum(map(len, alike)) > VARIANTS * own,
        exact_across_classes=_named(_mixed(inside, labels), names),
        near_across_classes=_named(_mixed(alike, labels), names),
        across_splits=leaks,
    )


def _named(groups: Sequence[Sequence[int] | np.ndarray], names: Sequence[str]) -> Groups:
    return [[names[k] for k in group] for group in groups]


def _mixed(groups: Sequence[np.ndarray], labels: np.ndarray | None) -> list[np.ndarray]:
    """One image of each class for every group whose images have different labels."""
    if labels is None:
        return []
    first = [group[np.unique(labels[group], return_index=True)[1]] for group in groups]
    return [group for group in first if len(group) > 1]
