"""What was seen of a source, as plain numbers, names and lists: all that a report says of its images."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..sources.decode import Layout
from ..sources.folder_labels import printable
from .duplicates import nearly_same, same
from .survey import Glance, Survey

Numbers = dict[str, Any]  # what JSON can hold
FEW_IN_CLASS = 50  # images of a class, below which little can be learnt of it
VARIANTS = 0.1  # share of near copies in a set, above which they are its nature (digits, drawings) and not an accident
EXAMPLES, NAMES, UNREADABLE = 3, 3, 10  # groups of copies shown, names in each, files that cannot be read
KEPT = 0.66  # of an image, below which a crop takes more than a third of it and its owner should know
CHANNELS = {1: ["grey"], 2: ["grey", "alpha"], 3: ["red", "green", "blue"], 4: ["red", "green", "blue", "alpha"]}


def picture_numbers(found: Survey, seen: Mapping[int, Glance], layout: Layout) -> Numbers:
    """How many, how large, of which shape and which kind."""
    readable = [(seen[k], found.pictures.names[k]) for k in found.readable.tolist() if k in seen]
    by_area = sorted((one.height * one.width, one.height, one.width) for one, _ in readable)
    sizes = [[height, width] for _, height, width in by_area]
    by_ratio = sorted((one.width / one.height, one.height, one.width, name) for one, name in readable)
    ratios = Counter(round(ratio, 2) for ratio, *_ in by_ratio)
    commonest = max(ratios, key=lambda ratio: (ratios[ratio], -ratio))
    kept = [_kept(one, layout) for one, _ in readable]
    return {
        "files": len(found.digests),
        "readable": len(readable),
        "sizes": {
            "different": len({tuple(size) for size in sizes}),
            **{"smallest": sizes[0], "median": sizes[(len(sizes) - 1) // 2], "largest": sizes[-1]},
        },
        "aspect_ratios": {  # width / height
            "commonest": commonest,
            "others": len(readable) - ratios[commonest],
            "tallest": _shape(by_ratio[0]),
            "widest": _shape(by_ratio[-1]),
            "cropped_by_more_than_a_third": sum(share < KEPT for share in kept) if layout.fit == "crop" else 0,
        },
        "kinds": dict(Counter(one.kind for one, _ in readable).most_common()),
        "grey": sum(one.grey for one, _ in readable),
        "transparent": found.count("transparent"),
        "rotated_by_exif": sum(one.rotated for one, _ in readable),
        "several_frames": sum(one.frames for one, _ in readable),
        **{mark: found.count(mark) for mark in ("composed", "reshaped", "enlarged")},
    }


def _kept(one: Glance, layout: Layout) -> float:
    """The share of an image that a crop to the layout's shape leaves."""
    stretch = (one.width * layout.height) / (one.height * layout.width)
    return min(stretch, 1 / stretch)


def _shape(one: tuple[float, int, int, str]) -> Numbers:
    ratio, height, width, name = one
    return {"ratio": ratio, "size": [height, width], "name": printable(name)}


def file_numbers(found: Survey) -> Numbers:
    """The files that could not be read, all of them, and the notes of the source on the others."""
    files = [
        {"name": printable(found.pictures.names[k]), "reason": printable(reason)}
        for k, reason in sorted(found.unreadable.items())
    ]
    strange = sum("not an image" in file["reason"] for file in files)
    return {
        "unreadable": files,
        "no_pictures": strange,
        "damaged": len(files) - strange,
        "notes": list(found.pictures.notes),
    }


def copy_numbers(found: Survey, split: str, others: Mapping[str, Survey]) -> Numbers:
    """Equal and nearly equal images: within the split, across its classes, and between it and other splits."""
    surveys = {split: found, **others}
    readable = {name: one.readable for name, one in surveys.items()}
    own = len(readable[split])
    names = [
        printable(one.pictures.names[k]) + ("" if name == split else f" ({name})")
        for name, one in surveys.items()
        for k in readable[name].tolist()
    ]

    def gather(field: str) -> np.ndarray:
        return np.concatenate([getattr(one, field)[readable[name]] for name, one in surveys.items()])

    exact = same([one.digests[k] for name, one in surveys.items() for k in readable[name].tolist()])
    near, complete = nearly_same(exact, gather("bits"), gather("mirrored"), gather("thumbs"))
    inside = _within(exact.members(), own)
    alike = [group for group in _within(near.members(), own) if len(set(exact.of[group].tolist())) > 1]
    labels = None if found.pictures.labels is None else found.pictures.labels[readable[split]]
    variants = sum(map(len, alike)) > VARIANTS * own
    return {
        "distinct": len(set(exact.of[:own].tolist())),
        "exact": _groups(inside, names),
        "near": _groups(alike, names) | {"variants": variants, "all_compared": complete},
        "across_classes": None if labels is None else _across_classes(inside, alike, labels, names),
        "across_splits": _across_splits(surveys, readable, exact.of, near.of, names),
    }


