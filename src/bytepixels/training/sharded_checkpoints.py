"""Checkpoints of a sharded training: every rank writes and reads its part.

They are the run's checkpoints like any other, complete or absent, and any number of processes goes on from them.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..distributed.process_group import ProcessGroup
from ..files import sha256
from ..runs import sharded_tensors as shards
from ..runs.checkpoint_writer import Writer
from ..runs.checkpoints import (
    FORMAT,
    SHARDED,
    Tensors,
    check_files,
    check_fit,
    clear,
    complete_or_absent,
    keep_last,
    publish,
    read_state,
)
from .loop import TrainState


class ShardWriter(Writer):
    """The Writer of all processes of a sharded training, which waits until everything is on the disk.

    (A copy in the host's memory, to be written meanwhile, would be as large again as what the device holds.)
    """

    def __init__(self, world: ProcessGroup, folder: Path, run: str, keep: int):
        shards.library()  # what is missing is said before training begins
        super().__init__(folder, run, keep)
        self.world = world

    def submit(self, step: int, images: int, tensors: Tensors) -> None:
        """Write a checkpoint; a collective call. An OSError of one rank is raised on all, and no checkpoint is left."""
        final = self.folder / f"step-{step:08d}"
        with complete_or_absent(final) as temporary:
            self._lead(lambda: clear(temporary))
            for stem, named in tensors.items():
                shards.write_shards(temporary / stem, named)
            sums = self._sums(temporary)
            state = {"format": SHARDED, "run": self.run, "step": step, "images": images, "sha256": sums}
            self._lead(lambda: publish(temporary, final, state))
        self._lead(lambda: keep_last(final, self.run, self.keep))

    def _lead(self, work: Any) -> None:
        """Run something on rank 0 while the others wait."""
        self.world.run_everywhere(work if self.world.rank == 0 else lambda: None)

    def _sums(self, folder: Path) -> dict[str, str]:
        """The sha256 of every file, computed in about equal shares by the ranks, after all have written."""
        files = self.world.broadcast_from_rank0(
            lambda: sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.*"))
        )
        own = files[self.world.local_rows(len(files))]
        sums = self.world.run_everywhere(lambda: [list(bytes.fromhex(sha256(folder / name))) for name in own])
        every = self.world.gather(torch.tensor(sums, dtype=torch.uint8).reshape(-1, 32), len(files))
        return {name: bytes(one).hex() for name, one in zip(files, every.tolist(), strict=True)}


def find_parts(checkpoint: Path, run: str, state: TrainState) -> None:
    """Check on rank 0 that a checkpoint is intact and fits, before all ranks load their parts. Sets state.step.

    Raises DamagedError otherwise.
    """
    saved = read_state(checkpoint, run)
    check_files(checkpoint, saved)
    for stem, named in state.tensors().items():
        check_fit(checkpoint, _headers(checkpoint, stem, saved), named)
    state.step = saved["step"]


def take_parts(checkpoints: Path, run: str, state: TrainState, step: int | None) -> None:
    """Load this rank's part of the checkpoint of `step`, whoever wrote it; nothing if that is None."""
    if step is None:
        return
    checkpoint = checkpoints / f"step-{step:08d}"
    saved = read_state(checkpoint, run)
    for stem, named in state.tensors().items():
        if saved["format"] == FORMAT:
            shards.read_part_of_file(checkpoint / f"{stem}.safetensors", named)
        else:
            shards.read_part(checkpoint / stem, named)
    state.step = step


def _headers(checkpoint: Path, stem: str, saved: dict[str, Any]) -> dict[str, Tensor]:
    """Names and shapes of one stem."""
    if saved["format"] == FORMAT:
        return shards.file_headers(checkpoint / f"{stem}.safetensors")
    return shards.headers(checkpoint / stem)
