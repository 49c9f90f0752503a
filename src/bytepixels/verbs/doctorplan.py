"""Which preset, size and budget suit a source, the command that says so, and what train will do with it."""

import shlex
from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np
import torch

from ..data.decode import Layout
from ..data.doctor import Glance
from ..data.doctor_numbers import CHANNELS, Numbers
from ..data.pack import checked_settings
from ..presets import PRESETS
from ..runs.config import Config, DataConfig
from ..train.loop import total_steps
from ..words import many

TINY_SIDE = 16  # pixels, up to which the digits' network sees a whole picture
LARGE_SET = 10_000  # pictures, from which a GPU's 35.7M weights are worth it
GPU_SIDE = 64  # pixels a GPU may as well be asked for
LEAST_IMAGES = 50_000  # the budget below which nothing is drawn yet (RESULTS.md: outlines of emoji after 60,000)
# Memorising begins after a time in proportion to the number of pictures (Bonnaire et al. 2025; Favero et al. 2025), so
# the limit is one of epochs. 100 is a rule of thumb (RESULTS.md: its first signs after 42 epochs of digits); 2,000 is
# what DDPM gave its CIFAR-10 (Ho et al. 2020, appendix B), with dropout.
EPOCHS = {"small": 100, "digits": 100, "cifar10": 2_000, "speedrun": 200}


def choose(seen: Collection[Glance], asked: DataConfig, preset: str | None, device: torch.device) -> Config:
    """The preset's config for these pictures, its size and channels filled in; what was asked for goes first."""
    name = preset or choose_preset(seen, asked, device)
    config = PRESETS[name]()
    grey = bool(seen) and all(one.grey for one in seen)
    channels = asked.channels or config.data.channels or (1 if grey else 3)
    size = asked.size or choose_size(seen, config, device)
    data = replace(asked, size=size, channels=channels, flip=config.data.flip)
    return replace(config, data=data)


def choose_preset(seen: Collection[Glance], asked: DataConfig, device: torch.device) -> str:
    """By the pictures' size, their number and the device."""
    side = min(asked.size or own_size(seen))
    if side <= TINY_SIDE:
        return "digits"
    large = device.type == "cuda" and len(seen) >= LARGE_SET and side >= 32
    return "cifar10" if large else "small"


def choose_size(seen: Collection[Glance], config: Config, device: torch.device) -> tuple[int, int]:
    """Never larger than the pictures are, unless the network could not halve them often enough."""
    own = own_size(seen)
    if min(own) < 2 ** (len(config.network.multipliers) - 1):
        return 8, 8
    if config.preset == "small" and device.type == "cuda" and min(own) >= GPU_SIDE:
        return GPU_SIDE, GPU_SIDE
    return min(config.data.size or own, own, key=min)


def own_size(seen: Collection[Glance]) -> tuple[int, int]:
    """What packing takes when it is not told: the size of all, else the median short side, squared."""
    sizes = {(one.height, one.width) for one in seen} or {(1, 1)}
    if len(sizes) == 1:
        return sizes.pop()
    side = int(np.median([min(one.height, one.width) for one in seen]))
    return side, side


def layout_of(data: DataConfig) -> Layout:
    """How packing will arrange the pixels; InputError for a background that is no colour."""
    settings = checked_settings(data.size, data.channels, data.fit, data.background, data.split)
    assert settings.size is not None
    assert settings.channels is not None
    return Layout(*settings.size, settings.channels, settings.fit, settings.background)


def with_budget(config: Config, distinct: int) -> Config:
    """The config with as many images as `distinct` different pictures are good for."""
    most = config.train.images
    images = max(min(most, EPOCHS[config.preset] * distinct), min(most, LEAST_IMAGES))
    return replace(config, train=replace(config.train, images=images))


