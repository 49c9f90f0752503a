"""Labels in dataset.json, as the archives of StyleGAN and EDM hold them: {"labels": [["00000/img0.png", 6], ...]}.

Their folders hold a thousand images each and are no classes. Labels that are null: there are none.
"""

import json
import posixpath
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...errors import InputError
from .folder_labels import Arrangement, class_labels, clean_name, is_hidden, printable

DATASET = "dataset.json"


def is_dataset(name: str) -> bool:
    """Whether a file may hold labels, by its name."""
    return posixpath.basename(name) == DATASET and not is_hidden(name)


def with_labels_of(found: Arrangement, names: Sequence[str], read: Callable[[int], bytes], source: str) -> Arrangement:
    """The same with the labels of dataset.json in the place of the folders', where there is one with labels or null.

    names: of all files of a source, relative, with /. read: position -> content, called for dataset.json alone.
    InputError for an image that it gives no label, and for labels that are neither whole numbers nor one-hot.
    """
    labels = dict[str, Any]()
    tables = [index for index, name in enumerate(names) if name and is_dataset(name)]
    for index in tables:
        table = _labels(read(index))
        if table is None:
            return found  # of something else
        folder = posixpath.dirname(names[index])
        labels |= {clean_name(f"{folder}/{name}"): label for name, label in table.items()}
    if not tables:
        return found
    said = " and ".join(printable(names[index]) for index in tables)
    if not labels:
        return replace(found, labels=None, classes=(), class_notes=(f"No classes: {said} gives no labels.",))
    kept = [names[index] for index in found.order]
    if lacking := [name for name in kept if name not in labels]:
        first = printable(lacking[0])
        raise InputError(f"{source}: {said} gives {len(lacking):,} images no label, the first is {first}")
    classes = [_class(labels[name], f"{source}: {said}", name) for name in kept]
    numbers, known, notes = class_labels(classes, said)
    return replace(found, labels=numbers, classes=known, class_notes=tuple(notes))


def _labels(content: bytes) -> dict[str, Any] | None:
    """Name -> label, none where they are null; None where the file is of another kind."""
    try:
        table = json.loads(content)["labels"]
        return {str(name): label for name, label in table or ()}
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _class(label: Any, where: str, name: str) -> str:
    """A label's class: a whole number, or the place of the only 1 among zeros."""
    if isinstance(label, int) and not isinstance(label, bool):
        return str(label)
    if isinstance(label, list) and all(isinstance(value, (int, float)) for value in label):
        row = np.array(label, np.float64)
        if np.count_nonzero(row) == 1 and row.sum() == 1:
            return str(int(row.argmax()))
    raise InputError(f"{where} must give whole numbers or one-hot lists, got {str(label)[:40]} for {printable(name)}")
