"""The reference of a run's samples: training images, held-out images, and their features."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..data import default_cache
from ..distributed.process_group import ProcessGroup
from ..errors import InputError
from ..events import Work
from ..metrics.feature_cache import MOST, FeatureSet, chosen_rows, reference_of
from ..metrics.features import Features
from ..metrics.frechet import Moments
from ..metrics.open_features import open_features
from ..metrics.sample_metrics import PAIRS
from ..runs.image_sets import ImageSet, held_out_set, training_set
from ..runs.run_directory import Run

LEAST_KNOWN = 6  # training images: some measures look at the five nearest of each


@dataclass(frozen=True)
class ReferenceSet:
    """The images and features that samples are compared with."""

    own: ImageSet
    held_out: ImageSet | None
    features: Features
    reference: FeatureSet
    moments: Moments

    def others(self, n: int, seed: int) -> tuple[Tensor, str]:
        """The best possible samples, uint8, and what they are: held-out images if there are any."""
        chosen = self.held_out or self.own
        rows = chosen_rows(len(chosen.packed), n, seed).numpy()
        what = f"{len(rows):,} held-out images" if self.held_out else f"{len(rows):,} training images themselves"
        return torch.from_numpy(np.array(chosen.packed.images[rows])), what


def open_reference_set(run: Run, name: str, source: str | None, most: int | None, world: ProcessGroup) -> ReferenceSet:
    """Open the run's images and their features: rank 0 computes them, the others read them."""
    own, held_out = training_set(run, source), held_out_set(run, source)
    if len(own.packed) < LEAST_KNOWN:
        why = f"distances need {LEAST_KNOWN} training images or more, and {own.source} holds {len(own.packed)}"
        look = f"the images in {run.samples}" if run.config.autoencoder else f"samples: bytepixels sample {run.path}"
        raise InputError(f"{why}; look instead at {look}")
    features = open_features(name, own.packed.images, world.device)
    most = most or (PAIRS if name == "imagenet" else MOST)
    folder, images = default_cache() / "features", own.packed.images
    with Work("reference", min(most, len(images)), "images") as progress:
        done = 0

        def count(n: int) -> None:
            nonlocal done
            done += n
            progress.update(done)

        data = own.packed.meta["sha256"]["images"]
        if world.rank == 0:
            reference = reference_of(features, images, data, folder, most, count)
        world.all_max(0)
        if world.rank > 0:
            reference = reference_of(features, images, data, folder, most)
    return ReferenceSet(own, held_out, features, reference, reference.moments)
