"""The rule, shared by train and data doctor, for the preset and size of a source, from the headers of its images."""

from collections.abc import Collection
from dataclasses import replace

import torch

from ..config.data import DataConfig
from ..config.presets import preset_with
from ..config.run import Config
from ..data.inspection.survey import read_headers
from ..data.layout import own_size, sizes_of
from ..data.packed import default_cache
from ..data.sources.decode import ImageHeader
from ..data.sources.open_source import open_source
from ..networks.haar import STEMS

TINY_SIDE = 16  # pixels, up to which the digits' network sees a whole image
SIDE, GPU_SIDE, AUTOENCODER_SIDE = 32, 64, 128  # pixels that images are reduced to: by default, on a GPU, for latents
SMALLEST = 8  # pixels, of images that no network could halve


def headers_of(source: str, split: str) -> list[ImageHeader]:
    """Read the headers of a source's images, with a progress line."""
    return list(read_headers(open_source(source, split, default_cache()).read()).values())


def choose(
    seen: Collection[ImageHeader],
    asked: DataConfig,
    preset: str | None,
    device: torch.device,
    backbone: str = "unet",
    multiple: int | None = None,
) -> Config:
    """The preset's config with size and channels for these images; requested settings take precedence.

    multiple: what the sides must divide by, where the network is not the preset's.
    """
    config = preset_with(preset or choose_preset(seen, asked), backbone)
    return sized(config, seen, asked, device, multiple)


def choose_preset(seen: Collection[ImageHeader], asked: DataConfig) -> str:
    """Choose the preset: digits for tiny images, else small."""
    return "digits" if max(asked.size or own_size(seen)) <= TINY_SIDE else "small"


def sized(
    config: Config, seen: Collection[ImageHeader], asked: DataConfig, device: torch.device, multiple: int | None = None
) -> Config:
    """The config with size and channels for these images; requested settings take precedence."""
    grey = bool(seen) and all(one.grey for one in seen)
    channels = asked.channels or config.data.channels or (1 if grey else 3)
    own = own_size(seen)
    if multiple is not None and min(own) < multiple:
        size = asked.size or own  # which such a network refuses in a sentence
    else:
        size = asked.size or choose_size(seen, config, device, multiple or multiple_of(config))
    return replace(config, data=replace(asked, size=size, channels=channels, flip=config.data.flip))


def choose_size(seen: Collection[ImageHeader], config: Config, device: torch.device, multiple: int) -> tuple[int, int]:
    """Choose the images' own size, or the preset's if smaller, rounded down to a multiple."""
    own, (height, width) = own_size(seen), config.data.size or (SIDE, SIDE)
    if config.autoencoder is not None:
        height = width = AUTOENCODER_SIDE
    elif config.preset == "small" and device.type == "cuda":
        height = width = GPU_SIDE
    if min(own) < multiple:
        return max(SMALLEST, multiple), max(SMALLEST, multiple)
    if own[0] * own[1] > height * width:
        own = min(*own, height), min(*own, width)
    return rounded(own, multiple)


def rounded(size: tuple[int, int], multiple: int) -> tuple[int, int]:
    """The largest sides up to these that are multiples of `multiple`."""
    return size[0] // multiple * multiple, size[1] // multiple * multiple


def multiple_of(config: Config) -> int:
    """The number that the sides of the images should divide by: a patch, or a power of two for the levels of a U-Net.

    (What is odd after a Haar stem is no loss: 28 x 28 stays what it is.)
    """
    if config.autoencoder is not None:
        return config.autoencoder.factor
    net = config.network
    return net.patch if net.backbone == "dit" else int(max(STEMS.get(net.stem, 1), 2 ** (len(net.multipliers) - 1)))


def choice_sentence(
    config: Config, seen: Collection[ImageHeader], asked: DataConfig, preset: str | None, multiple: int | None = None
) -> str:
    """The size and preset that were chosen, and why; "" where both were asked for."""
    assert config.data.size is not None
    multiple = multiple or multiple_of(config)
    with_preset = "" if preset is not None else f" with preset {config.preset}"
    if with_preset and config.preset == "digits":
        with_preset += f" (made for up to {_by((TINY_SIDE, TINY_SIDE))})"
    if asked.size is not None:
        return f"Training at {_by(asked.size)} (--size){with_preset}" if with_preset else ""
    size, own, sizes = config.data.size, own_size(seen), sizes_of(seen)
    if size == own and len(sizes) == 1:
        return f"Training at {_by(size)}, the images' own size{',' if with_preset else ''}{with_preset}"
    have = f"your images are {_by(own)}" if len(sizes) == 1 else f"your images' median short side is {own[0]}"
    said = f"Training at {_by(size)}{with_preset}: {have}"
    larger = rounded((min(2 * size[0], own[0]), min(2 * size[1], own[1])), multiple)
    ratio = larger[0] * larger[1] / (size[0] * size[1])
    if ratio > 1:
        return f"{said}; --size {larger[0]} {larger[1]} keeps more and takes about {ratio:.2g} times as long"
    if min(own) < multiple:
        return f"{said}, too small for a network that needs sides of {multiple} or more"
    return said if size == own else f"{said}, and sides must divide by {multiple}"


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
