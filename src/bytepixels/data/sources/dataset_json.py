"""Read class labels from dataset.json, as in StyleGAN's and EDM's archives: {"labels": [["00000/img0.png", 6], ...]}.

Their folders hold a thousand images each and are no classes. Labels that are null: there are none.
"""

import json
import posixpath
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...errors import InputError
from .folder_labels import Labels, class_labels, clean_name, is_named, printable

DATASET = "dataset.json"


def json_labels(names: Sequence[str], order: Sequence[int], read: Callable[[int], bytes], source: str) -> Labels | None:
    """The labels that dataset.json gives the images; None where no such file has labels or null.

    names: of all files of a source, relative, with /. order: positions of the images. read: position -> content,
    called for dataset.json alone. Raises InputError for an image that it gives no label, and for labels that are
    neither whole numbers nor one-hot.
    """
    labels = dict[str, Any]()
    tables = [index for index, name in enumerate(names) if is_named(name, (DATASET,))]
    for index in tables:
        table = _labels(read(index))
        if table is None:
            return None  # it is of something else
        folder = posixpath.dirname(names[index])
        labels |= {clean_name(f"{folder}/{name}"): label for name, label in table.items()}
    if not tables:
        return None
    said = " and ".join(printable(names[index]) for index in tables)
    if not labels:
        return None, (), [f"No classes: {said} gives no labels."]
    kept = [names[index] for index in order]
    if lacking := [name for name in kept if name not in labels]:
        first = printable(lacking[0])
        raise InputError(f"{source}: {said} gives {len(lacking):,} images no label, the first is {first}")
    return class_labels([_class(labels[name], f"{source}: {said}", name) for name in kept], said)


def _labels(content: bytes) -> dict[str, Any] | None:
    """Read labels by file name; none if they are null; None if the file is of another kind."""
    try:
        table = json.loads(content)["labels"]
        return {str(name): label for name, label in table or ()}
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _class(label: Any, where: str, name: str) -> str:
    """The class of one label: an integer, or the position of the 1 in a one-hot list."""
    if isinstance(label, int) and not isinstance(label, bool):
        return str(label)
    if isinstance(label, list) and all(isinstance(value, (int, float)) for value in label):
        row = np.array(label, np.float64)
        if np.count_nonzero(row) == 1 and row.sum() == 1:
            return str(int(row.argmax()))
    raise InputError(f"{where} must give whole numbers or one-hot lists, got {str(label)[:40]} for {printable(name)}")
