"""train SOURCE: from pictures to a run; the same line again goes on where it stopped."""

from dataclasses import asdict, replace
from pathlib import Path

import torch

from ..build import best_device, best_precision
from ..data import Packed, pack
from ..errors import InputError
from ..progress import Progress
from ..runs.checkpoint import list_checkpoints
from ..runs.config import Config, DataConfig, changed_settings, read_config
from ..runs.directory import Run, is_run, open_run
from ..train.loop import total_steps
from .trainer import Trainer, stop_on_signals

DIGITS = tuple("0123456789")  # mirrored, these would be other symbols
FEW = 500  # pictures: below this a model is likely to copy its training set (see the field's memorisation reports)


def train(source: str, config: Config, path: Path) -> int:
    """Train, or go on with the run at `path`. Returns the exit code: 0 done, 130 or 143 interrupted after saving."""
    device = best_device(config.train.device)
    packed = pack_with_progress(source, as_asked(config.data, path))
    if len(packed) < FEW:
        print(f"note: {len(packed)} pictures are few; the model may learn to copy them")
    run = prepare_run(packed, source, config, path, device)
    with stop_on_signals() as stop:
        trainer = Trainer(run, packed, device)  # what does not fit together is refused here: nothing is written yet
        if trainer.state.step < total_steps(run.config.train):
            run.save()
            return trainer.fit(stop)
    print(f"{path} is finished: {trainer.images:,} images seen. Go on with a larger --images.")
    print(f"Draw pictures with: bytepixels sample {path}")
    return 0


def as_asked(data: DataConfig, path: Path) -> DataConfig:
    """What the run at `path` asked for when it began, so that going on finds the same pack in the cache."""
    if is_run(path) and (old := open_run(path)).config.data == data:
        return read_config(DataConfig, old.data.get("asked", asdict(data)), "data")
    return data


def pack_with_progress(source: str, data: DataConfig) -> Packed:
    """The source as packed pictures, with a live line while it works, and what there is to say about them."""
    with Progress("pack", 0, "pictures") as progress:

        def show(done: int, total: int) -> None:
            if not progress.total and done > 1:  # what lay there already is no measure of the speed
                progress.count(done)
                progress.pause()
            progress.total = total
            progress.update(done)

        try:
            packed = pack(
                source,
                size=data.size,
                channels=data.channels,
                fit=data.fit,
                background=data.background,
                strict=data.strict,
                split=data.split,
                progress=show,
            )
        except KeyboardInterrupt:
            progress.say("stopped while packing; the same command goes on from there")
            raise
    for note in packed.notes:
        print(note)
    return packed


def prepare_run(packed: Packed, source: str, config: Config, path: Path, device: torch.device) -> Run:
    """A new run, not yet written, or the one that is there once its pictures and settings are seen to be the same."""
    asked, config = config.data, resolved(config, packed, device)
    if config.sample.guidance != 1 and not packed.classes:
        raise InputError(f"--guidance {config.sample.guidance:g} needs class labels, and {source} has none")
    data = {"source": source, "count": len(packed), "classes": list(packed.classes), "sha256": packed.meta["sha256"]}
    data["asked"] = asdict(asked)
    if is_run(path):
        old = open_run(path)
        if old.data["sha256"] != data["sha256"]:
            raise InputError(f"{path} is of other pictures ({old.data['source']}) than {source}; choose another --run")
        changed = changed_settings(old.config, config)
        if changed and list_checkpoints(old.checkpoints):  # without any, there is nothing yet to contradict
            raise InputError(f"{path} was begun with other settings ({', '.join(changed)}); choose another --run")
        return replace(old, config=config)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path} exists and is not a run; choose another --run")
    return Run(path, config, data)


def resolved(config: Config, packed: Packed, device: torch.device) -> Config:
    """The config with what the data and the machine decide filled in, so that a run goes on just as it began."""
    _, channels, height, width = packed.images.shape
    flip = config.data.flip
    if flip == "auto":
        flip = "no" if packed.classes == DIGITS else "yes"
    return replace(
        config,
        data=replace(config.data, size=(height, width), channels=channels, flip=flip),
        train=replace(config.train, precision=best_precision(config.train.precision, device)),
    )
