"""Resolve --features, a name or a path, to a feature extractor."""

from pathlib import Path

import numpy as np
import torch

from ..errors import InputError
from . import imagenet
from .classifier import NOTES, ClassifierFeatures
from .feature_cache import chosen_rows
from .features import INCEPTION, Features, PixelFeatures, RandomFeatures, ScriptFeatures

PCA_IMAGES = 10_000


def chosen_features(name: str) -> str:
    """Resolve `auto`: the features that know objects where their package is installed."""
    return name if name != "auto" else "imagenet" if imagenet.installed() else "random"


def open_features(name: str, images: np.ndarray, device: torch.device) -> Features:
    """Open `random`, `imagenet`, `pixels` (the components of `images` uint8 [N, C, H, W]), a folder or a file.

    InputError for others, and where a package is lacking.
    """
    if name == "random":
        return RandomFeatures(images.shape[1], device)
    if name == "imagenet":
        return imagenet.ImageNetFeatures(device)
    if name == "pixels":
        rows = chosen_rows(len(images), PCA_IMAGES).sort().values.numpy()
        return PixelFeatures(images[rows])
    path = Path(name).expanduser()
    if path.is_file():
        return ScriptFeatures(path, device)
    if (path / NOTES).is_file():
        return ClassifierFeatures(path, device)
    if name == "inception":
        raise InputError(
            f"--features inception: no checksum of {INCEPTION}.pt is published that a download could be checked by; "
            f"fetch it yourself (StyleGAN2-ADA's page has it) and say --features PATH/{INCEPTION}.pt"
        )
    raise InputError(
        "--features must be auto, random, imagenet, pixels, a folder of evaluate train-features or a TorchScript file, "
        f"got {name!r}"
    )
