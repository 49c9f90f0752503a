"""Checkpoints: a directory of safetensors files and state.json, complete or absent, with a checksum for every file.

checkpoints/step-00001200/{model,ema,optimizer}.safetensors, state.json
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..errors import InputError
from .directory import write_json

FORMAT = 1
STEMS = ("model", "ema", "optimizer")
Tensors = Mapping[str, Mapping[str, Tensor]]  # file stem -> name -> tensor


class DamagedError(InputError):
    """A checkpoint that is not what was written. (One of a later version is whole: that is another InputError.)"""


def save_checkpoint(folder: Path, step: int, images: int, tensors: Tensors, keep: int) -> Path:
    """Write checkpoint `step` under a temporary name, rename it, and remove all but the last `keep`."""
    final, temporary = folder / f"step-{step:08d}", folder / f".tmp-{step:08d}"
    for stale in folder.glob(".tmp-*"):  # of a process that was killed in the middle of a save
        shutil.rmtree(stale)
    temporary.mkdir(parents=True)
    try:
        _write(temporary, step, images, tensors)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, SafetensorError):  # a full disk
            raise OSError(f"{final} could not be written: {error}") from error
        raise
    if final.exists():  # a damaged one of the same step, or the same one again
        shutil.rmtree(final)
    os.replace(temporary, final)
    _flush(folder)
    known = list_checkpoints(folder)
    kept = [path for path in known if path.name <= final.name][-keep:]  # a later one was damaged, or we were there
    for path in known:
        if path not in kept:
            shutil.rmtree(path)
    return final


def _write(folder: Path, step: int, images: int, tensors: Tensors) -> None:
    """All files of one checkpoint, flushed to the disk."""
    for stem, named in tensors.items():
        save_file({name: t.detach().cpu().contiguous() for name, t in named.items()}, folder / f"{stem}.safetensors")
    checksums = {f.name: _sha256(f) for f in sorted(folder.iterdir())}
    write_json(folder / "state.json", {"format": FORMAT, "step": step, "images": images, "sha256": checksums})
    for path in [*folder.iterdir(), folder]:
        _flush(path)


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints in a run's folder, oldest first."""
    return sorted(p for p in folder.glob("step-*") if p.is_dir())


def read_state(checkpoint: Path) -> dict[str, Any]:
    """state.json of one checkpoint, with every file's checksum verified.

    Raises DamagedError when anything is missing or changed, InputError for a format that this version does not read.
    """
    try:
        state = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
        wanted, found = state["format"], {name: state["sha256"][name] for name in map("{}.safetensors".format, STEMS)}
        sums = {name: _sha256(checkpoint / name) for name in found} if wanted == FORMAT else found
        int(state["step"]), int(state["images"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"{checkpoint} is incomplete or damaged: {error!r}") from error
    if wanted != FORMAT:
        raise InputError(f"{checkpoint} has checkpoint format {wanted}, this version reads {FORMAT}")
    for name in found:
        if sums[name] != found[name]:
            raise DamagedError(f"{checkpoint / name} is damaged: its checksum differs from the one in state.json")
    return state


def read_tensors(checkpoint: Path, stem: str) -> dict[str, Tensor]:
    """One file of a checkpoint: "model", "ema" or "optimizer"."""
    try:
        return load_file(checkpoint / f"{stem}.safetensors")
    except (OSError, SafetensorError) as error:
        raise DamagedError(f"{checkpoint / stem}.safetensors is damaged: {error}") from error


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    """Make sure that a file, or the list of a folder's files, is on the disk."""
    if os.name == "nt":  # where a folder cannot be opened, and the system flushes in its own time
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
