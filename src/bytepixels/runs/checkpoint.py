"""Checkpoints: a directory of safetensors files and state.json, complete or absent, with a checksum for every file.

checkpoints/step-00001200/{model,ema,optimizer}.safetensors, state.json
"""

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from ..errors import InputError
from .files import (
    TEMPORARY,
    DamagedError,
    flush,
    leftovers,
    read_sealed,
    reason,
    remove,
    remove_folder,
    sha256,
    write_sealed,
)

FORMAT = 1
STEMS = ("model", "ema", "optimizer")
PRUNED = "without"  # in state.json: the stems that were removed on purpose
Tensors = Mapping[str, Mapping[str, Tensor]]  # file stem -> name -> tensor


def save_checkpoint(folder: Path, run: str | None, step: int, images: int, tensors: Tensors, keep: int) -> Path:
    """Write checkpoint `step` of the run with id `run` under a temporary name, rename it, and remove all but the last
    `keep`. Raises OSError, in one sentence, when the disk is full or cannot be written: nothing else has changed then.
    """
    final = folder / f"step-{step:08d}"
    temporary = folder / f"{TEMPORARY}{final.name}"
    try:
        for stale in leftovers(folder):  # of a process that was killed in the middle of a save
            remove(stale)
        temporary.mkdir(parents=True)
        _write(temporary, {"format": FORMAT, "run": run, "step": step, "images": images}, tensors)
        if final.exists():  # a damaged one of the same step, or the same one again
            discard(final, run)
        os.replace(temporary, final)
        flush(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise OSError(f"{final} could not be written ({getattr(error, 'strerror', None) or error})") from error
    known = list_checkpoints(folder)
    kept = [path for path in known if path.name <= final.name][-keep:]  # a later one was damaged, or we were there
    for path in known:
        if path not in kept:
            discard(path, run)
    return final


def _write(folder: Path, state: dict[str, Any], tensors: Tensors) -> None:
    """All files of one checkpoint, flushed to the disk."""
    for stem, named in tensors.items():
        save_file({name: t.detach().cpu().contiguous() for name, t in named.items()}, folder / f"{stem}.safetensors")
    files = sorted(folder.iterdir())
    for path in files:
        flush(path)
    write_sealed(folder / "state.json", state | {"sha256": {path.name: sha256(path) for path in files}})


def discard(checkpoint: Path, run: str | None) -> None:
    """Remove a checkpoint of the run with id `run`. One of another run is not ours to remove: it gets another name."""
    if is_foreign(checkpoint, run):
        os.replace(checkpoint, checkpoint.with_name(f"other-run-{checkpoint.name}-{uuid4().hex[:8]}"))
    else:
        remove_folder(checkpoint)


def is_foreign(checkpoint: Path, run: str | None) -> bool:
    """Whether another run than the one with id `run` wrote it."""
    try:
        return read_sealed(checkpoint / "state.json", sealed_if="run").get("run") != run
    except (OSError, ValueError):
        return False


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints in a run's folder, oldest first."""
    return sorted(p for p in folder.glob("step-*") if p.is_dir())


def read_state(checkpoint: Path, run: str | None) -> dict[str, Any]:
    """state.json of one checkpoint of the run with id `run`; the other files are not looked at.

    Raises DamagedError when it is missing, changed, of another run or of another step than its folder's name says,
    InputError for a format that this version does not read.
    """
    try:
        state = read_sealed(checkpoint / "state.json", sealed_if="run")
        if state["format"] != FORMAT:
            raise InputError(f"{checkpoint} has checkpoint format {state['format']}, this version reads {FORMAT}")
        own, name = state.get("run"), f"step-{state['step']:08d}"
        f"{state['images']:d}", {**state["sha256"]}
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{checkpoint} is incomplete or damaged: state.json: {reason(error)}") from error
    if own != run:
        raise DamagedError(f"{checkpoint} is of another run (its id is {own or 'missing'}, this run's {run})")
    if name != checkpoint.name:
        raise DamagedError(f"{checkpoint} is {name} under another name")
    return state


def check_files(checkpoint: Path, state: Mapping[str, Any]) -> None:
    """Raise DamagedError unless all files are what state.json says."""
    for stem in STEMS:
        name = f"{stem}.safetensors"
        if stem in state.get(PRUNED, ()):
            continue
        try:
            _compare(checkpoint, name, sha256(checkpoint / name), state)
        except OSError as error:
            raise DamagedError(f"{checkpoint} is incomplete or damaged: {name}: {reason(error)}") from error


def read_tensors(checkpoint: Path, stem: str, state: Mapping[str, Any]) -> dict[str, Tensor]:
    """One file of a checkpoint, "model", "ema" or "optimizer": the very bytes whose sum state.json holds.

    Raises DamagedError when they are not there, InputError when they were pruned.
    """
    name = f"{stem}.safetensors"
    if stem in state.get(PRUNED, ()):
        raise InputError(f"{checkpoint} has no {stem} since it was pruned: draw from it, but it cannot be trained on")
    try:
        content = (checkpoint / name).read_bytes()
        _compare(checkpoint, name, hashlib.sha256(content).hexdigest(), state)
        return load(content)
    except (OSError, SafetensorError) as error:
        raise DamagedError(f"{checkpoint} is incomplete or damaged: {name}: {reason(error)}") from error


def check_fit(checkpoint: Path, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Raise DamagedError unless a file of a checkpoint holds tensors of the wanted names and shapes."""
    if {name: t.shape for name, t in found.items()} != {name: t.shape for name, t in wanted.items()}:
        raise DamagedError(f"{checkpoint} is of another network than the run's config.json")


def drop_optimizer(checkpoint: Path, state: Mapping[str, Any]) -> None:
    """Remove what only further training needs; state.json says first that it was meant."""
    name = "optimizer.safetensors"
    sums = {file: found for file, found in state["sha256"].items() if file != name}
    write_sealed(checkpoint / "state.json", {**state, "sha256": sums, PRUNED: ["optimizer"]})
    (checkpoint / name).unlink()


def _compare(checkpoint: Path, name: str, found: str, state: Mapping[str, Any]) -> None:
    if state["sha256"].get(name) != found:
        raise DamagedError(f"{checkpoint / name} is damaged: its checksum differs from the one in state.json")
