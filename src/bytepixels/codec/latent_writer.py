"""Encode every image of a pack into a temporary folder of the cache; an interrupted call resumes where it stopped."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.pack_writer import HopelessError, PackWriter, Progress
from ..data.packed import Packed
from .latent_statistics import statistics_of

PIXELS = 1 << 18  # in one call of the encoder: 256 images of 32 x 32, one of 512 x 512

Encode = Callable[[Tensor], tuple[Tensor, Tensor]]


def make_latents(
    packed: Packed, encode: Encode, made_of: dict[str, Any], mirrored: bool, folder: Path, progress: Progress
) -> None:
    """Write the moments of all images of a pack into the temporary `folder`.

    Calls of the encoder are of the same images whatever was interrupted, since what an image becomes may depend, in the
    last bit, on those beside it.
    """
    images, total = packed.images, len(packed)
    shape = encoded(encode, images[:1], mirrored).shape[1:]  # (F, 2z, h, w)
    writer = PackWriter(folder, "moments.npy", (total, *shape), np.float32)
    at_a_time = max(1, PIXELS // int(np.prod(images.shape[2:])))
    with writer:
        advice = "make room, or take an autoencoder with a larger factor or fewer channels"
        writer.check_space(f"the latents of {total:,} images", advice)
        for start in range(0, total, at_a_time):
            chosen = slice(start, start + at_a_time)
            if writer.done[chosen].all():
                continue
            moments = encoded(encode, images[chosen], mirrored)
            if moments.shape[1:] != shape:
                raise HopelessError(f"the encoder gives {moments.shape[1:]} now, and gave {shape} before")
            for position, row in enumerate(moments, start):
                writer.write(position, row.tobytes())
            progress(writer.count, total)
    statistics = statistics_of(np.load(writer.array, mmap_mode="r", allow_pickle=False))
    _, channels, h, w = shape
    meta = {"count": total, "shape": [channels // 2, h, w], "classes": packed.classes, "statistics": statistics}
    writer.finalize(made_of | meta, packed.labels)


def encoded(encode: Encode, images: np.ndarray, mirrored: bool) -> np.ndarray:
    """Encode images uint8 [B, C, H, W] to moments float32 [B, F, 2z, h, w]. InputError unless they are moments."""
    pixels = torch.from_numpy(np.array(images))
    ways = [pixels, pixels.flip(-1)] if mirrored else [pixels]
    return np.stack([_moments(encode, way) for way in ways], axis=1)


def _moments(encode: Encode, pixels: Tensor) -> np.ndarray:
    mean, deviation = (one.detach().float().cpu() for one in encode(pixels))
    if mean.ndim != 4 or len(mean) != len(pixels) or mean.shape != deviation.shape:
        shapes = f"{list(mean.shape)} and {list(deviation.shape)}"
        raise HopelessError(f"an encoder of {len(pixels)} images must give two tensors [B, z, h, w], got {shapes}")
    if not (mean.isfinite().all() and deviation.isfinite().all() and (deviation >= 0).all()):
        raise HopelessError("the encoder gives latents that are not finite, or have a negative deviation")
    return torch.cat([mean, deviation], dim=1).numpy()
