"""Bundled models: finished runs inside the package, by name."""

import os
import shutil
from pathlib import Path
from uuid import uuid4

from .. import events
from ..errors import InputError
from ..files import TEMPORARY

MODELS = Path(__file__).parent.parent / "models"  # NAME/config.json, log.jsonl, checkpoints/step-...
RUNS = Path("runs")  # where a copy of one is put


def model_names() -> list[str]:
    """The names of the bundled models, in order."""
    return sorted(path.parent.name for path in MODELS.glob("*/config.json"))


def model_as_run(path: Path) -> Path | None:
    """The folder runs/NAME if `path` is the name of a bundled model, else None.

    The first time it is a copy of the model, which is said: what is drawn from it lies there, like that of any run.
    A run that is there already under this name is taken as it is. InputError where runs/NAME cannot be written.
    """
    name = path.name
    if path != Path(name) or name not in model_names():
        return None
    run = RUNS / name
    if not (run / "config.json").is_file():
        draft = RUNS / f"{TEMPORARY}{name}-{uuid4().hex[:8]}"
        try:
            shutil.copytree(MODELS / name, draft)
            os.replace(draft, run)
        except OSError as error:
            shutil.rmtree(draft, ignore_errors=True)
            if not (run / "config.json").is_file():  # else another process was faster
                raise InputError(
                    f"{name}, a model of bytepixels, cannot be copied to {run} ({error.strerror})"
                ) from error
        else:
            events.note(f"{name} is a bundled model; using its copy {run}")
    return run
