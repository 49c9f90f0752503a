"""Checkpoints: a folder of safetensors files and state.json, complete or absent, with a checksum per file.

checkpoints/step-00001200/{model,ema,optimizer}.safetensors, state.json; with --shard folders of shards (`shards.py`).
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from ..errors import InputError
from ..files import (
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
from . import sharded_tensors as shards

FORMAT, SHARDED = 1, 2  # one file for each stem, or a folder of shards
Stems = tuple[str, ...]
STEMS: Stems = ("model", "ema", "optimizer")
PRUNED = "without"  # in state.json: the stems that were removed on purpose
Tensors = Mapping[str, Mapping[str, Tensor]]  # file stem -> name -> tensor
Check = Callable[[Path, str, Mapping[str, Any]], None]  # (checkpoint, name of a file, state.json)


def save_checkpoint(folder: Path, run: str, step: int, images: int, tensors: Tensors, keep: int) -> Path:
    """Write checkpoint `step` of the run with id `run` atomically, and remove all but the last `keep`. Raises OSError,
    in one sentence, when the disk is full or cannot be written: nothing else has changed then.
    """
    final = folder / f"step-{step:08d}"
    with complete_or_absent(final) as temporary:
        clear(temporary)
        for stem, named in tensors.items():
            dense = {name: t.detach().cpu().contiguous() for name, t in named.items()}
            save_file(dense, temporary / f"{stem}.safetensors")
        files = sorted(temporary.iterdir())
        for path in files:
            flush(path)
        sums = {path.name: sha256(path) for path in files}
        state = {"format": FORMAT, "run": run, "step": step, "images": images, "sha256": sums}
        without = [stem for stem in STEMS if stem not in tensors]
        publish(temporary, final, state | ({PRUNED: without} if without else {}))
    keep_last(final, run, keep)
    return final


@contextmanager
def complete_or_absent(final: Path) -> Iterator[Path]:
    """Yield the temporary folder of a checkpoint; an error removes it, and an OSError is restated in one sentence."""
    temporary = final.with_name(f"{TEMPORARY}{final.name}")
    try:
        yield temporary
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise OSError(f"{final} could not be written ({getattr(error, 'strerror', None) or error})") from error


def clear(temporary: Path) -> None:
    """Make an empty temporary folder, and remove those of killed processes."""
    for stale in leftovers(temporary.parent):
        remove(stale)
    temporary.mkdir(parents=True)


def publish(temporary: Path, final: Path, state: dict[str, Any]) -> None:
    """Write state.json, the last file of a checkpoint, and rename its folder to the final name."""
    write_sealed(temporary / "state.json", state)
    if final.exists():  # a damaged one of the same step, or the same one again
        discard(final, state["run"])
    os.replace(temporary, final)
    flush(final.parent)


def keep_last(final: Path, run: str, keep: int) -> None:
    """Remove all checkpoints but the last `keep` up to the one just written."""
    known = list_checkpoints(final.parent)
    kept = [path for path in known if path.name <= final.name][-keep:]  # a later one was damaged, or we were there
    for path in known:
        if path not in kept:
            discard(path, run)


def discard(checkpoint: Path, run: str) -> None:
    """Remove a checkpoint of the run with id `run`; one of another run is renamed instead."""
    if is_foreign(checkpoint, run):
        os.replace(checkpoint, checkpoint.with_name(f"other-run-{checkpoint.name}-{uuid4().hex[:8]}"))
    else:
        remove_folder(checkpoint)


def is_foreign(checkpoint: Path, run: str) -> bool:
    """True if another run than the one with id `run` wrote it."""
    try:
        return read_sealed(checkpoint / "state.json").get("run") != run
    except (OSError, ValueError):
        return False


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints in a run's folder, oldest first."""
    return sorted(p for p in folder.glob("step-*") if p.is_dir())


def identity(checkpoint: Path) -> tuple[int, ...] | None:
    """A key that changes when a checkpoint is removed, pruned or replaced, as its training may do; None if gone."""
    found = []
    for name in (".", "state.json"):
        with suppress(FileNotFoundError, NotADirectoryError):
            one = (checkpoint / name).stat()
            found += [one.st_ino, one.st_mtime_ns]
    return tuple(found) or None


