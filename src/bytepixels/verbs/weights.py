"""The weights of a run: which checkpoint, and into a network."""

import sys
from pathlib import Path

from torch import nn

from ..errors import InputError, check_choice
from ..runs.checkpoint import check_files, check_fit, list_checkpoints, read_state, read_tensors
from ..runs.directory import Run, open_run
from ..runs.files import DamagedError


def open_model(path: Path) -> Run:
    """The run at `path`; InputError where it draws no pictures."""
    run = open_run(path)
    if run.config.autoencoder is not None:
        then = f"bytepixels train SOURCE --autoencoder {path} trains a model that does"
        raise InputError(f"{path} is an autoencoder, which draws no pictures; {then}")
    return run


def find_checkpoint(run: Run, name: str | None, flag: str = "--checkpoint") -> Path:
    """The named checkpoint, or the newest one that is whole."""
    known = list_checkpoints(run.checkpoints)
    if not known:
        raise InputError(f"{run.path} has no checkpoint yet: let it train for longer")
    if name is not None:
        path = run.checkpoints / check_choice(flag, name, [p.name for p in known])
        check_files(path, read_state(path, run.id))
        return path
    for path in reversed(known):
        try:
            check_files(path, read_state(path, run.id))
            return path
        except DamagedError as error:
            print(f"warning: {error}; looking for an older one", file=sys.stderr)
    raise InputError(f"none of the {len(known)} checkpoints in {run.checkpoints} is whole")


def load_weights(network: nn.Module, run: Run, checkpoint: Path, weights: str) -> None:
    """Put the "ema" or "model" weights of a checkpoint into a network that has the run's settings."""
    tensors = read_tensors(checkpoint, weights, read_state(checkpoint, run.id))
    check_fit(checkpoint, tensors, network.state_dict())
    network.load_state_dict(tensors)
    if not all(bool(weight.isfinite().all()) for weight in network.parameters()):
        raise InputError(f"{checkpoint} holds {weights} weights that are not finite: its training went wrong")
