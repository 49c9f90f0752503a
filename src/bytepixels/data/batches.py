"""The images of a training step, as a function of (seed, step) alone, so that resuming needs no state. Sets larger than
memory are read ahead from the disk.
"""

import os
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .. import memory
from ..errors import InputError
from ..randomness import FLIP, ORDER, seeded

RESIDENT = 0.25  # share of the device's free memory that the images may take to be kept there
LOOK_AHEAD = 2  # steps that are read from the disk while the step before still trains

ReadRows = Callable[[np.ndarray], np.ndarray]  # positions [B] -> [B, C, H, W]


class Batches:
    """Images [B, C, H, W] uint8 and labels [B] of any step: a new order in every epoch, batches that span epochs.

    images: uint8 [N, C, H, W], possibly memory-mapped; copied once to the device when they fit there, else read from
        the disk, two steps ahead of the training.
    rows: which rows of every batch are given out, where several processes share it; None for all. Order and mirroring
        are those of the whole batch.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray | None,
        batch: int,
        seed: int = 0,
        flip: bool = False,
        device: torch.device | str = "cpu",
        rows: slice | None = None,
    ):
        self.images, self.batch, self.seed, self.flip, self.device = images, batch, seed, flip, torch.device(device)
        self.rows = slice(None) if rows is None else rows
        if not range(batch)[self.rows]:
            raise InputError(f"rows {self.rows.start}:{self.rows.stop} of a batch of {batch} are none")
        self.labels = None if labels is None else torch.as_tensor(np.array(labels), device=self.device)
        fits = images.nbytes <= RESIDENT * free_memory(self.device)
        self.resident = torch.from_numpy(np.array(images)).to(self.device) if fits else None
        self._prefetch = Prefetcher(row_reader(images))
        self._orders: dict[int, np.ndarray] = {}

    def indices(self, step: int) -> np.ndarray:
        """Positions [B] of the images in the whole batch of step `step`."""
        positions = np.arange(step * self.batch, (step + 1) * self.batch)
        epochs, places = np.divmod(positions, len(self.images))
        return np.concatenate([self._order(e)[places[epochs == e]] for e in np.unique(epochs).tolist()])

    def __call__(self, step: int) -> tuple[Tensor, Tensor | None]:
        """(images uint8 [R, C, H, W], labels int64 [R] or None) of step `step`, on the device; R rows, B where all."""
        index = self._upload(self._local_indices(step))
        if self.resident is None:
            images = self._upload(self._prefetch(step, self._local_indices))
        else:
            images = self.resident[index]
        return self._transform(images, step), None if self.labels is None else self.labels[index]

    def _local_indices(self, step: int) -> np.ndarray:
        return self.indices(step)[self.rows]

    def _transform(self, images: Tensor, step: int) -> Tensor:
        """The rows [R, ...] as a batch: half of the images mirrored, with `flip`."""
        return torch.where(self._mirrored(step), images.flip(-1), images) if self.flip else images

    def _mirrored(self, step: int) -> Tensor:
        """Which rows are mirrored, bool [R, 1, 1, 1]: half, chosen by (seed, step) and their place in the batch."""
        generator = seeded(self.seed, FLIP, step, device=self.device)
        return torch.rand(self.batch, 1, 1, 1, generator=generator, device=self.device)[self.rows] < 0.5

    def _upload(self, values: np.ndarray) -> Tensor:
        """Copy to the device without waiting for it."""
        host, is_cuda = torch.from_numpy(values), self.device.type == "cuda"
        return (host.pin_memory() if is_cuda else host).to(self.device, non_blocking=is_cuda)

    def _order(self, epoch: int) -> np.ndarray:
        """The order of all images in one epoch; the last two orders are cached."""
        if epoch not in self._orders:
            self._orders = {e: order for e, order in self._orders.items() if e == epoch - 1}
            self._orders[epoch] = torch.randperm(len(self.images), generator=seeded(self.seed, ORDER, epoch)).numpy()
        return self._orders[epoch]


def free_memory(device: torch.device) -> float:
    """Bytes free on the device."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else memory.free_memory()


def row_reader(images: np.ndarray) -> ReadRows:
    """A reader of rows of `images` [N, C, H, W]. Rows of a memory-mapped file are read by file reads instead."""
    if isinstance(images, np.memmap) and images.filename and images.flags.c_contiguous:
        path = Path(images.filename)
        if path.stat().st_size == images.offset + images.nbytes:
            return _FileRows(path, images.offset, images.shape, images.dtype)
    return lambda positions: images[positions]


class _FileRows:
    """Reads rows by plain file reads, in the file's order, with read-ahead hints. A memory map would fetch them page by
    page, ten to fifty times as slowly, and kill the process on a disk error."""

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


class Prefetcher:
    """Reads the rows of the next steps in a background thread, which ends with the object."""

    def __init__(self, read: ReadRows):
        self.read, self.pool = read, ThreadPoolExecutor(1, "rows-ahead")
        self.coming: dict[int, Future[np.ndarray]] = {}

    def __call__(self, step: int, positions_of: Callable[[int], np.ndarray]) -> np.ndarray:
        """The rows of one step, in any order of steps. Raises the reader's error."""
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
