"""Pack a run's images within its time budget."""

import math
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

from .. import events
from ..config.data import DataConfig
from ..config.run import Config, read_config
from ..config.units import seconds_of
from ..data import Packed, pack
from ..errors import InputError
from ..events import Work, duration
from .run_directory import is_run, open_run

DIGITS = tuple("0123456789")  # mirrored, these would be other symbols


class Preparation:
    """Packing and encoding within the --budget of a training: warns early if they take most of it, and stops with the
    work kept if they use it up."""

    def __init__(self, budget: str | None = None, began: float = 0.0):
        """budget: None for no limit. began: start of the command, by time.monotonic()."""
        self.budget, self.began, self.said = budget, began, ""

    def show(self, progress: Work, what: str, done: int, total: int) -> None:
        """Show that `done` of the total is done of `what`. InputError if the budget is used up before the end."""
        progress.total = total
        progress.update(done)
        if self.budget is None or done >= total:
            return
        limit, passed = seconds_of(self.budget), time.monotonic() - self.began
        if passed >= limit:
            raise used_up(self.budget, passed, f", while {what} ({done:,} of {total:,} images)")
        left = (total - done) / progress.rate if progress.settled else 0.0
        if left > limit / 2 and self.said != what:
            self.said = what
            then = "what is done is kept, so that the next training begins sooner"
            events.note(f"note: {what} takes {duration(left)} more, of --budget {self.budget}; {then}")


UNLIMITED = Preparation()


def used_up(budget: str, passed: float, where: str = "") -> InputError:
    """The error for a budget that was used up before training began."""
    said = f"--budget {budget} was over before training began, after {duration(passed)}{where}"
    return InputError(f"{said}; what was done is kept, and the same command now begins sooner")


def requested_data(data: DataConfig, path: Path) -> DataConfig:
    """The data settings that the run at `path` began with, so that going on finds the same pack in the cache."""
    if is_run(path) and (old := open_run(path)).config.data == data:
        return read_config(DataConfig, old.data.get("asked", asdict(data)), "data")
    return data


def pack_with_progress(source: str, data: DataConfig, within: Preparation = UNLIMITED) -> Packed:
    """Pack the source with a progress line, and print the notes about it; `within` limits the time."""
    with Work("pack", 0, "images") as progress:

        def show(done: int, total: int) -> None:
            if not progress.total:  # listing the source, and what lay there already, are no measure of the speed
                progress.count(done)
                progress.pause()
            within.show(progress, "packing", done, total)

        progress.kept = "stopped while packing; the same command goes on from there"
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
    for note in packed.notes:
        events.say(note)
    return packed


def flips(config: Config, packed: Packed) -> bool:
    """True if half of the images are mirrored."""
    return config.data.flip == "yes" or (config.data.flip == "auto" and packed.classes != DIGITS)


def resolved(config: Config, packed: Packed) -> Config:
    """Fill in the settings that the data decide, so that a resumed run goes on as it began."""
    _, channels, height, width = packed.images.shape
    flip: Literal["yes", "no"] = "yes" if flips(config, packed) else "no"
    train = config.train
    if train.epochs is not None:
        train = replace(train, images=math.ceil(train.epochs * len(packed)))
    return replace(config, data=replace(config.data, size=(height, width), channels=channels, flip=flip), train=train)