def budget_numbers(config: Config, distinct: int) -> Numbers:
    preset = PRESETS[config.preset]().train.images
    return {
        "images": config.train.images,
        "steps": total_steps(config.train),
        "batch": config.train.batch,
        "epochs": config.train.images / distinct,
        "most_epochs": EPOCHS[config.preset],
        "preset_images": preset,
        "least_images": min(preset, LEAST_IMAGES),
    }


def budget_sentence(numbers: Numbers) -> str:
    """The budget, and the rule that gave it."""
    times = f"{numbers['epochs']:,.{1 if numbers['epochs'] < 100 else 0}f} times"
    said = f"{numbers['images']:,} images, {times} each different picture"
    rule = f"the preset's {numbers['preset_images']:,}, but at most {numbers['most_epochs']:,} times each"
    why = "Rule of thumb: a set is memorised after a time in proportion to its size (Bonnaire et al. 2025)."
    return f"{said}: {rule}, and at least {numbers['least_images']:,}. {why}"


def command(source: str, config: Config, seen: Collection[Glance], asked: DataConfig) -> str:
    """The line to type: only what the preset does not do by itself."""
    preset, words = PRESETS[config.preset](), ["bytepixels", "train", source]
    words += [] if config.preset == "small" else ["--preset", config.preset]
    if config.data.size is not None and config.data.size != (preset.data.size or own_size(seen)):
        words += ["--size", *map(str, config.data.size)]
    for name in ("channels", "fit", "background", "split"):
        value = getattr(asked, name)
        if value is not None and value != getattr(preset.data, name):
            words += [f"--{name}", str(value)]
    for name in ("images", "micro_batch"):
        if getattr(config.train, name) != getattr(preset.train, name):
            words += [f"--{name.replace('_', '-')}", str(getattr(config.train, name))]
    return shlex.join(words)


def train_numbers(config: Config, pictures: Mapping[str, int], skipped: int, classes: int) -> Numbers:
    """What train will do: `config` as it is resolved, `pictures` counts of how they must be changed."""
    return {
        "pictures": pictures["readable"],
        "skipped": skipped,
        "size": list(config.data.size or ()),
        "channels": config.data.channels,
        "fit": config.data.fit,
        "background": config.data.background,
        **{mark: pictures[mark] for mark in ("reshaped", "enlarged", "composed")},
        "flip": config.data.flip,
        "split": config.data.split,
        "classes": classes,
        "labels_learnt": bool(classes) and config.network.labels,
        "label_dropout": config.train.label_dropout,
    }


def train_paragraph(numbers: Numbers) -> str:
    """The same in sentences."""
    height, width = numbers["size"]
    fit = {"crop": "cropped to their centre", "pad": "padded", "squash": "squashed"}[numbers["fit"]]
    changes = {
        f"of another shape, {fit}": numbers["reshaped"],
        "smaller, enlarged": numbers["enlarged"],
        f"with transparent parts, composed on {numbers['background']}": numbers["composed"],
    }
    changed = "; ".join(f"{what}: {count:,}" for what, count in changes.items() if count)
    skipped = f" and skips {many(numbers['skipped'], 'file')} that it cannot read" if numbers["skipped"] else ""
    said = [
        f"train takes {many(numbers['pictures'], 'picture')} (split {numbers['split']}){skipped}.",
        f"Each becomes {height} x {width}, {' + '.join(CHANNELS[numbers['channels']])}.",
        f"Among them, {changed}." if changed else "None has to be cropped, enlarged or composed.",
        "Half of them are mirrored, left to right." if numbers["flip"] == "yes" else "None is mirrored.",
    ]
    labels, share = many(numbers["classes"], "class label"), f"{100 * numbers['label_dropout']:g}%"
    if not numbers["classes"]:
        said.append("There are no class labels to learn.")
    elif numbers["labels_learnt"]:
        said.append(f"Learnt with {labels}, which {share} of the pictures go without.")
    else:
        said.append(f"The {labels} are not learnt: the preset has --no-labels.")
    return " ".join(said)
