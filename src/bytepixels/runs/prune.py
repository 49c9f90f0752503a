"""Remove what a run no longer needs: old checkpoints, leftovers of killed processes, and optimizer states."""

from dataclasses import dataclass
from pathlib import Path

from ..files import remove, remove_folder
from .checkpoints import drop_optimizer, is_foreign, list_checkpoints, optimizer_of, read_state
from .overview import Saved, inspect_checkpoint, size_of
from .run_directory import Run, run_leftovers


@dataclass(frozen=True)
class PrunePlan:
    """A plan of what goes and what stays of one run."""

    run: Run
    kept: list[Saved]  # whole, oldest first
    damaged: list[Saved]  # no older than those: left where they are
    removed: list[Path]
    leftovers: list[Path]
    stripped: list[Path]  # checkpoints whose optimizer goes
    freed: int  # bytes


def plan_prune(run: Run, keep: int, optimizer: bool) -> PrunePlan:
    """Plan to keep the newest `keep` intact checkpoints and all newer ones; all checkpoints if none is intact.

    Every byte is compared. optimizer: theirs go too, except that a run which has not seen its budget keeps the newest,
    to go on from.
    """
    kept: list[Saved] = []
    damaged: list[Saved] = []
    known = list_checkpoints(run.checkpoints)
    while known and len(kept) < keep:
        one = inspect_checkpoint(known.pop(), run.id, thorough=True)
        (damaged if one.damage else kept).append(one)
    kept.reverse()
    stripped: list[Path] = []
    if optimizer and kept:
        finished = (kept[-1].images or 0) >= run.config.train.images
        stripped = [one.path for one in (kept if finished else kept[:-1]) if not one.pruned]
    older = [path for path in known if not is_foreign(path, run.id)] if kept else []
    leftovers = run_leftovers(run.path)
    freed = sum(map(size_of, [*older, *leftovers, *map(optimizer_of, stripped)]))
    return PrunePlan(run, kept, damaged, older, leftovers, stripped, freed)


def apply_prune(plan: PrunePlan) -> None:
    """Remove the planned files; if interrupted, each checkpoint is complete or absent."""
    for path in plan.removed:
        remove_folder(path)
    for path in plan.leftovers:
        remove(path)
    for path in plan.stripped:
        drop_optimizer(path, read_state(path, plan.run.id))
