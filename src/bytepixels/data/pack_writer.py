"""A pack, or its latents, in the making, in a folder of its own: what is done is kept, so that an interruption costs
nothing.

It holds one 64-bit word for each image (0 until it is done), why images were skipped, locks, and in whole/ what the
result will be. A row is written before its word, the word holds the row's checksum, and whole/meta.json comes last.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Generic, TypeVar
from uuid import uuid4
from zlib import crc32

import numpy as np
import PIL
from filelock import FileLock

from ..errors import InputError
from .locks import PAUSE, claim, make_folder, sync, write_whole
from .notes import HopelessError
from .rows import Rows, npy_header

DONE, SKIPPED = 1, 2  # bits of a word; the upper half is the checksum of the row, or of why there is none
TEMPORARY = ".packing-"
_MAKER = f"1-{PIL.__version__}"  # another decoder goes on with none of this one's drafts
_STALE_SECONDS = 7 * 24 * 3600

Whole = TypeVar("Whole")
Progress = Callable[[int, int], None]  # (images done, images in all)


class Draft(Generic[Whole]):
    """What will be at `path`, with its rows in the file `array`; any number of processes may have it open.

    opened: opens what is whole at a path; None where that is not so.
    """

    def __init__(self, path: Path, array: str, opened: Callable[[Path], Whole | None]):
        self.array, self.opened = array, opened
        self.path, self.folder = path, path.parent / f"{TEMPORARY}{path.name}-{_MAKER}"
        self.whole, self._shorter = self.folder / "whole", self.folder / "shorter.npy"
        self._reasons = self.folder / "skipped"
        make_folder(self.folder)
        make_folder(self.whole)

    def completed(self, fill: Callable[[], None]) -> Whole:
        """What is whole in its place, after `fill` has filled it: together with other processes that make the same."""
        try:
            if not self.made():
                fill()
            with self.lock("seal"):
                return self.publish()
        except HopelessError:
            self.drop()
            raise
        except FileNotFoundError as error:  # another process was faster, and has cleared up
            if (whole := self.opened(self.path)) is None:
                raise OSError(f"{self.folder} was removed meanwhile; run the same command again") from error
            return whole

    def made(self) -> bool:
        """Whether all is done."""
        return any(self.opened(path) is not None for path in (self.path, self.whole))

    def check_space(self, needed: int, what: str, advice: str) -> None:
        """Raise InputError where `needed` bytes for `what` are more than the disk has."""
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            place = f"{self.folder.parent}, where {free / 1e9:,.1f} GB are free"
            raise InputError(f"{what} need {needed / 1e9:,.1f} GB in {place}; {advice}")

    def lock(self, name: str) -> FileLock:
        """A lock among all processes that make the same."""
        return FileLock(self.folder / f"{name}.lock")

    @contextmanager
    def alone(self, progress: Progress) -> Iterator[bool]:
        """Work that one process does at a time, here once the others have stopped: whether any is left."""
        while (lock := claim(self.folder / "alone.lock")) is None:
            if (words := self._words()).any():
                progress(int(np.count_nonzero(words)), len(words))
            time.sleep(PAUSE)
        try:
            with self.lock("seal"):  # not while another moves the whole to its place
                make_folder(self.whole)  # which a process that gave up may have removed
                left = not self.made()
            yield left
        finally:
            lock.release()

    def words(self, name: str, count: int) -> np.ndarray:
        """uint64 [count], shared by all processes."""
        path = self.folder / name
        with self.lock("files"):
            if not path.exists() or path.stat().st_size != 8 * count:
                write_whole(path, bytes(8 * count), self.folder)
        return np.memmap(path, np.uint64, "r+", shape=(count,))

    def done(self) -> int:
        """How many images lie there already."""
        return int(np.count_nonzero(self._words()))

    def _words(self) -> np.ndarray:
        """As they are now; none where nothing was begun."""
        path = self.folder / "rows"
        return np.fromfile(path, np.uint64) if path.exists() else np.zeros(0, np.uint64)

    def rows(self, shape: tuple[int, ...], dtype: type = np.uint8) -> Rows:
        """The array [N, ...] before anything is left out. To be called under a lock."""
        return Rows(self.whole / self.array, shape, dtype)

    def skip(self, position: int, reason: str) -> int:
        """Take note of why an image is skipped; returns its word."""
        with self._reasons.open("ab", buffering=0) as file:  # the line in front may have been cut short
            file.write(b"\n" + json.dumps([position, reason]).encode())
        return word(DONE | SKIPPED, json.dumps(reason).encode())

    def skipped(self, words: np.ndarray) -> dict[int, str]:
        """Position and reason of what was skipped, in order. A word whose reason was lost is 0 again."""
        reasons = {}
        with suppress(FileNotFoundError):
            for line in self._reasons.read_bytes().split(b"\n"):
                with suppress(ValueError):
                    position, reason = json.loads(line)
                    reasons[position] = reason
        positions = np.flatnonzero(words & SKIPPED).tolist()
        for position in positions:
            if words[position] != word(DONE | SKIPPED, json.dumps(reasons.get(position)).encode()):
                words[position] = 0
        return {position: reasons[position] for position in positions if words[position]}

    def seal(self, words: np.ndarray, rows: Rows, skipped: dict[int, str]) -> str | None:
        """The sha256 of the array without the skipped rows; that shorter file is written where there are any.

        None where a row does not fit its word, after a power cut say: the word is 0 again.
        """
        header = npy_header((len(words) - len(skipped), *rows.shape[1:]), rows.dtype)
        digest = hashlib.sha256(header)
        with self._shorter.open("wb") if skipped else nullcontext() as shorter:
            if shorter:
                shorter.write(header)
            for start, block in rows.read():
                kept = []
                for position, row in enumerate(block, start):
                    if position not in skipped:
                        kept.append(row)
                        if int(words[position]) >> 32 != crc32(row):
                            words[position] = 0
                digest.update(content := b"".join(kept))
                if shorter:
                    shorter.write(content)
        return digest.hexdigest() if words.all() else None

    def finish(self, meta: dict[str, Any], beside: Mapping[str, bytes]) -> None:
        """Make whole/ whole: with the files `beside` the array and with meta.json, or with the shorter array that fits
        to it, which comes last."""
        array, shorter = self.whole / self.array, bool(meta.get("skipped"))
        with (self._shorter if shorter else array).open("r+b") as file:
            sync(file)
        for name, content in beside.items():
            write_whole(self.whole / name, content, self.folder, lasting=True)
        write_whole(self.whole / "meta.json", json.dumps(meta, indent=1).encode(), self.folder, lasting=True)
        if shorter:
            os.replace(self._shorter, array)

    def publish(self) -> Whole:
        """Move whole/ to its place, unless a good one is there already, and clear up."""
        if (whole := self.opened(self.path)) is None:
            with suppress(FileNotFoundError):  # a damaged one stands in the way
                os.rename(self.path, self.folder / uuid4().hex)
            os.rename(self.whole, self.path)
            whole = self.opened(self.path)
        if whole is None:
            raise OSError(f"{self.path} was damaged while it was written; run the same command again")
        shutil.rmtree(self.folder, ignore_errors=True)
        _remove_stale(self.path.parent)
        return whole

    def drop(self) -> None:
        """Remove what was made, unless another process is at it."""
        _remove_if_idle(self.folder)


def word(bits: int, content: bytes) -> int:
    """What stands for an image that is done."""
    return crc32(content) << 32 | bits


def _remove_stale(parent: Path) -> None:
    """Drop what was begun long ago and never taken up again."""
    for folder in parent.glob(TEMPORARY + "*"):
        with suppress(FileNotFoundError):  # its owner has just finished
            if time.time() - folder.stat().st_mtime > _STALE_SECONDS:
                _remove_if_idle(folder)


def _remove_if_idle(folder: Path) -> None:
    with ExitStack() as held:
        for path in folder.glob("*.lock"):
            lock = claim(path)
            if lock is None:
                return
            held.callback(lock.release)
        with suppress(OSError):  # all at once, where the system lets us: who comes now begins anew
            folder = folder.rename(folder.with_name(f"{TEMPORARY}{uuid4().hex}"))
        shutil.rmtree(folder, ignore_errors=True)
