"""Resume a run from its newest intact checkpoint."""

from pathlib import Path

from .. import events
from ..errors import InputError
from ..files import DamagedError
from ..runs.checkpoints import STEMS, check_fit, list_checkpoints, read_state, read_tensors
from ..runs.run_directory import Run
from ..wording import many
from .loop import TrainState
from .sharded_checkpoints import find_parts


def load_latest(run: Run, state: TrainState) -> int | None:
    """Load the newest intact checkpoint, and note newer damaged ones. Returns its step; None for a new run.

    Raises InputError when there are checkpoints and none is whole: beginning anew would overwrite the run.
    """
    known = list_checkpoints(run.checkpoints)
    for checkpoint in reversed(known):
        try:
            _load(run, checkpoint, state)
            break
        except DamagedError as error:
            events.note(f"warning: {error}; looking for an older one")
    else:
        if known:
            raise InputError(
                f"none of the {len(known)} checkpoints in {run.checkpoints} is intact; choose another --run"
            )
    if lost := run.trim_log(state.step):
        damaged = many(lost, "line")
        events.note(f"note: {run.path / 'log.jsonl'} had {damaged} that cannot be read, now gone")
    return state.step if known else None


def _load(run: Run, checkpoint: Path, state: TrainState) -> None:
    """Load one checkpoint; DamagedError unless it is intact and of this run."""
    if state.world.sharded:
        find_parts(checkpoint, run.id, state)
        return
    saved = read_state(checkpoint, run.id)
    tensors = {stem: read_tensors(checkpoint, stem, saved) for stem in STEMS}
    for stem in ("model", "ema"):
        check_fit(checkpoint, tensors[stem], state.model.state_dict())
    try:
        state.load(saved["step"], tensors)
    except KeyError as error:
        raise DamagedError(f"{checkpoint} is of another optimizer than the run's config.json") from error
