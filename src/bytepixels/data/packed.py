"""A packed data set on disk: images.npy, labels.npy and meta.json in one folder, whole or not there at all."""

import json
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from ..errors import InputError

FORMAT = 1
_TEMPORARY = ".packing-"
_STALE_SECONDS = 7 * 24 * 3600


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
        images = _load(path / "images.npy", np.uint8, (meta["count"], meta["channels"], *meta["size"]))
        labels = _load(path / "labels.npy", np.int64, (meta["count"],)) if meta["classes"] else None
        if meta["format"] != FORMAT:
            return None
        return Packed(images, labels, tuple(meta["classes"]), meta, path, tuple(meta["notes"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError):
        return None


def _load(path: Path, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.dtype != dtype or array.shape != shape or path.stat().st_size != array.offset + array.nbytes:
        raise ValueError(f"{path} is not {np.dtype(dtype)} {shape}")
    return array


def publish(path: Path, write: Callable[[Path], None]) -> Packed:
    """Let `write` fill a temporary folder, then rename it to `path`: an interruption leaves nothing half-made.

    When another process was faster, its result is used and ours dropped.
    """
    folder = _temporary(path.parent)
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"the cache {path.parent} cannot be written ({error.strerror}); choose another") from error
    _remove_stale(path.parent)
    try:
        write(folder)
        _move(folder, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    packed = open_packed(path)
    if packed is None:
        raise OSError(f"{path} was damaged while it was written")
    return packed


def _move(folder: Path, path: Path) -> None:
    for _ in range(3):  # a damaged pack stands in the way, or another process put a good one there
        try:
            os.rename(folder, path)
            return
        except OSError:
            if open_packed(path) is not None:
                return
            aside = _temporary(path.parent)
            with suppress(FileNotFoundError):
                os.rename(path, aside)
            shutil.rmtree(aside, ignore_errors=True)
    os.rename(folder, path)


def _temporary(parent: Path) -> Path:
    return parent / f"{_TEMPORARY}{uuid4().hex}"


def _remove_stale(parent: Path) -> None:
    """Drop what killed processes left behind long ago."""
    for folder in parent.glob(_TEMPORARY + "*"):
        with suppress(FileNotFoundError):  # its owner has just finished
            if time.time() - folder.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
