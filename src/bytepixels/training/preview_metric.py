"""train --measure: a cheap measurement of samples during training; `evaluate` is thorough."""

from typing import Any

import torch
from torch import Tensor

from ..data import Packed
from ..metrics.distances import kernel_distance
from ..metrics.feature_cache import chosen_rows, features_of
from ..metrics.open_features import open_features
from ..runs.run_directory import provenance

REFERENCE = 2_000  # training images to compare with, at most


def kernel_record(images: Tensor, packed: Packed) -> dict[str, Any]:
    """The kernel distance of samples uint8 [n, C, H, W] from training images, as a record of eval.jsonl.

    floor: that of as many other training images, so where a perfect model would be.
    """
    features = open_features("random", packed.images, torch.device("cpu"))
    rows = chosen_rows(len(packed), REFERENCE + len(images))
    held = min(len(images), len(rows) // 2)
    others, known = rows[:held], rows[held:]
    reference = features_of(features, packed.images, known).features
    value, interval = kernel_distance(features_of(features, images).features, reference)
    floor, _ = kernel_distance(features_of(features, packed.images, others).features, reference)
    return {
        "kind": "kernel",
        "kernel_distance": value,
        "interval": interval,
        "floor": floor,
        "n": len(images),
        "features": {"name": features.name, "sha256": features.hash, "resize": features.resize},
        "reference": {"n": len(known), "sha256": packed.meta["sha256"]["images"]},
        "made_by": provenance(),
    }
