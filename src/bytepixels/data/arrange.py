"""From the file names of a source to an order, class labels and a split: what the folders mean."""

import posixpath
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from ..errors import InputError, check_choice
from .decode import picture_suffixes

SPLITS = ("train", "val", "test", "all")
_FOLDER_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class Arrangement:
    """Which files are packed, in which order, and what their folders say about them."""

    order: list[int]  # positions in the list of names that was given
    labels: np.ndarray | None  # int64 [N], positions in `classes`
    classes: tuple[str, ...]
    notes: tuple[str, ...]


def clean_name(name: str) -> str:
    """A name in an archive as a relative path that leads nowhere else: ./a, /a, ../a and \\a are all a."""
    return "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", ".", ".."))


def printable(name: str) -> str:
    """A file name without the bytes that are no UTF-8, which cannot be printed."""
    return name.encode(errors="replace").decode()


def is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def is_picture(name: str) -> bool:
    return posixpath.splitext(name)[1].lower() in picture_suffixes()


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sort key under which 2.png comes before 10.png."""
    parts = re.split(r"([0-9]{1,18})", name)
    return [(int(part), part) if part.isdecimal() else (-1, part) for part in parts]


def arrange(names: list[str], split: str, source: str) -> Arrangement:
    """Order the pictures among `names` (relative, with /) and read classes and splits from their folders.

    Folders that wrap everything are looked through. Top-level folders that are all named train, val or test are
    splits, of which `split` is taken ("all": every one). Then, where every picture lies in a subfolder, the
    topmost subfolder is its class. Raises InputError when there is no picture, or no such split.
    """
    visible = [index for index, name in enumerate(names) if name and not is_hidden(name)]
    pictures = [index for index in visible if is_picture(names[index])]
    others = Counter(
        PurePosixPath(names[index]).suffix.lower() or "no suffix" for index in visible if not is_picture(names[index])
    )
    if not pictures:
        raise InputError(f"{source} holds no picture{_found(others)}")
    paths = _unwrapped({index: tuple(names[index].split("/")) for index in pictures})
    paths, notes = _one_split(paths, split, source)
    labels_of, classes, class_notes = _classes(paths)
    order = sorted(paths, key=lambda index: ([natural_key(part) for part in paths[index]], index))
    labels = np.array([labels_of[index] for index in order], np.int64) if classes else None
    if others:
        notes.append(f"Ignored {_count(sum(others.values()), 'other file')} ({_listed(others)}).")
    return Arrangement(order, labels, classes, (*notes, *class_notes))


def _unwrapped(paths: dict[int, tuple[str, ...]]) -> dict[int, tuple[str, ...]]:
    while all(len(path) > 1 for path in paths.values()) and len({path[0] for path in paths.values()}) == 1:
        paths = {index: path[1:] for index, path in paths.items()}
    return paths


def _one_split(
    paths: dict[int, tuple[str, ...]], split: str, source: str
) -> tuple[dict[int, tuple[str, ...]], list[str]]:
    tops = [path[0].lower() if len(path) > 1 else "" for path in paths.values()]
    counts = Counter(_FOLDER_SPLITS.get(top, "") for top in tops)
    if "" in counts:
        if split in ("val", "test"):
            raise InputError(f"{source} has no {split} split: its top folders are not named train, val or test")
        return paths, []
    present = [name for name in SPLITS if name in counts]
    check_choice("split", split, [*present, "all"])
    kept = {i: path[1:] for i, path in paths.items() if split in ("all", _FOLDER_SPLITS[path[0].lower()])}
    listed = ", ".join(f"{name} ({counts[name]:,})" for name in present)
    note = f"Splits found: {listed}; packed {split}, {_count(len(kept), 'picture')}."
    return _unwrapped(kept), [note]


def _classes(paths: dict[int, tuple[str, ...]]) -> tuple[dict[int, int], tuple[str, ...], list[str]]:
    depths = [len(path) for path in paths.values()]
    if max(depths) == 1:
        return {}, (), []
    if min(depths) == 1:
        return {}, (), ["Some pictures lie in subfolders and some beside them: packed without class labels."]
    folders = sorted({path[0] for path in paths.values()}, key=natural_key)
    label_of = {name: label for label, name in enumerate(folders)}
    classes = tuple(map(printable, folders))
    shown = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
    note = f"{len(classes)} classes from the subfolders: {shown}."
    return {index: label_of[path[0]] for index, path in paths.items()}, classes, [note]


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _listed(others: Counter[str]) -> str:
    return ", ".join(suffix for suffix, _ in others.most_common(5))


def _found(others: Counter[str]) -> str:
    if not others:
        return ": it is empty"
    return f" that Pillow can open: it has {_count(sum(others.values()), 'other file')} ({_listed(others)})"