def _within(groups: Iterable[np.ndarray], own: int) -> list[np.ndarray]:
    parts = (group[group < own] for group in groups)
    return [part for part in parts if len(part) > 1]


def _groups(groups: Sequence[np.ndarray], names: Sequence[str]) -> Numbers:
    pictures = sum(map(len, groups))
    return {
        "groups": len(groups),
        "pictures": pictures,
        "spare": pictures - len(groups),
        "largest": max(map(len, groups), default=0),
        "examples": _examples(groups, names),
    }


def _examples(groups: Sequence[np.ndarray], names: Sequence[str]) -> list[list[str]]:
    return [[names[k] for k in group[:NAMES].tolist()] for group in groups[:EXAMPLES]]


def _across_classes(
    exact: Sequence[np.ndarray], near: Sequence[np.ndarray], labels: np.ndarray, names: Sequence[str]
) -> Numbers:
    """Groups whose images bear different labels; the examples show one image of each class."""
    mixed = [[group for group in groups if len(set(labels[group].tolist())) > 1] for groups in (exact, near)]
    first = [group[np.unique(labels[group], return_index=True)[1]] for groups in mixed for group in groups]
    return {"exact_groups": len(mixed[0]), "near_groups": len(mixed[1]), "examples": _examples(first, names)}


def _across_splits(
    surveys: Mapping[str, Survey],
    readable: Mapping[str, np.ndarray],
    exact: np.ndarray,
    near: np.ndarray,
    names: Sequence[str],
) -> Numbers:
    """split -> how many of its images are in the first split too, equal or nearly so."""
    first, *rest = surveys
    start = own = len(readable[first])
    answer: Numbers = {}
    for split in rest:
        theirs = np.arange(start, start + len(readable[split]))
        start += len(theirs)
        equal = theirs[np.isin(exact[theirs], exact[:own])]
        alike = np.setdiff1d(theirs[np.isin(near[theirs], near[:own])], equal)
        leaks = [np.array([np.flatnonzero(near[:own] == near[k])[0], k]) for k in [*equal, *alike][:EXAMPLES]]
        counts = {"pictures": len(theirs), "exact": len(equal), "near": len(alike)}
        answer[split] = counts | {"examples": _examples(leaks, names)}
    return answer


def class_numbers(found: Survey) -> Numbers | None:
    """How many readable images each class has; None without labels."""
    if found.pictures.labels is None:
        return None
    classes = found.pictures.classes
    counts = np.bincount(found.pictures.labels[found.readable], minlength=len(classes)).tolist()
    least, most = counts.index(min(counts)), counts.index(max(counts))
    return {
        "count": len(classes),
        "pictures": dict(zip(classes, counts, strict=True)),
        "smallest": {"name": classes[least], "pictures": counts[least]},
        "largest": {"name": classes[most], "pictures": counts[most]},
        "ratio": counts[most] / counts[least] if counts[least] else None,
        "few": [name for name, count in zip(classes, counts, strict=True) if count < FEW_IN_CLASS],
    }


def _marked(found: Survey, mark: str) -> Numbers:
    marked = np.flatnonzero(found.marks[mark]).tolist()
    return {"pictures": len(marked), "examples": [printable(found.pictures.names[k]) for k in marked[:NAMES]]}


def pixel_numbers(found: Survey) -> Numbers:
    """Mean and standard deviation of each channel as packed, exactly, and how much of it is one colour."""
    levels = np.arange(256)
    each = found.histogram.sum(axis=1)  # [C], all alike
    mean = (found.histogram @ levels) / each
    std = np.sqrt(np.maximum((found.histogram @ levels**2) / each - mean**2, 0))
    return {
        "channels": CHANNELS[len(each)],
        "mean": mean.tolist(),
        "std": std.tolist(),
        "mean_of_x0": (mean / 127.5 - 1).tolist(),
        "std_of_x0": (std / 127.5).tolist(),
        "black": found.black / int(each[0]),
        "white": found.white / int(each[0]),
        **{key: _marked(found, mark) for key, mark in (("one_colour", "flat"), ("dark", "dark"))},
    }
