"""Read images from .npy and .npz files: the right array, its channel axis, its value range."""

from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ...memory import free_memory
from .folder_labels import SPLITS, Labels, class_labels
from .source import ImageList, Source, array_images, file_key, only_split

IMAGE_KEYS = ("images", "image", "x", "data", "arr_0", "imgs")
LABEL_KEYS = ("labels", "label", "y", "targets", "target", "classes", "arr_1")
TOLERANCE = 1e-3  # floats that were resized or rounded on their way may leave their range by this much


def open_arrays(path: Path, split: str) -> Source:
    """Open a .npy file of images, or a .npz file of images and perhaps labels; pickles are never loaded."""
    return Source(str(path), file_key(path), lambda: _read(path, split))


def _read(path: Path, split: str) -> ImageList:
    try:
        arrays = _load(path)
    except InputError:
        raise
    except Exception as error:  # what is no array file may raise nearly anything
        why = "it is damaged, or no array file at all" if "allow_pickle" in str(error) else " ".join(str(error).split())
        raise InputError(f"{path} is no readable array file: {why}") from error
    images_key, labels_key, notes = _keys(arrays, split, str(path))
    images, value_range, image_notes = standard_images(arrays[images_key], f"{path}[{images_key}]")
    labels, classes, label_notes = standard_labels(arrays[labels_key] if labels_key else None, len(images))
    return array_images(images, labels, classes, (*notes, *image_notes, *label_notes), value_range)


