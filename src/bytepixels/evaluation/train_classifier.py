"""The verb evaluate train-features: train a classifier of one's own labels, whose penultimate layer gives features."""

import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .. import events
from ..config.data import DataConfig
from ..data import Packed
from ..distributed.process_group import under_torchrun
from ..errors import InputError
from ..events import Work, duration
from ..hardware import best_device
from ..metrics.classifier import NOTES, Recipe, accuracy, save_classifier, train_classifier
from ..metrics.feature_cache import chosen_rows
from ..requests.evaluate import TrainFeatures
from ..runs.packing import DIGITS, pack_with_progress
from ..runs.run_directory import make_folder, provenance
from ..wording import many

HELD_OUT = 0.1  # of the images, where there is no test split


def train_features(request: TrainFeatures) -> Path:
    """Train the classifier, save it after every epoch, and print its held-out accuracy. Returns the folder."""
    if under_torchrun():
        raise InputError("evaluate train-features is for one process: run it without torchrun")
    recipe = Recipe(request.width, request.epochs, request.batch, request.lr, seed=request.seed)
    packed = pack_with_progress(request.source, DataConfig(size=request.size, channels=request.channels))
    if packed.labels is None or len(packed.classes) < 2:
        raise InputError(f"{request.source} has {len(packed.classes)} classes; evaluate train-features needs 2 or more")
    out = request.out or Path("features") / (Path(request.source).name.split(".")[0] or "pictures")
    if out.exists() and not (out / NOTES).is_file() and any(out.iterdir()):
        raise InputError(f"{out} exists and holds no features; choose another --out")
    make_folder(out, "--out")
    learn, test, name = held_out_split(packed, request)
    device, began, each = best_device(request.device), time.process_time(), len(learn[0])
    recipe = replace(recipe, flip=packed.classes != DIGITS if request.flip == "auto" else request.flip == "yes")
    notes = {"classes": list(packed.classes), "size": list(packed.images.shape[2:]), "channels": packed.images.shape[1]}
    notes |= {"source": request.source, "sha256": packed.meta["sha256"]["images"], "made_by": provenance()}
    events.say(f"{each:,} training images, {len(test[0]):,} held out ({name}); {recipe}")
    an_epoch = each - each % min(recipe.batch, each)
    with Work("features", recipe.epochs * an_epoch, "images") as progress:
        for seen, loss, network in train_classifier(*learn, len(packed.classes), recipe, device):
            progress.update(seen, f"loss {loss:.3f}")
            if seen % an_epoch == 0:
                found, epoch = accuracy(network, *test, device), seen // an_epoch
                said = {"epochs": epoch, "held_out_accuracy": found, "held_out": name, "n": len(test[0])}
                save_classifier(out, network, recipe, notes | said | {"cpu_seconds": time.process_time() - began})
                events.note(f"epoch {epoch}: held-out accuracy {100 * found:.2f}%; saved to {out}")
                progress.kept = f"what {many(epoch, 'epoch')} of {recipe.epochs:,} made is kept in {out}"
    half = 196 * math.sqrt(found * (1 - found) / len(test[0]))
    events.say(f"accuracy {100 * found:.2f}% ± {half:.2f}% on {len(test[0]):,} held-out images ({name})")
    events.say(f"{duration(time.process_time() - began)} of CPU time; evaluate RUN --features {out}")
    return out


Labelled = tuple[Tensor, Tensor]  # uint8 [N, C, H, W], int64 [N]


def held_out_split(packed: Packed, request: TrainFeatures) -> tuple[Labelled, Labelled, str]:
    """(training images, test images, what the latter are): the source's test split, else a tenth of the images."""
    assert packed.labels is not None
    images, labels = torch.from_numpy(np.array(packed.images)), torch.from_numpy(packed.labels.copy())
    size, channels = (packed.images.shape[2], packed.images.shape[3]), packed.images.shape[1]
    try:
        test = pack_with_progress(request.source, DataConfig(size=size, channels=channels, split="test"))
    except InputError:
        test = None
    other = test is not None and test.meta["sha256"]["images"] != packed.meta["sha256"]["images"]
    if test is not None and other and test.classes == packed.classes and test.labels is not None:
        held_out = torch.from_numpy(np.array(test.images)), torch.from_numpy(test.labels.copy())
        return (images, labels), held_out, "split test"
    count = max(1, round(HELD_OUT * len(images)))
    if len(images) < 2 * len(packed.classes) or len(images) - count < 2:
        raise InputError(
            f"{request.source} has {len(images)} images of {len(packed.classes)} classes: too few to learn from"
        )
    order = chosen_rows(len(images), len(images), request.seed)
    own, rest = order[count:], order[:count]
    return (images[own], labels[own]), (images[rest], labels[rest]), "a tenth of the images, chosen by the seed"
