"""train --from: start a new run from the EMA weights of another, with classes matched by name."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..config.run import Config
from ..config.sampling import SampleConfig
from ..errors import InputError
from ..files import DamagedError
from ..registries import OBJECTIVES, Objective, facts
from ..runs.checkpoints import check_files, check_fit, read_state, read_tensors
from ..runs.run_directory import Run
from ..sampling.load_weights import find_checkpoint, open_model
from ..sampling.settings import is_flow_map

NEW = "destination."  # what a flow map has more than a plain network; nothing at first
LABELS = "label.weight"  # [K + 1, size]: a row for each class, and one for none


def open_origin(path: Path) -> tuple[Run, Path]:
    """Open the run at `path`, or the run of the checkpoint there; also returns that or its newest intact checkpoint."""
    of_checkpoint = path.parent.name == "checkpoints"
    run = open_model(path.parent.parent if of_checkpoint else path)
    return run, find_checkpoint(run, path.name if of_checkpoint else None, "the checkpoint of --from")


def config_from(origin: Run, objective: str | None = None) -> Config:
    """The settings of a run that begins from another: its own, but for what images, budget and machine decide.

    objective: that was asked for. A plain run that is to become a flow map has its guidance trained in.
    """
    own = origin.config
    process, sample = own.process, own.sample
    if objective in OBJECTIVES and facts(OBJECTIVES, objective, Objective).destinations and not is_flow_map(own):
        process = replace(process, objective=objective, trained_guidance=max(1.0, sample.guidance))
        sample = SampleConfig(sampler="auto", steps=4)
    data = replace(own.data, split="train", flip="auto", strict=False)
    train = replace(own.train, epochs=None, budget=None, precision="auto")  # which this machine decides
    stage = None if own.first_stage is None else str(origin.path)  # which keeps its autoencoder
    return replace(own, data=data, process=process, train=train, sample=sample, first_stage=stage)


def record_of(origin: Run, checkpoint: Path) -> dict[str, Any]:
    """The record that a run keeps of the checkpoint it began with."""
    return {"run": str(origin.path.absolute()), "id": origin.id, "checkpoint": checkpoint.name}


def take_weights(network: nn.Module, run: Run) -> None:
    """Load the EMA weights that `run` begins from into its network. New classes keep their fresh rows.

    InputError where the two networks differ in more than their classes.
    """
    begun = run.data["from"]
    origin, checkpoint = open_origin(Path(begun["run"]) / "checkpoints" / begun["checkpoint"])
    state = read_state(checkpoint, origin.id)
    check_files(checkpoint, state)
    tensors = dict(read_tensors(checkpoint, "ema", state))
    own = network.state_dict()
    if LABELS in own:
        tensors[LABELS] = matched_labels(own[LABELS], tensors.get(LABELS), run.classes, origin.classes)
    else:
        tensors.pop(LABELS, None)
    tensors |= {name: own[name] for name in own.keys() - tensors.keys() if name.startswith(NEW)}
    try:
        check_fit(checkpoint, tensors, own)
    except DamagedError as error:
        raise InputError(
            f"--from {origin.path} has another network than this run's settings and images make; leave out the flags "
            "that change it, and give it images with as many channels"
        ) from error
    network.load_state_dict(tensors)


def matched_labels(own: Tensor, other: Tensor | None, classes: Sequence[str], known: Sequence[str]) -> Tensor:
    """The label rows `own` [K + 1, size] with those of `other` for classes of the same name, and for no class."""
    if other is None or other.shape[1:] != own.shape[1:]:
        return own
    rows = own.clone()
    rows[-1] = other[-1]
    for row, name in enumerate(classes):
        if name in known:
            rows[row] = other[list(known).index(name)]
    return rows
