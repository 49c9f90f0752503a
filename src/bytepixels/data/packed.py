"""A packed data set on disk: images.npy, labels.npy and meta.json in one folder, whole or not there at all."""

import json
import os
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from .. import events

FORMAT = 1


@dataclass(frozen=True)
class Packed:
    """N images of one size, ready to be indexed; `len()` is N."""

    images: np.ndarray  # uint8 [N, C, H, W], a read-only memory map
    labels: np.ndarray | None  # int64 [N], positions in `classes`
    classes: tuple[str, ...]  # their names; () when there are no labels
    meta: dict[str, Any]  # source, settings, count, skipped files, sha256 of the arrays
    path: Path
    notes: tuple[str, ...]  # sentences that the user should read once
    captions: tuple[str, ...] | None = None  # of each image, "" for none; None where no image has one

    def __len__(self) -> int:
        return len(self.images)


def default_cache() -> Path:
    """The cache folder: $BYTEPIXELS_CACHE, or the platform's; without a home directory, one in the temporary folder."""
    if given := os.environ.get("BYTEPIXELS_CACHE"):
        return Path(os.path.expanduser(given))
    return _home_cache()


@cache
def _home_cache() -> Path:
    import pooch

    try:
        folder = Path(pooch.os_cache("bytepixels"))
        if folder.is_absolute():
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                return folder
    except (KeyError, RuntimeError, OSError):  # the user has no name, no home
        pass
    owner = str(os.getuid()) if hasattr(os, "getuid") else "user"
    folder = Path(tempfile.gettempdir()) / f"bytepixels-cache-{owner}"
    events.say(f"No home folder that can be written: the cache is {folder} (BYTEPIXELS_CACHE=FOLDER takes another)")
    return folder


def open_packed(path: Path) -> Packed | None:
    """The packed set at `path` when it is there, of this format and undamaged as far as sizes and types tell.

    Captions are in its meta.json; packs of earlier versions, which had a file captions.json, are not of this format.
    """
    try:
        meta = json.loads((path / "meta.json").read_text())
        images = load_array(path / "images.npy", np.uint8, (meta["count"], meta["channels"], *meta["size"]))
        labels = load_array(path / "labels.npy", np.int64, (meta["count"],)) if meta["classes"] else None
        captions = tuple(meta.pop("captions", ()))
        if meta["format"] != FORMAT or len(captions) not in (0, len(images)) or (path / "captions.json").exists():
            return None
        return Packed(images, labels, tuple(meta["classes"]), meta, path, tuple(meta["notes"]), captions or None)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError):
        return None


def load_array(path: Path, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    """A read-only memory map of a .npy file. ValueError where it holds something else, or more, or less."""
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.dtype != dtype or array.shape != shape or path.stat().st_size != array.offset + array.nbytes:
        raise ValueError(f"{path} is not {np.dtype(dtype)} {shape}")
    return array
