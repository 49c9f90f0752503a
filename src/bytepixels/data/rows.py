"""A .npy file on disk that is written row by row, in any order."""

from pathlib import Path

import numpy as np


class NpyRows:
    """The rows of an array [N, ...] in the .npy file `path`, written in any order. Plain writes, not a memory map: a
    full disk is then an error, where a memory map would end the process."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: type, new: bool = True):
        if new:
            np.lib.format.open_memmap(path, "w+", dtype, shape)
        self.row_bytes = int(np.prod(shape[1:])) * np.dtype(dtype).itemsize
        self.offset = path.stat().st_size - shape[0] * self.row_bytes
        self.file = path.open("r+b", buffering=0)

    def write(self, position: int, row: bytes) -> None:
        """Put a row in its place."""
        self.file.seek(self.offset + position * self.row_bytes)
        left = memoryview(row)
        while left:
            left = left[self.file.write(left) :]
