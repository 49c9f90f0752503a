"""A .npy file on disk: rows written in any order by any number of processes, and read again."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

BLOCK_BYTES = 1 << 20


def npy_header(shape: tuple[int, ...], dtype: type = np.uint8) -> bytes:
    """What stands in front of the rows of an array in a .npy file."""
    file, descr = io.BytesIO(), np.lib.format.dtype_to_descr(np.dtype(dtype))
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
    return file.getvalue()


class Rows:
    """An array [N, ...] at `path`, which is made unless it is there. Plain writes, not a memory map: a full disk is
    then an error, where a memory map would end the process."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: type = np.uint8):
        self.path, self.shape, self.dtype, self.header = path, shape, dtype, npy_header(shape, dtype)
        self.row_bytes = int(np.prod(shape[1:])) * np.dtype(dtype).itemsize
        self._file: BinaryIO | None = None
        size = len(self.header) + shape[0] * self.row_bytes
        if not path.exists() or path.stat().st_size != size:
            with path.open("wb") as file:
                file.truncate(size)
        with path.open("r+b") as file:
            file.write(self.header)

    def write(self, position: int, row: bytes) -> None:
        """Put a row in its place."""
        if self._file is None:
            self._file = self.path.open("r+b", buffering=0)
        self._file.seek(len(self.header) + position * self.row_bytes)
        left = memoryview(row)
        while left:
            left = left[self._file.write(left) :]

    def read(self) -> Iterator[tuple[int, list[bytes]]]:
        """All rows, in order, in blocks of (position of the first, rows)."""
        count = max(1, BLOCK_BYTES // self.row_bytes)
        with self.path.open("rb") as file:
            file.seek(len(self.header))
            for start in range(0, self.shape[0], count):
                yield start, [file.read(self.row_bytes) for _ in range(start, min(start + count, self.shape[0]))]

    def close(self) -> None:
        """Let go of the file: Windows moves nothing that is open."""
        if self._file is not None:
            self._file.close()
            self._file = None
