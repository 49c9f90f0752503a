"""A packed data set on disk: images.npy, labels.npy and meta.json in one folder, whole or not there at all."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = 1


@dataclass(frozen=True)
class Packed:
    """N pictures of one size, ready to be indexed; `len()` is N."""

    images: np.ndarray  # uint8 [N, C, H, W], a read-only memory map
    labels: np.ndarray | None  # int64 [N], positions in `classes`
    classes: tuple[str, ...]  # their names; () when there are no labels
    meta: dict[str, Any]  # source, settings, count, skipped files, sha256 of the arrays
    path: Path
    notes: tuple[str, ...]  # sentences that the user should read once

    def __len__(self) -> int:
        return len(self.images)


def default_cache() -> Path:
    """$BYTEPIXELS_CACHE, or the platform's cache folder."""
    if given := os.environ.get("BYTEPIXELS_CACHE"):
        return Path(given).expanduser()
    import pooch

    return Path(pooch.os_cache("bytepixels"))


def open_packed(path: Path) -> Packed | None:
    """The packed set at `path` when it is there, of this format and undamaged as far as sizes and types tell."""
    try:
        meta = json.loads((path / "meta.json").read_text())
        images = load_array(path / "images.npy", np.uint8, (meta["count"], meta["channels"], *meta["size"]))
        labels = load_array(path / "labels.npy", np.int64, (meta["count"],)) if meta["classes"] else None
        if meta["format"] != FORMAT:
            return None
        return Packed(images, labels, tuple(meta["classes"]), meta, path, tuple(meta["notes"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError):
        return None


def load_array(path: Path, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    """A read-only memory map of a .npy file. ValueError where it holds something else, or more, or less."""
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.dtype != dtype or array.shape != shape or path.stat().st_size != array.offset + array.nbytes:
        raise ValueError(f"{path} is not {np.dtype(dtype)} {shape}")
    return array
