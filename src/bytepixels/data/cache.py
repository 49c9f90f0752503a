"""The cache on disk: its entries by kind and last use, and its size limit."""

import os
import re
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ..choices import CACHE_LIMIT, CACHED
from ..errors import InputError

TEMPORARY = ".packing-"  # in front of what is in the making
UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
RECENT = 3600.0  # seconds: what was written since may be in the making
STALE = 7 * 24 * 3600.0  # seconds after which nobody will take it up again


class Entry(NamedTuple):
    """One entry of the cache: a pack, a set of latents, or the like."""

    kind: str
    path: Path
    size: int  # bytes
    used: float  # seconds since 1970


def entries(root: Path) -> list[Entry]:
    """List all entries of the cache at `root`, the least recently used first."""
    return sorted((_entry(kind, path) for kind in CACHED for path in (root / kind).glob("*")), key=lambda one: one.used)


def make_folder(path: Path) -> None:
    """Make a folder of the cache if it does not exist. InputError where that fails."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"the cache {path.parent} cannot be written ({error.strerror}); BYTEPIXELS_CACHE=FOLDER takes another"
        ) from error


def mark_used(path: Path) -> None:
    """Note that an entry was used just now."""
    with suppress(OSError):
        os.utime(path)


def remove(found: Iterable[Entry]) -> int:
    """Remove entries and return how many bytes that freed. Entries that another process is writing stay.

    Programs that have a removed file open go on with it on Linux and macOS; on Windows the file stays.
    """
    freed = 0
    for one in found:
        if one.path.name.startswith(TEMPORARY) and time.time() - one.used < RECENT:
            continue
        with suppress(OSError):
            shutil.rmtree(one.path) if one.path.is_dir() else one.path.unlink()
            freed += one.size
    return freed


def remove_stale(folder: Path) -> None:
    """Remove unfinished entries in `folder` that nobody resumed for a week."""
    drafts = [_entry("", path) for path in folder.glob(f"{TEMPORARY}*")]
    remove(one for one in drafts if time.time() - one.used > STALE)


def limit() -> int | None:
    """The cache's limit in bytes, from $BYTEPIXELS_CACHE_LIMIT; None if it is not set."""
    text = os.environ.get(CACHE_LIMIT, "").strip().lower()
    if not text:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kmgt]?)i?b?", text)
    if found is None:
        raise InputError(f"{CACHE_LIMIT} must be a size such as 5GB or 500MB, got {text!r}")
    return int(float(found[1]) * UNITS[found[2]])


def keep_within_limit(root: Path, kept: Path) -> None:
    """Remove the least recently used entries until the cache is within its limit; `kept` stays."""
    most = limit()
    if most is None:
        return
    found = entries(root)
    over = sum(one.size for one in found) - most
    for one in found:
        if over > 0 and one.path != kept:
            over -= remove([one])


def _entry(kind: str, path: Path) -> Entry:
    size, used = 0, 0.0
    for file in [path, *(path.rglob("*") if path.is_dir() else ())]:
        with suppress(OSError):  # removed meanwhile
            found = file.stat()
            size += 0 if file.is_dir() else found.st_size
            used = max(used, found.st_mtime)
    return Entry(kind, path, size, used)
