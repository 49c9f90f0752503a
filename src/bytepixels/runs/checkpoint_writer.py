"""Write checkpoints in the background: training waits for the copy to host memory, not for the disk."""

import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from .. import events
from .checkpoints import Tensors, save_checkpoint


class Writer:
    """Writes checkpoints in a thread: with Writer(folder, run, keep) as writer: writer.submit(step, images, tensors).

    One checkpoint at a time is under way. Leaving the block waits for it, whatever ends the training, except a second
    Ctrl-C: that one is given up (the one before it is whole). The thread draws nothing and computes nothing that
    training reads, and it is a daemon: it keeps no process alive.
    """

    def __init__(self, folder: Path, run: str, keep: int):
        self.folder, self.run, self.keep = folder, run, keep
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._host: dict[str, dict[str, Tensor]] = {}  # written to again and again: fresh memory is slow to come by

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, KeyboardInterrupt):
            return
        try:
            self.finish()
        except OSError as later:
            if error is None:
                raise
            events.note(f"warning: {later}")  # beside what ends the training anyway

    def submit(self, step: int, images: int, tensors: Tensors) -> None:
        """Copy the tensors and return; they are written in the background. Waits for the previous checkpoint and raises
        its error."""
        self.finish()
        self._host = {stem: _copy_to_host(named, self._host.get(stem, {})) for stem, named in tensors.items()}
        self._thread = threading.Thread(target=self._write, args=(step, images), name="checkpoint", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Wait for the checkpoint in progress and raise its error."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def check(self) -> None:
        """Raise the error of a failed checkpoint, once, without waiting."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _write(self, step: int, images: int) -> None:
        try:
            save_checkpoint(self.folder, self.run, step, images, self._host, self.keep)
        except BaseException as error:
            self._error = error


def _copy_to_host(named: Mapping[str, Tensor], host: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copy the tensors to host memory with their layout, so that each copy is one pass; `host` is reused."""
    copies = {}
    for name, tensor in named.items():
        copy = host.get(name)
        if copy is None or (copy.shape, copy.dtype) != (tensor.shape, tensor.dtype):
            copy = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda, requires_grad=False)
        copies[name] = copy.copy_(tensor.detach())
    return copies
