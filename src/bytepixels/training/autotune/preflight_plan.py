"""The budget that suits a source, the command for it, and what train will do with it."""

import shlex
from collections.abc import Collection
from dataclasses import dataclass, replace

import torch

from ...config.data import DataConfig
from ...config.presets import PRESETS, own_flags
from ...config.run import Config
from ...data.inspection.statistics import DatasetStatistics
from ...data.sources.decode import ImageHeader
from ...requests.check_data import Doctor
from ..defaults import choice_sentence

LARGE_SET, LARGE_SIDE = 10_000, 32  # images, and pixels of their side, from which a GPU's 35.7M weights are worth it
LEAST_IMAGES = 50_000  # the budget below which little is drawn yet (RESULTS.md: the first faces of emoji after 38,000)
# Memorising begins after a time in proportion to the number of images (Bonnaire et al. 2025; Favero et al. 2025), so
# the limit is one of epochs. 100 is a rule of thumb (RESULTS.md: its first signs after 42 epochs of digits); 2,000 is
# what DDPM gave its CIFAR-10 (Ho et al. 2020, appendix B), with dropout.
EPOCHS = {"small": 100, "digits": 100, "cifar10": 2_000, "speedrun": 200}


@dataclass(frozen=True)
class TrainingPlan:
    """What train will do with a source."""

    config: Config  # with all that the data and the machine decide
    command: str
    size_reason: str  # the size and the preset, and why these; "" where both were asked for
    epochs: float
    larger_network: bool  # there is a GPU that could train that of cifar10, and enough images for it


def with_budget(config: Config, distinct: int) -> Config:
    """The config with as many images as `distinct` different images are good for."""
    most = config.train.images
    images = max(min(most, EPOCHS[config.preset] * distinct), min(most, LEAST_IMAGES))
    return replace(config, train=replace(config.train, images=images))


def plan_training(
    request: Doctor, config: Config, data: DatasetStatistics, headers: Collection[ImageHeader], device: torch.device
) -> TrainingPlan:
    """The plan for a config that is already complete."""
    command = suggested_command(request.source, config, request.preset, request.data)
    size_reason = choice_sentence(config, headers, request.data, config.preset)
    epochs = config.train.images / data.copies.distinct
    return TrainingPlan(config, command, size_reason, epochs, suits_a_gpu(config, data.images, device))


def suits_a_gpu(config: Config, images: int, device: torch.device) -> bool:
    """Whether the device is a GPU, and the images are many and large enough for cifar10's network."""
    large = images >= LARGE_SET and min(config.data.size or (0, 0)) >= LARGE_SIDE
    return device.type == "cuda" and large and config.preset == "small"


def suggested_command(source: str, config: Config, preset: str | None, asked: DataConfig) -> str:
    """The line to type: what was asked for, and the budget; train chooses the rest by the same rule."""
    own = PRESETS[config.preset]()
    train = replace(own.train, images=config.train.images, micro_batch=config.train.micro_batch)
    named = [] if preset in (None, "small") else ["--preset", config.preset]
    flags = own_flags(replace(own, data=replace(asked, flip=own.data.flip), train=train), data_as_asked=True)
    return " ".join(["bytepixels train", shlex.quote(source), *named, *flags])
