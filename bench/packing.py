"""How fast a source is packed, and what nothing can beat: the parts of bench.loading that are not training."""

import io
import multiprocessing
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bytepixels.config.run import Config
from bytepixels.data import pack
from bytepixels.data.sources.open_source import open_source

from .machine import seconds

FORK = multiprocessing.get_context("fork")  # a fresh process would import torch for seconds
CORES = sorted(os.sched_getaffinity(0))
WAYS = [(1, 1), (1, 2)] if len(CORES) > 1 else [(1, 1)]  # processes, cores: a second process would only wait


def packing(source: Path, folder: Path, config: Config, rounds: int) -> dict[str, Any]:
    """Seconds and processor seconds of every way to pack, and of the limits."""
    packed = pack(source, size=config.data.size, cache=folder / "first")  # the system has the source in memory now
    size, image_bytes = tuple(packed.meta["size"]), packed.images.nbytes
    reading, files = [seconds(lambda: files_of(source, folder)) for _ in range(rounds)], files_of(source, folder)
    mode = "L" if packed.meta["channels"] == 1 else "RGB"
    found: dict[str, Any] = {"decoder": {}, "pack": {}}
    for k in range(rounds):
        for processes, cores in WAYS:
            shares = [partial(decode, files[n::cores], size, mode) for n in range(cores)]
            cache = folder / f"{k}-{processes}-{cores}"
            packs = [partial(pack, source, size=config.data.size, cache=cache)] * processes
            for what, work in (("decoder", shares), ("pack", packs)):
                found[what].setdefault(f"{processes} on {cores}", []).append(at_once(work, CORES[:cores]))
    write, read = disk_seconds(folder, image_bytes)
    total = {"pictures": len(packed), "source_bytes": sum(map(len, files)), "packed_bytes": image_bytes}
    return total | {"reading": reading, "disk_write": write, "disk_read": read} | found


def files_of(source: Path, cache: Path) -> list[bytes]:
    """The files of all images, in the order in which they are read fastest."""
    contents = []
    for item in open_source(source, "train", cache).read().items():
        with item.open() as image:
            image.fp.seek(0)  # type: ignore[attr-defined]
            contents.append(image.fp.read())  # type: ignore[attr-defined]
    return contents


def decode(files: list[bytes], size: tuple[int, int], mode: str) -> None:
    """What anybody would write: no checks, no background, no cropping."""
    for content in files:
        with Image.open(io.BytesIO(content)) as image:
            image.convert(mode).resize(size[::-1], Image.Resampling.LANCZOS, reducing_gap=3.0).tobytes()


def at_once(work: list[Callable[[], object]], cores: list[int]) -> tuple[float, float]:
    """(seconds from the first start to the last end, processor seconds of all) of processes that may use the cores."""
    results, ready = FORK.SimpleQueue(), FORK.Barrier(len(work))

    def run(call: Callable[[], object]) -> None:
        os.sched_setaffinity(0, cores)
        ready.wait()
        began, cpu = time.perf_counter(), time.process_time()
        call()
        results.put((began, time.perf_counter(), time.process_time() - cpu))

    workers = [FORK.Process(target=run, args=(call,)) for call in work]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        if worker.exitcode:
            raise RuntimeError("a process failed; its traceback is above")
    began, ended, cpu = zip(*(results.get() for _ in workers), strict=True)
    return max(ended) - min(began), sum(cpu)


def disk_seconds(folder: Path, count: int) -> tuple[float, float]:
    """Of writing so many bytes to the disk, and of reading them again from there."""
    path, content = folder / "plain", os.urandom(count)
    with path.open("wb", buffering=0) as file:
        write = seconds(lambda: (file.write(content), os.fsync(file.fileno())))
    forget(path)
    return write, seconds(path.read_bytes)


def forget(path: Path) -> None:
    """Have the system drop its copy of a file."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def spread(values: list[float], form: str) -> str:
    low, middle, high = np.quantile(values, (0.0, 0.5, 1.0))
    return f"{middle:{form}} ({low:{form}}, {high:{form}})"


def show_packing(row: dict[str, Any]) -> None:
    """Medians, and the least and the most."""
    count, source, written = row["pictures"], row["source_bytes"] / 1e6, row["packed_bytes"] / 1e6
    print(f"{row['source']}: {count:,} images, {source:.1f} MB of files, {written:.1f} MB packed")
    print(f"  reading the source once: {spread([count / s for s in row['reading']], ',.0f')} images/s")
    print(f"  the disk: writes {written / row['disk_write']:,.0f} MB/s, reads {written / row['disk_read']:,.0f} MB/s")
    for way, times in row["pack"].items():
        wall, cpu = (np.array(column) for column in zip(*times, strict=True))
        least, least_cpu = (np.array(column) for column in zip(*row["decoder"][way], strict=True))
        print(f"  {way.replace('on', 'process(es),')} core(s): {spread(count / wall, ',.0f')} images/s, ", end="")
        print(f"{source / np.median(wall):.1f} MB/s of files; decoder {spread(count / least, ',.0f')}")
        print(
            f"    of the decoder's rate {spread(least / wall, '.0%')}, by cpu {spread(least_cpu / cpu, '.0%')}; ",
            end="",
        )
        both = (np.array(row["reading"]) + least) / wall
        print(f"of reading, then decoding {spread(both, '.0%')}; ", end="")
        print(f"of the disk's writing {row['disk_write'] / np.median(wall):.1%}")
