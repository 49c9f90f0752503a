"""Rows of a set that is larger than memory, read from the disk while the step before still trains."""

import os
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

LOOK_AHEAD = 2  # steps

ReadRows = Callable[[np.ndarray], np.ndarray]  # positions [B] -> [B, C, H, W]


def row_reader(images: np.ndarray) -> ReadRows:
    """What reads rows of `images` [N, C, H, W]. Where that maps a whole file, its rows are read instead of touched."""
    path = getattr(images, "filename", None)
    if path and images.flags.c_contiguous and os.stat(path).st_size == images.offset + images.nbytes:  # type: ignore[attr-defined]
        return _FileRows(Path(path), images.offset, images.shape, images.dtype)  # type: ignore[attr-defined]
    return lambda positions: images[positions]


class _FileRows:
    """Plain reads, in the file's order, announced beforehand: the disk is asked for many rows at once. A memory map
    would fetch them page by page, ten to fifty times as slowly, and end the process where the disk cannot be read."""

    def __init__(self, path: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype):
        self.path, self.offset, self.shape, self.dtype = path, offset, shape, dtype
        self.row_bytes = int(np.prod(shape[1:])) * dtype.itemsize
        self.file = path.open("rb", buffering=0)
        weakref.finalize(self, self.file.close)

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        rows = np.empty((len(positions), *self.shape[1:]), self.dtype)
        order = np.argsort(positions).tolist()
        starts = (self.offset + positions.astype(np.int64) * self.row_bytes).tolist()
        try:
            if hasattr(os, "posix_fadvise"):
                for place in order:
                    os.posix_fadvise(self.file.fileno(), starts[place], self.row_bytes, os.POSIX_FADV_WILLNEED)
            for place in order:
                self.file.seek(starts[place])
                if self.file.readinto(rows[place]) != self.row_bytes:
                    raise OSError("it ends too early")
        except OSError as error:
            reason = error.strerror or error
            raise OSError(f"images can no longer be read from {self.path}: {reason}") from error
        return rows


class Ahead:
    """Reads in a thread of its own what the next steps will ask for; the thread ends with the object."""

    def __init__(self, read: ReadRows):
        self.read, self.pool = read, ThreadPoolExecutor(1, "rows-ahead")
        self.coming: dict[int, Future[np.ndarray]] = {}

    def __call__(self, step: int, positions_of: Callable[[int], np.ndarray]) -> np.ndarray:
        """The rows of one step, which need not follow the last. An error of the reading is raised here."""
        wanted = range(step, step + 1 + LOOK_AHEAD)
        for other in [known for known in self.coming if known not in wanted]:
            self.coming.pop(other).cancel()
        for one in wanted:
            if one not in self.coming:
                self.coming[one] = self.pool.submit(self.read, positions_of(one))
        try:
            return self.coming.pop(step).result()
        except OSError:
            self.coming.clear()  # they may have failed as well: whoever tries again shall not get an old error
            raise