def read_state(checkpoint: Path, run: str) -> dict[str, Any]:
    """Read state.json of one checkpoint of the run with id `run`; the other files are not checked.

    Raises DamagedError when it is missing, changed, of another run or of another step than its folder's name says,
    InputError for a format that this version does not read.
    """
    try:
        state = read_sealed(checkpoint / "state.json")
        if state["format"] not in (FORMAT, SHARDED):
            reads = f"{FORMAT} and {SHARDED}"
            raise InputError(f"{checkpoint} has checkpoint format {state['format']}, this version reads {reads}")
        own, name = state["run"], f"step-{state['step']:08d}"
        f"{state['images']:d}", {**state["sha256"]}
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{checkpoint} is incomplete or damaged: state.json: {reason(error)}") from error
    if own != run:
        raise DamagedError(f"{checkpoint} is of another run (its id is {own}, this run's {run})")
    if name != checkpoint.name:
        raise DamagedError(f"{checkpoint} is {name} under another name")
    return state


def check_file(checkpoint: Path, name: str, state: Mapping[str, Any]) -> None:
    """Raise DamagedError unless one file has the checksum that state.json holds, OSError where it cannot be read."""
    _check_sum(checkpoint, name, sha256(checkpoint / name), state)


def check_files(checkpoint: Path, state: Mapping[str, Any], check: Check = check_file, stems: Stems = STEMS) -> None:
    """Raise DamagedError unless `check` passes every file of these stems that was not pruned."""
    for stem in stems:
        for name in files_of(checkpoint, stem, state) if stem not in state.get(PRUNED, ()) else ():
            with complete(checkpoint, name):
                check(checkpoint, name, state)


@contextmanager
def complete(checkpoint: Path, name: str) -> Iterator[None]:
    """Turn whatever goes wrong as one file is read into a DamagedError that names it."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:  # torch's own where it is removed while it is opened
        raise DamagedError(f"{checkpoint} is incomplete or damaged: {name}: {reason(error)}") from error


def files_of(checkpoint: Path, stem: str, state: Mapping[str, Any]) -> list[str]:
    """The file names of one stem, relative to the checkpoint's folder.

    Of shards those that state.json holds the sums of; DamagedError when there are none, or others beside them.
    """
    if state["format"] == FORMAT:
        return [f"{stem}.safetensors"]
    names = sorted(name for name in state["sha256"] if name.startswith(f"{stem}/"))
    if not names:
        raise DamagedError(f"{checkpoint} is damaged: state.json has no {stem}")
    if more := sorted({f"{stem}/{path.name}" for path in (checkpoint / stem).glob("*")} - set(names)):
        raise DamagedError(f"{checkpoint} is damaged: {more[0]} is not one of its files")
    return names


def read_tensors(checkpoint: Path, stem: str, state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Read one stem of a checkpoint, "model", "ema" or "optimizer", verified by its checksum.

    Shards are put together. Raises DamagedError when they are not there, InputError when they were pruned.
    """
    name = f"{stem}.safetensors"
    if stem in state.get(PRUNED, ()):
        raise InputError(f"{checkpoint} has no {stem} since it was pruned: draw from it, but it cannot be trained on")
    with complete(checkpoint, name):
        if state["format"] == SHARDED:
            check_files(checkpoint, state, stems=(stem,))
            return shards.read_whole(checkpoint / stem)
        content = (checkpoint / name).read_bytes()
        _check_sum(checkpoint, name, hashlib.sha256(content).hexdigest(), state)
        return load(content)


def check_fit(checkpoint: Path, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Raise DamagedError unless a checkpoint's file holds tensors of the expected names and shapes."""
    if {name: t.shape for name, t in found.items()} != {name: t.shape for name, t in wanted.items()}:
        raise DamagedError(f"{checkpoint} is of another network than the run's config.json")


def drop_optimizer(checkpoint: Path, state: Mapping[str, Any]) -> None:
    """Remove the optimizer's state, which only training needs; state.json records that first."""
    sums = {file: found for file, found in state["sha256"].items() if not file.startswith("optimizer")}
    write_sealed(checkpoint / "state.json", {**state, "sha256": sums, PRUNED: ["optimizer"]})
    remove(optimizer_of(checkpoint))


def optimizer_of(checkpoint: Path) -> Path:
    """The file, or the folder of shards, of the optimizer's state."""
    folder = checkpoint / "optimizer"
    return folder if folder.is_dir() else checkpoint / "optimizer.safetensors"


def _check_sum(checkpoint: Path, name: str, found: str, state: Mapping[str, Any]) -> None:
    if state["sha256"].get(name) != found:
        raise DamagedError(f"{checkpoint / name} is damaged: its checksum differs from the one in state.json")
