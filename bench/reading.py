"""What share of a training step goes to reading a set that is larger than memory: python -m bench.reading [FOLDER]

The steps are imitated by waiting, as a processor waits for a GPU; the file's pages are dropped before every step, so
that each row comes from the disk. 128 images of 128 x 128 a step, median of 40 steps, three times, in turn.
"""

import mmap
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bytepixels.data import batches

COUNT, SIDE, BATCH, STEPS = 40_000, 128, 128, 40
WAYS = {"rows of the memory map": (False, 0), "plain reads": (True, 0), "plain reads, two steps ahead": (True, 2)}


def made(folder: Path) -> np.ndarray:
    """2 GB of noise, as a memory map."""
    path = folder / "images.npy"
    images = np.lib.format.open_memmap(path, "w+", np.uint8, (COUNT, 3, SIDE, SIDE))
    random = np.random.default_rng(0)
    for start in range(0, COUNT, 1000):
        images[start : start + 1000] = random.integers(0, 256, (1000, 3, SIDE, SIDE), np.uint8)
    images.flush()
    return np.load(path, mmap_mode="r")


def stall(images: np.ndarray, plain: bool, ahead: int, seconds: float, seed: int) -> float:
    """Median seconds that a step of the given length waits for its images."""
    batches.LOOK_AHEAD = ahead
    source = batches.Batches(images, None, BATCH, seed)
    if not plain:
        source._prefetch.read = lambda positions: images[positions]
    waits = []
    with open(images.filename, "rb") as file:  # type: ignore[attr-defined]
        for step in range(STEPS):
            images._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            began = time.perf_counter()
            source(step)
            waits.append(time.perf_counter() - began)
            time.sleep(seconds)
    return statistics.median(waits[1:])


def main(folder: Path) -> None:
    images = made(folder)
    batches.free_memory = lambda device: 0.0
    for seconds in (0.02, 0.05, 0.2):
        for way, (plain, ahead) in WAYS.items():
            waits = [stall(images, plain, ahead, seconds, seed) for seed in range(3)]
            shares = [100 * wait / (wait + seconds) for wait in waits]
            print(
                f"step of {1e3 * seconds:3.0f} ms, {way:30}: waits {1e3 * statistics.median(waits):6.1f} ms, "
                f"{min(shares):.1f} to {max(shares):.1f}% of a step",
                flush=True,
            )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
