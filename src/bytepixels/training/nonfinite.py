"""Losses and gradients that are not finite: what is recorded, and the error message."""

import math
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from ..distributed.process_group import ProcessGroup
from ..errors import JobError
from ..files import write_json
from .loop import StepResult

MOST_SKIPPED = 100  # steps in a row: by then it is the weights, not the images


class TrainingError(JobError):
    """An error that ends training; the run is intact up to its last checkpoint."""


class NonfiniteBatch(NamedTuple):
    """The batch of the step whose loss or gradient was not finite."""

    images: list[int]  # positions in the set, [B]
    t: Tensor | None  # of this process' rows; None where there are no times
    seed: int


def nonfinite_error(run: Path, world: ProcessGroup, result: StepResult, culprits: NonfiniteBatch) -> TrainingError:
    """The error that ends the training. Rank 0 writes nonfinite.json, with all that is needed to repeat the step."""
    step, batch = result.step - 1, len(culprits.images)
    losses = world.gather(result.losses, batch).tolist()
    times = [{}] * batch if culprits.t is None else [{"t": t} for t in world.gather(culprits.t, batch).tolist()]
    grad_norm = str(result.grad_norm.item())
    each: list[dict[str, Any]] = [
        {"image": image, **t, "loss": str(loss)} for image, t, loss in zip(culprits.images, times, losses, strict=True)
    ]
    path = run / "nonfinite.json"
    if world.rank == 0:
        write_json(path, {"step": step, "seed": culprits.seed, "grad_norm": grad_norm, "batch": each})
    bad = [one for one in each if not math.isfinite(float(one["loss"]))]
    what = ", ".join(f"{name} {value}" for name, value in bad[0].items()) if bad else "losses finite"
    return TrainingError(
        f"the loss or its gradient is not finite at step {step} with seed {culprits.seed} ({what}, gradient "
        f"{grad_norm}); the batch and its times are in {path}, the last checkpoint is whole. "
        f"Begin another --run with a smaller --lr, or go on with --on-nonfinite skip"
    )