def _load(path: Path) -> dict[str, np.ndarray]:
    """Load the arrays of a file; a .npz that does not fit in memory is refused."""
    loaded = np.load(path, mmap_mode="r", allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return {"images": loaded}
    with loaded:
        needed, free = sum(member.file_size for member in loaded.zip.infolist()), free_memory()
        if needed > free / 2:
            raise InputError(
                f"{path} needs {needed / 1e9:,.1f} GB of memory when unpacked, of {free / 1e9:,.1f} GB that are free; "
                f"save its images as .npy, which is read where it lies"
            )
        return {key: _plain(loaded, key) for key in loaded.files}


def _plain(loaded: Any, key: str) -> np.ndarray:
    """Load one array of a .npz; an array of objects is replaced by an empty one and never unpickled."""
    try:
        return loaded[key]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        return np.empty(0, object)


def _keys(arrays: dict[str, np.ndarray], split: str, source: str) -> tuple[str, str | None, list[str]]:
    """Find the keys of the images and their labels, of the requested split if the file has splits."""
    lower = {key.lower(): key for key in arrays}
    named = {f"{kind}_{split}": None for kind in IMAGE_KEYS} | {f"{split}_{kind}": None for kind in IMAGE_KEYS}
    for key in named:
        if key in lower:
            labels = (lower.get(name) for kind in LABEL_KEYS for name in (f"{kind}_{split}", f"{split}_{kind}"))
            return lower[key], next(filter(None, labels), None), [f"Packed {lower[key]}, the {split} split."]
    images = next((lower[key] for key in IMAGE_KEYS if key in lower), None)
    known = [s for s in SPLITS if any({f"{kind}_{s}", f"{s}_{kind}"} & set(lower) for kind in IMAGE_KEYS)]
    if images is None and known:
        raise InputError(f"{source} has no split {split}; it has {', '.join(known)}")
    only_split(source, split)
    candidates = [key for key, array in arrays.items() if array.ndim in (3, 4)]
    if images is None and len(candidates) == 1:
        images = candidates[0]
    if images is None:
        raise InputError(f"{source} holds no array named {', '.join(IMAGE_KEYS)}; it has {', '.join(arrays) or 'none'}")
    return images, next((lower[key] for key in LABEL_KEYS if key in lower and lower[key] != images), None), []


def standard_images(images: np.ndarray, name: str) -> tuple[np.ndarray, tuple[float, float] | None, list[str]]:
    """Reshape an array to [N, H, W] or [N, H, W, C]; also returns the values of black and white, if they must be
    scaled, and notes. Not scaled: uint8, and uint16 [N, H, W]."""
    if images.dtype == object:
        raise InputError(f"{name} holds Python objects, which are not unpickled; save it as one array of numbers")
    if images.ndim not in (3, 4) or 0 in images.shape:
        raise InputError(f"{name} must be [N, H, W], [N, H, W, C] or [N, C, H, W], got shape {list(images.shape)}")
    if images.ndim == 4:
        images = _channels_last(images, name)
    if images.dtype.kind not in "buif":
        raise InputError(f"{name} must hold numbers, got {images.dtype}")
    low, high = float(images.min()), float(images.max())
    if high != 1 and (images.dtype == np.uint8 or (images.dtype == np.uint16 and images.ndim == 3 and high > 255)):
        return images, None, []
    start, end = _range(low, high, images, name)
    return images, (start, end), [f"Values of {name} were read as {start:g}..{end:g} (they lie in {low:g}..{high:g})."]


def _channels_last(images: np.ndarray, name: str) -> np.ndarray:
    """[N, H, W, C] or [N, C, H, W] -> [N, H, W, C]; [N, H, W] where C is 1."""
    first, last = images.shape[1], images.shape[3]
    if min(first, last) > 4:
        raise InputError(f"{name} must have 1 to 4 channels, second or last; got shape {list(images.shape)}")
    if last > 4 or first < last:  # where both could be channels, the larger images were meant
        images = np.moveaxis(images, 1, -1)
    return images[..., 0] if images.shape[-1] == 1 else images


def _range(low: float, high: float, images: np.ndarray, name: str) -> tuple[float, float]:
    """Guess the value range of an array: 0..1 (also integers, such as masks), -1..1, 0..255 or 0..65535."""
    if images.dtype.kind == "b" or (images.dtype.kind in "ui" and low >= 0 and high == 1):
        return 0, 1
    floating = images.dtype.kind == "f"
    if floating and low >= -TOLERANCE and high <= 1 + TOLERANCE:
        return 0, 1
    if floating and low >= -1 - TOLERANCE and high <= 1 + TOLERANCE:
        return -1, 1
    whole = not floating or all((image == np.round(image)).all() for image in images)
    if whole and low >= 0 and high <= 255:
        return 0, 255
    if images.dtype == np.uint16:
        return 0, 65535
    raise InputError(f"{name} must lie in 0..1, -1..1 or (whole numbers) 0..255, got values from {low:g} to {high:g}")


def standard_labels(labels: np.ndarray | None, count: int) -> Labels:
    """Labels of any form as int64 [N] in 0..K-1 and K names; None, and why, where they are no class labels."""
    if labels is None:
        return None, (), []
    if labels.dtype == object:
        return None, (), ["warning: the labels are Python objects, which are not unpickled: packed without classes."]
    notes = []
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    elif labels.ndim == 2 and labels.shape[0] == count and _one_hot(labels):
        notes = [f"Labels were read as one-hot, of {labels.shape[1]:,} classes."]
        labels = labels.argmax(axis=1)
    if labels.dtype.kind == "f" and labels.ndim == 1 and bool((labels == np.round(labels)).all()):
        labels = labels.astype(np.int64)
    if labels.shape != (count,) or labels.dtype.kind not in "buiUS":
        what = f"of shape {list(labels.shape)} and type {labels.dtype}"
        return None, (), [f"warning: Labels {what} were ignored: not one class per image."]
    if labels.dtype.kind in "US":
        names = [name.decode(errors="replace") if isinstance(name, bytes) else name for name in labels.tolist()]
        return class_labels(names, "the labels")
    values, positions = np.unique(labels, return_inverse=True)
    return positions.reshape(-1).astype(np.int64), tuple(map(str, values.tolist())), notes


def _one_hot(labels: np.ndarray) -> bool:
    """Whether each row holds a single 1 and zeros otherwise."""
    are_numbers = labels.dtype.kind in "buif"
    return are_numbers and bool(((labels == 0) | (labels == 1)).all() and (labels.sum(axis=1) == 1).all())
