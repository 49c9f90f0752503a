"""Atomic file writes, and checksums that detect a changed byte."""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import InputError

TEMPORARY = ".tmp-"  # in front of what is being written or removed; the rest of a process that was killed
SEAL = "seal"


class DamagedError(InputError):
    """A run or checkpoint differs from what was written. (One of a later version is intact: a plain InputError.)"""


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON, atomically."""
    write_whole(path, json.dumps(finite(value), indent=2, allow_nan=False) + "\n")


def one_line(value: Any) -> str:
    """`value` as a line of a .jsonl file."""
    return json.dumps(finite(value), allow_nan=False) + "\n"


def finite(value: Any) -> Any:
    """`value` with null in place of NaN and infinities, which JSON lacks."""
    if isinstance(value, Mapping):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_sealed(path: Path, values: dict[str, Any]) -> None:
    """Write JSON with one more key, the seal: the sha256 of all others."""
    values = finite(values)
    write_json(path, values | {SEAL: _digest(values)})


def read_sealed(path: Path) -> dict[str, Any]:
    """Read a sealed JSON file. OSError or ValueError if it is not what was written."""
    values = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise ValueError("it is no JSON object")
    if SEAL not in values:
        raise ValueError(f"it has no {SEAL} (runs of early versions, which had none, are not read)")
    if values.pop(SEAL) != _digest(values):
        raise ValueError("its content differs from what was written")
    return values


def _digest(values: dict[str, Any]) -> str:
    """sha256 of the values, whatever the order of their keys and the spaces between them."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file under a temporary name, flush it to the disk, then rename it. Text is written as UTF-8."""
    temporary = path.with_name(f"{TEMPORARY}{path.name}-{os.getpid()}")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        flush(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    flush(path.parent)


def remove_folder(path: Path) -> None:
    """Remove a folder atomically, by renaming it first."""
    aside = path.with_name(f"{TEMPORARY}removed-{path.name}")
    if aside.exists():  # of a process that was killed here
        shutil.rmtree(aside)
    os.replace(path, aside)
    shutil.rmtree(aside)


def leftovers(folder: Path) -> list[Path]:
    """Temporary files and folders that a killed process left behind."""
    return sorted(folder.glob(f"{TEMPORARY}*"))


def remove(path: Path) -> None:
    """Remove a file or a folder."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def reason(error: Exception) -> str:
    """Describe an error of a file in few words."""
    if isinstance(error, FileNotFoundError):
        return "it is missing"
    if isinstance(error, KeyError):
        return f"it has no {error}"
    return getattr(error, "strerror", None) or str(error) or repr(error)


def sha256(path: Path) -> str:
    """The checksum of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush(path: Path) -> None:
    """Flush a file, or a folder's list of files, to the disk (fsync)."""
    if os.name == "nt":  # where a folder cannot be opened, and the system flushes in its own time
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
