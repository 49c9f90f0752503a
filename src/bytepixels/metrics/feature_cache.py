"""Cache feature vectors on disk by the hash of the images, the features and the resize."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ..files import write_whole
from ..randomness import ORDER, seeded
from .averages import parts
from .features import Features
from .frechet import Moments, merged

FORMAT = 3
MOST = 50_000  # images of a set that are looked at
CHUNK = 4096  # vectors at a time in float64


@dataclass(frozen=True)
class FeatureSet:
    """The features of some images."""

    features: Tensor  # [n, D] float32
    probabilities: Tensor | None  # [n, K] of the network's classes
    hash: str = ""  # of what they are of; "" where they are of no set that is kept

    def __len__(self) -> int:
        return len(self.features)

    @property
    def moments(self) -> Moments:
        """Mean and covariance of the features, in float64."""
        return merged(Moments.of(chunk) for chunk in self.features.split(CHUNK))


def features_of(
    features: Features,
    images: np.ndarray | Tensor,
    rows: Tensor | None = None,
    batch: int = 128,
    count: Callable[[int], None] = lambda n: None,
) -> FeatureSet:
    """Features of uint8 [N, C, H, W], or of its `rows`, on the host.

    count: called with the number of images of each batch.
    """
    rows = torch.arange(len(images)) if rows is None else rows
    found, known = list[Tensor](), list[Tensor]()
    for part in parts(len(rows), batch):
        chosen = torch.as_tensor(np.asarray(images)[rows[part].numpy()])
        found.append(features(chosen).float().cpu())
        if (probabilities := features.probabilities(chosen, found[-1])) is not None:
            known.append(probabilities.float().cpu())
        count(len(chosen))
    return FeatureSet(torch.cat(found), torch.cat(known) if known else None)


def chosen_rows(count: int, most: int = MOST, seed: int = 0) -> Tensor:
    """Choose `most` of `count` rows at random by the seed, in order; all if there are fewer."""
    return torch.randperm(count, generator=seeded(seed, ORDER))[:most]


def reference_of(
    features: Features,
    images: np.ndarray,
    data_hash: str,
    folder: Path,
    most: int = MOST,
    count: Callable[[int], None] = lambda n: None,
) -> FeatureSet:
    """The features of a data set, of at most `most` of its images: read from `folder`, or computed and written there.

    data_hash: the sha256 of the images. A file that is damaged or of something else is not taken.
    """
    key = [FORMAT, data_hash, features.name, features.hash, features.resize, len(images), most]
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()
    path = folder / f"{features.name}-{digest[:24]}.safetensors"
    rows = chosen_rows(len(images), most)
    try:
        kept = load(path.read_bytes())
        if len(kept["features"]) == len(rows):
            return FeatureSet(kept["features"], kept.get("probabilities"), digest)
    except (OSError, SafetensorError, KeyError):
        pass  # none yet, or no longer whole
    made = replace(features_of(features, images, rows, count=count), hash=digest)
    tensors = {"features": made.features, "probabilities": made.probabilities}
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(path, save({name: one for name, one in tensors.items() if one is not None}))
    return made
