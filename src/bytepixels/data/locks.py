"""What processes share: folders, files that are whole, and locks that the system takes back from a killed process."""

import os
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from filelock import FileLock, Timeout

from ..errors import InputError

PAUSE = 0.1  # seconds between two looks at what other processes have done


def make_folder(path: Path) -> None:
    """Make a folder of the cache, unless it is there. Raises InputError where that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"the cache {path.parent} cannot be written ({error.strerror}); BYTEPIXELS_CACHE=FOLDER takes another"
        ) from error


def claim(path: Path) -> FileLock | None:
    """The lock at `path`, held; None where another process holds it, or has just removed its folder."""
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except (Timeout, FileNotFoundError):
        return None
    return lock


def write_whole(path: Path, content: bytes, workshop: Path, lasting: bool = False) -> None:
    """Write a file that is there completely or not at all; what a killed process leaves lies in the workshop.

    lasting: also after a power cut, which takes a moment.
    """
    part = workshop / f"{uuid4().hex}.part"
    with part.open("wb") as file:
        file.write(content)
        if lasting:
            sync(file)
    os.replace(part, path)


def sync(file: BinaryIO) -> None:
    """Onto the disk."""
    file.flush()
    os.fsync(file.fileno())
