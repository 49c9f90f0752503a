"""A copy of a run for others: what draws from it, without what trains it and without paths of this machine."""

import os
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from ..errors import InputError
from ..files import one_line, read_sealed, sha256, write_sealed
from ..runs.checkpoints import FORMAT, PRUNED, read_tensors
from ..runs.origin import BESIDE
from ..runs.overview import read_log
from ..runs.run_directory import CONFIG, FIRST_STAGE, Run
from ..sampling.load_weights import find_checkpoint

LINES = 200  # of the log, about as many as are kept


def without_paths(value: Any) -> Any:
    """A value of JSON, in which every absolute path is replaced by its last part."""
    if isinstance(value, dict):
        return {key: without_paths(one) for key, one in value.items()}
    if isinstance(value, list):
        return [without_paths(one) for one in value]
    return Path(value).name if isinstance(value, str) and os.path.isabs(value) else value


def hand_over(run: Run, folder: Path, source: str, guidance: float | None = None) -> Path:
    """Write a run to an empty folder: its newest whole checkpoint's averaged weights alone, in half precision.

    source: what its images are called where it is used. guidance: what it draws with unless told otherwise; None: its
    own. What trained it stays in config.json: settings, the images' hash, and the commit and machine of every session.
    Returns the checkpoint that was copied. InputError for weights that half precision cannot hold.
    """
    newest = find_checkpoint(run, None)
    state = read_sealed(newest / "state.json")
    final = folder / "checkpoints" / newest.name
    final.mkdir(parents=True)
    ema = read_tensors(newest, "ema", state)
    half = {name: t.half().contiguous() if t.is_floating_point() else t for name, t in ema.items()}
    if any(not bool(t.isfinite().all()) for t in half.values()):
        raise InputError(f"{newest} has weights that half precision cannot hold")
    save_file(half, final / "ema.safetensors")
    sums = {"ema.safetensors": sha256(final / "ema.safetensors")}
    write_sealed(final / "state.json", state | {"format": FORMAT, "sha256": sums, PRUNED: ["model", "optimizer"]})
    config = read_sealed(run.path / CONFIG)
    data = config["data"]
    kept = {key: value for key, value in data.items() if key in ("classes", "text")}
    config["data"] = {key: without_paths(value) for key, value in data.items() if key != BESIDE}
    config["data"] |= kept | {"source": source}
    config["config"] = without_paths(config["config"])
    if guidance is not None:
        config["config"]["sample"]["guidance"] = guidance
    write_sealed(folder / CONFIG, config)
    log = list(read_log(run.path))
    some = log[:: max(1, len(log) // LINES)]
    lines = [*some, *([log[-1]] if log and some[-1] is not log[-1] else [])]
    (folder / "log.jsonl").write_text("".join(one_line(line) for line in lines), encoding="utf-8")
    if (run.path / FIRST_STAGE).is_file():
        shutil.copy(run.path / FIRST_STAGE, folder / FIRST_STAGE)
    return newest
