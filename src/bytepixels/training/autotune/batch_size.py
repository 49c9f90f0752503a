"""Resolve --batch 0: images per step. Short trainings do better with more steps of smaller batches."""

import torch

from ... import events
from ...config.run import Config
from ...config.units import seconds_of
from ...data import Packed
from ...sampling.first_stage import EncodedImages
from .trial import timed_steps, with_batch

SIZES = (64, 32)
ENOUGH_STEPS = 500  # the largest size that leaves so many is taken (RESULTS.md, "The batch and the budget")
PIXELS = SIZES[-1] * 64 * 64  # in a step that is measured: neither the memory nor the time of a large one is risked


def batch_for(images: float) -> int:
    """The batch size for a training that sees so many images in all."""
    return next((size for size in SIZES if images >= size * ENOUGH_STEPS), SIZES[-1])


def with_batch_size(
    config: Config, packed: Packed, device: torch.device, latents: EncodedImages | None = None
) -> Config:
    """Resolve batch 0 in a config, and print the choice.

    How many images a budget of time is, a step of the smallest batch tells, or, of large images, of as many as PIXELS.
    """
    train = config.train
    if train.batch:
        return config
    images = float(train.images)
    if train.budget is not None and config.autoencoder is None:
        height, width = packed.images.shape[2:] if latents is None else latents.latents.shape[1:]
        count = max(1, min(SIZES[-1], PIXELS // (height * width)))
        _, seconds = timed_steps(with_batch(config, count, compiled=False), packed, device, 2, latents)
        images = seconds_of(train.budget) / seconds * count
    batch = batch_for(images)
    events.say(f"Batch size {batch}, chosen for the length of the training (--batch)")
    return with_batch(config, batch)
