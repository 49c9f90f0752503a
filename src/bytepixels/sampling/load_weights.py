"""Load the weights of a run's checkpoint into a network."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from .. import events
from ..errors import InputError, check_choice
from ..files import DamagedError
from ..runs.checkpoints import check_files, check_fit, identity, list_checkpoints, read_state, read_tensors
from ..runs.run_directory import Run, open_run

Found = TypeVar("Found")


def open_model(path: Path) -> Run:
    """Open the run at `path`; InputError if it draws no images."""
    run = open_run(path)
    if run.config.autoencoder is not None:
        then = f"bytepixels train SOURCE --autoencoder {path} trains a model that does"
        raise InputError(f"{path} is an autoencoder, which draws no images; {then}")
    return run


def find_checkpoint(run: Run, name: str | None, flag: str = "--checkpoint") -> Path:
    """The named checkpoint, or the newest intact one."""
    return read_checkpoint(run, name, check_files, flag)[0]


def load_checkpoint(network: nn.Module, run: Run, name: str | None, weights: str, flag: str = "--checkpoint") -> Path:
    """Load the "ema" or "model" weights of the named checkpoint, or of the newest intact one, into a network with the
    run's settings. Returns that checkpoint; a training in progress may prune it at any time."""

    def read(path: Path, state: dict[str, Any]) -> dict[str, Tensor]:
        before, tensors = identity(path), read_tensors(path, weights, state)
        try:
            check_files(path, state)
        except DamagedError:
            if identity(path) == before:
                raise  # else the rest was removed on purpose, and what was read is whole
        return tensors

    checkpoint, tensors = read_checkpoint(run, name, read, flag)
    _put(tensors, network, checkpoint, weights)
    return checkpoint


def read_checkpoint(
    run: Run, name: str | None, read: Callable[[Path, dict[str, Any]], Found], flag: str = "--checkpoint"
) -> tuple[Path, Found]:
    """Apply `read(path, state)` to the named checkpoint, or to the newest intact one.

    `read` raises DamagedError for one that is not whole: an older one is tried, and that is said. One that is removed
    or replaced while it is read is not damaged: the newest that is there by then is read instead.
    """
    while known := list_checkpoints(run.checkpoints) or list_checkpoints(run.checkpoints):  # one may just get its name
        if name is not None:
            known = [run.checkpoints / check_choice(flag, name, [path.name for path in known])]
        for path in reversed(known):
            before = identity(path)
            try:
                return path, read(path, read_state(path, run.id))
            except DamagedError as error:
                if identity(path) != before or before is None:
                    break
                if name is not None:
                    raise
                events.note(f"warning: {error}; looking for an older one")
        else:
            raise InputError(f"none of the {len(known)} checkpoints in {run.checkpoints} is intact")
    raise InputError(f"{run.path} has no checkpoint yet; train it further first")


def _put(tensors: dict[str, Tensor], network: nn.Module, checkpoint: Path, weights: str) -> None:
    """Load weights into a network; an error if they belong to another network or are not finite."""
    check_fit(checkpoint, tensors, network.state_dict())
    network.load_state_dict(tensors)
    if not all(bool(weight.isfinite().all()) for weight in network.parameters()):
        raise InputError(f"{checkpoint} holds {weights} weights that are not finite: its training went wrong")
