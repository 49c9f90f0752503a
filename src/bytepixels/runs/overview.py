"""The overview of a run without loading it: progress, size, and integrity."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open

from ..errors import InputError
from ..files import DamagedError
from .checkpoints import PRUNED, check_file, check_files, identity, list_checkpoints, read_state
from .lock import holder, in_use
from .run_directory import CHECKPOINTS, CONFIG, Run, is_run, open_run

TAIL = 1 << 14  # bytes of log.jsonl that hold its last lines
RECENT = 20  # lines that the loss is averaged over: one batch says little


@dataclass(frozen=True)
class Saved:
    """One checkpoint on the disk."""

    path: Path
    images: int | None
    damage: str | None  # what is wrong with it; None when it is whole
    pruned: bool = False  # of its optimizer

    @property
    def size(self) -> int:
        """The checkpoint's bytes on the disk."""
        return size_of(self.path)


@dataclass(frozen=True)
class Overview:
    """One run on the disk."""

    path: Path
    run: Run | None  # None when config.json cannot be read
    damage: list[str]  # sentences
    saved: list[Saved]  # oldest first
    in_use: bool

    def __repr__(self) -> str:
        return f"<{self.path}: {self.state}, {self.images:,} images seen>"

    @property
    def images(self) -> int:
        """Images seen: up to the last intact checkpoint, or up to now if it is being trained."""
        done = max((one.images or 0 for one in self.saved if not one.damage), default=0)
        last = self.recent[-1:] if self.in_use else []
        return max([done, *(line["images"] for line in last)])

    @property
    def loss(self) -> float | None:
        """The mean loss of the log's last lines."""
        return recent_loss(self.path)

    @property
    def log(self) -> list[dict[str, Any]]:
        """The log's lines that hold a loss, oldest first."""
        return list(read_log(self.path))

    @property
    def skipped(self) -> int:
        """Number of steps skipped because their loss or gradient was not finite."""
        return sum(record.get("skipped", 0) for record in read_lines(self.path / "log.jsonl"))

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        """Its evaluations, oldest first: the records of eval.jsonl."""
        return list(read_lines(self.path / "eval.jsonl"))

    @property
    def size(self) -> int:
        """The run's bytes on the disk."""
        return size_of(self.path)

    @property
    def holder(self) -> str:
        """The process that is training the run; None if there is none."""
        return holder(self.path)

    @property
    def recent(self) -> list[dict[str, Any]]:
        """The log's last lines."""
        return recent_lines(self.path)

    @property
    def finished(self) -> bool:
        """True when it has seen its budget."""
        return self.run is not None and self.images >= self.run.config.train.images

    @property
    def state(self) -> str:
        """Its state in a word or two: training now, damaged, imported, finished, stopped."""
        if self.in_use:
            return "training now"
        if self.damage:
            return "damaged"
        if self.run is not None and self.run.data.get("imported"):
            return "imported"
        return "finished" if self.finished else "stopped"

    @property
    def changed(self) -> float:
        """Time of its last change, in seconds since 1970."""
        times = [0.0]
        for path in (self.path / CONFIG, self.path / "log.jsonl", *(one.path for one in self.saved)):
            with suppress(OSError):
                times.append(path.stat().st_mtime)
        return max(times)


def find_runs(folder: Path) -> list[Path]:
    """List the runs in a folder, or the folder itself if it is one; InputError if there is no such folder."""
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; runs are kept in runs/ unless train was told another --run")
    return [
        path for path in (folder, *sorted(folder.iterdir())) if is_run(path) or list_checkpoints(path / CHECKPOINTS)
    ]


def inspect_run(path: Path, thorough: bool) -> Overview:
    """Inspect a run on the disk. thorough: verify the checksum of every checkpoint file, not only its size.

    InputError for one of a later version.
    """
    busy, run = in_use(path), None
    damage: list[str] = []
    try:
        run = open_run(path)
    except DamagedError as error:
        damage.append(str(error))
    looked: dict[Path, Saved] = {}
    for _ in range(3):  # its training may write and remove some while we look
        for one in list_checkpoints(path / CHECKPOINTS):
            if run is not None and one not in looked:
                looked[one] = inspect_checkpoint(one, run.id, thorough)
    saved = sorted((one for one in looked.values() if one.path.exists()), key=lambda one: one.path)
    return Overview(path, run, damage + [one.damage for one in saved if one.damage], saved, busy)


def overview_or_damage(path: Path) -> Overview:
    """Inspect a run on the disk, even if only a later version can read it."""
    try:
        return inspect_run(path, thorough=False)
    except InputError as error:
        return Overview(path, None, [str(error)], [], False)


def inspect_checkpoint(path: Path, run: str, thorough: bool) -> Saved:
    """Inspect one checkpoint of the run with id `run`."""
    images, before = None, identity(path)
    try:
        state = read_state(path, run)
        images = state["images"]
        check_files(path, state, check_file if thorough else _check_size)
    except InputError as error:
        if before is not None and identity(path) not in (None, before):  # it was replaced or pruned while we looked
            return inspect_checkpoint(path, run, thorough)
        return Saved(path, images, str(error))
    return Saved(path, images, None, "optimizer" in state.get(PRUNED, ()))


def _check_size(checkpoint: Path, name: str, state: Mapping[str, Any]) -> None:
    """Raise an error unless a file of a checkpoint is as long as its own header says."""
    safe_open(checkpoint / name, "pt")


def read_log(run: Path, tail: int | None = None) -> Iterator[dict[str, Any]]:
    """Read the lines of log.jsonl that hold a loss, oldest first; only of its last `tail` bytes if given."""
    for record in read_lines(run / "log.jsonl", tail):
        with suppress(ValueError, TypeError, KeyError, OverflowError):
            loss, images = float(record["loss"]), int(record["images"])
            if math.isfinite(loss):
                yield record | {"loss": loss, "images": images}


def recent_lines(run: Path) -> list[dict[str, Any]]:
    """The last lines of the log that hold a loss."""
    return list(read_log(run, TAIL))[-RECENT:]


def recent_loss(run: Path) -> float | None:
    """The loss of a run as one number: the mean of the last 20 lines of its log that hold one."""
    losses = [line["loss"] for line in recent_lines(run)]
    return sum(losses) / len(losses) if losses else None


def read_lines(path: Path, tail: int | None = None) -> Iterator[dict[str, Any]]:
    """Read the JSON objects in a JSON Lines file, without unreadable lines."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - tail) if tail else 0)
            content = file.read(size)
    except OSError:
        return
    for line in content.decode(errors="replace").split("\n"):
        with suppress(ValueError):
            record = json.loads(line)
            if isinstance(record, dict):
                yield record


def size_of(path: Path) -> int:
    """Bytes in all files of a folder, or in one file."""
    total = 0
    for file in [path, *path.rglob("*")]:
        with suppress(OSError):  # removed meanwhile
            total += file.stat().st_size if file.is_file() else 0
    return total
