"""The image sets a run is measured on: training images, held-out images, and random subsets of them."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .. import events
from ..codec.codec import PixelCodec
from ..config.data import DataConfig
from ..config.run import read_config
from ..data import Packed
from ..errors import InputError
from ..randomness import ORDER, seeded
from .labels import find_class
from .origin import find_source, source_places
from .packing import pack_with_progress
from .run_directory import Run

PIXELS = PixelCodec()


@dataclass(frozen=True)
class ImageSet:
    """Images of one size with a name, a hash, and labels in the numbering of the run's classes."""

    source: str
    split: str
    packed: Packed
    labels: Tensor | None  # [N] int64 on the host; None where the run or the images have none
    trained_on: bool

    @property
    def name(self) -> str:
        """A description for people: source, split and hash."""
        kind = "the images it was trained on" if self.trained_on else "not trained on"
        return f"{self.source}, split {self.split} ({kind}), sha256 {self.packed.meta['sha256']['images'][:12]}"

    def record(self) -> dict[str, Any]:
        """The record of it that eval.jsonl holds."""
        own = {"source": self.source, "split": self.split, "trained_on": self.trained_on}
        return own | {"sha256": self.packed.meta["sha256"]["images"]}

    def choose(
        self, n: int, seed: int, device: torch.device, to_model: Callable[[Tensor], Tensor] = PIXELS.to_model
    ) -> tuple[Tensor, Tensor | None]:
        """Choose n images without replacement by the seed: x0 [n or fewer, C, H, W] and labels."""
        if len(self.packed) < 2:
            raise InputError(f"{self.source} holds one image: its loss has no standard error; give more with --source")
        rows = torch.randperm(len(self.packed), generator=seeded(seed, ORDER))[:n]
        images = torch.from_numpy(self.packed.images[rows.numpy()])
        label = None if self.labels is None else self.labels[rows].to(device)
        return to_model(images.to(device)), label


def source_of(run: Run) -> str:
    """Path of the images that the run was trained on; InputError, saying where it looked, where they are not."""
    if run.data.get("count") == 0:
        again = f"bytepixels import {run.data['source']} --source IMAGES does"
        raise InputError(f"{run.path} was imported without images to measure it against: {again}")
    found = find_source(run.data, run.path)
    if found is None:
        looked = " nor at ".join(source_places(run.data, run.path)[:3])
        raise InputError(f"the images that {run.path} was trained on are not at {looked}; give them with --source PATH")
    return found


def training_set(run: Run, source: str | None = None) -> ImageSet:
    """The images that the run was trained on, from `source` where it has moved; InputError if those are others."""
    source = source_of(run) if source is None or run.data.get("count") == 0 else source
    asked = read_config(DataConfig, run.data.get("asked", asdict(run.config.data)), "data")
    packed = pack_with_progress(source, asked)
    if packed.meta["sha256"] != run.data["sha256"]:
        raise InputError(f"{source} does not hold the {run.data['count']:,} images that {run.path} was trained on")
    return ImageSet(source, run.config.data.split, packed, _labels(run, packed), trained_on=True)


def other_set(run: Run, source: str, split: str) -> ImageSet:
    """Any split of any source, converted to the size and channels of the run's images."""
    packed = pack_with_progress(source, replace(run.config.data, split=split))
    same = packed.meta["sha256"]["images"] == run.data["sha256"].get("images")
    return ImageSet(source, split, packed, _labels(run, packed), trained_on=same)


def held_out_set(run: Run, source: str | None = None) -> ImageSet | None:
    """The test split of the run's source; None if there is none, or the run was trained on it."""
    if run.config.data.split not in ("train", "val"):
        return None
    try:
        found = other_set(run, source or source_of(run), "test")
    except InputError as error:
        events.say(f"note: no held-out images: {error}")
        return None
    return None if found.trained_on else found


def _labels(run: Run, packed: Packed) -> Tensor | None:
    """Labels of `packed` as positions in the run's classes; InputError for a class that the run does not know, and if
    it needs labels and there are none."""
    if packed.labels is None and run.classes and run.config.train.label_dropout == 0:
        raise InputError(f"{run.path} was trained with --label-dropout 0: it needs images with labels, these have none")
    if packed.labels is None or not run.classes:
        return None
    numbers = [find_class("a class of the images", name, run.classes) for name in packed.classes]
    return torch.tensor(numbers)[torch.from_numpy(packed.labels.copy())]
