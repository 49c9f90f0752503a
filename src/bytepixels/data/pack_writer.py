"""Write cache entries row by row into a temporary folder, so that an interrupted call resumes where it stopped; one
process at a time.

The temporary folder holds finished/, which is moved to its place at the end, and `done`, a byte for each row.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import PIL
from filelock import FileLock, Timeout

from ..errors import InputError
from ..files import flush, sha256
from .cache import TEMPORARY, keep_within_limit, make_folder, mark_used, remove_stale
from .packed import load_array
from .rows import NpyRows

DONE = 1  # the lowest bit of a row's byte, which is 0 until it is done
_MAKER = f"2-{PIL.__version__}"  # another decoder goes on with nothing that this one began
SAVE_SECONDS = 5.0  # of work that a killed process may lose
WAIT_SECONDS = 0.1  # between two looks at what another process has done

T = TypeVar("T")
Progress = Callable[[int, int], None]  # (images done, images in all)
Make = Callable[[Path, Progress], object]


class HopelessError(InputError):
    """An error that retrying cannot fix: the partial result need not be kept."""


def load_or_make(path: Path, load: Callable[[Path], T | None], make: Make, progress: Progress | None = None) -> T:
    """Load the entry at `path`. If `load` returns None, `make(folder, progress)` first writes finished/ in a temporary
    folder.

    One process makes it while the others wait and see how far it is. What was done when it was interrupted is kept for
    the next call, unless it raised HopelessError.
    """
    found = load(path)
    if found is None:
        folder = path.with_name(f"{TEMPORARY}{path.name}-{_MAKER}")
        progress = progress or (lambda done, total: None)
        with _one_process(path, folder, progress):
            found = load(path)  # another may have been at it
            if found is None:
                found = _make(path, load, folder, make, progress)
        remove_stale(path.parent)
        keep_within_limit(path.parents[1], path)
    mark_used(path)
    return found


def _make(path: Path, load: Callable[[Path], T | None], folder: Path, make: Make, progress: Progress) -> T:
    finished = folder / "finished"
    try:
        if load(finished) is None:
            make(folder, progress)
    except HopelessError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(path, ignore_errors=True)  # a damaged one stands in the way
    os.rename(finished, path)
    shutil.rmtree(folder, ignore_errors=True)
    found = load(path)
    if found is None:
        raise OSError(f"{path} was damaged while it was written; run the same command again")
    return found


@contextmanager
def _one_process(path: Path, folder: Path, progress: Progress) -> Iterator[None]:
    """Hold the lock of `path`: one process makes it while others wait. The system releases a killed process's lock."""
    locks = path.parents[1] / "locks"  # never removed, so that nobody holds a lock that another cannot see
    make_folder(locks)
    make_folder(path.parent)
    lock = FileLock(locks / f"{path.parent.name}-{path.name}.lock")
    while not lock.is_locked:
        try:
            lock.acquire(timeout=WAIT_SECONDS)
        except Timeout:
            if (done := _read_flags(folder)).any():
                progress(int(np.count_nonzero(done)), len(done))
    try:
        yield
    finally:
        lock.release()


def _read_flags(folder: Path) -> np.ndarray:
    """The state byte of each row, uint8 [N]; empty if nothing was begun."""
    try:
        return np.fromfile(folder / "done", np.uint8)
    except OSError:
        return np.zeros(0, np.uint8)


class PackWriter:
    """Writes an array [N, ...] into finished/ of a temporary folder, resuming where the last call stopped: with
    PackWriter(...) as writer: writer.write(...), then writer.finalize(...).

    done: uint8 [N], the `done_flag` of each row that is written; else 0.
    """

    def __init__(self, folder: Path, name: str, shape: tuple[int, ...], dtype: type = np.uint8):
        self.folder, self.finished, self.array = folder, folder / "finished", folder / "finished" / name
        self.shape, self.dtype = shape, dtype
        self.done = _read_flags(folder)
        make_folder(self.finished)
        try:
            new = load_array(self.array, dtype, shape) is None or len(self.done) != shape[0]
        except (OSError, ValueError, EOFError):
            new = True
        if new:
            self.done = np.zeros(shape[0], np.uint8)
            (folder / "done").write_bytes(self.done.tobytes())
        self.rows = NpyRows(self.array, shape, dtype, new)
        self.saved = time.monotonic()

    def __enter__(self) -> "PackWriter":
        return self

    def __exit__(self, *_: object) -> None:
        with self.rows.file:
            self._save()

    @property
    def count(self) -> int:
        """The number of rows written."""
        return int(np.count_nonzero(self.done))

    def check_space(self, what: str, advice: str) -> None:
        """Raise InputError if the disk has no room for the remaining rows."""
        needed, free = (len(self.done) - self.count) * self.rows.row_bytes, shutil.disk_usage(self.folder).free
        if needed > free:
            place = f"{self.folder.parent}, where {free / 1e9:,.1f} GB are free"
            raise InputError(f"{what} need {needed / 1e9:,.1f} GB in {place}; {advice}")

    def write(self, position: int, row: bytes, done_flag: int = DONE) -> None:
        """Write one row; a flag other than DONE says how it was converted."""
        self.rows.write(position, row)
        self.done[position] = done_flag
        if time.monotonic() - self.saved > SAVE_SECONDS:
            self._save()

    def _save(self) -> None:
        """Flush the rows, then the flags, so that every row that is marked as done is on the disk."""
        os.fsync(self.rows.file.fileno())
        with (self.folder / "done").open("r+b") as file:
            file.write(self.done.tobytes())
        self.saved = time.monotonic()

    def finalize(self, meta: Mapping[str, Any], labels: np.ndarray | None) -> None:
        """Leave out the rows that are not done; write the labels beside the array, then meta.json."""
        array = self.array if self.done.all() else self._without_gaps()
        sums = {self.array.stem: sha256(array)}
        if labels is not None:
            np.save(self.finished / "labels.npy", labels)
            flush(self.finished / "labels.npy")
            sums["labels"] = sha256(self.finished / "labels.npy")
        (self.finished / "meta.json").write_text(json.dumps({**meta, "sha256": sums}, indent=1))
        flush(self.finished / "meta.json")
        os.replace(array, self.array)  # last, where it is another: finished/ is whole from then on

    def _without_gaps(self) -> Path:
        """Write a file of the finished rows only."""
        path, kept = self.folder / "shorter.npy", np.flatnonzero(self.done)
        rows = np.load(self.array, mmap_mode="r", allow_pickle=False)
        shorter = NpyRows(path, (len(kept), *self.shape[1:]), self.dtype)
        with shorter.file as file:
            for position, row in enumerate(kept.tolist()):
                shorter.write(position, rows[row].tobytes())
            os.fsync(file.fileno())
        return path
