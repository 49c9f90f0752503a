"""The budget that suits a source, the command for it, and what train will do with it."""

import shlex
from collections.abc import Mapping
from dataclasses import replace

import torch

from ...config.data import DataConfig
from ...config.presets import PRESETS
from ...config.run import Config
from ...data.inspection.statistics import CHANNELS, Numbers
from ...data.pack import checked_settings
from ...data.sources.decode import Layout
from ...wording import many
from ..loop import total_steps

LARGE_SET, LARGE_SIDE = 10_000, 32  # images, and pixels of their side, from which a GPU's 35.7M weights are worth it
LEAST_IMAGES = 50_000  # the budget below which little is drawn yet (RESULTS.md: the first faces of emoji after 38,000)
# Memorising begins after a time in proportion to the number of images (Bonnaire et al. 2025; Favero et al. 2025), so
# the limit is one of epochs. 100 is a rule of thumb (RESULTS.md: its first signs after 42 epochs of digits); 2,000 is
# what DDPM gave its CIFAR-10 (Ho et al. 2020, appendix B), with dropout.
EPOCHS = {"small": 100, "digits": 100, "cifar10": 2_000, "speedrun": 200}


def layout_of(data: DataConfig) -> Layout:
    """How packing will arrange the pixels; InputError for a background that is no colour."""
    settings = checked_settings(data.size, data.channels, data.fit, data.background, data.split)
    assert settings.size is not None
    assert settings.channels is not None
    return Layout(*settings.size, settings.channels, settings.fit, settings.background)


def with_budget(config: Config, distinct: int) -> Config:
    """The config with as many images as `distinct` different images are good for."""
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
    said = f"{numbers['images']:,} images"
    passes = f"{numbers['epochs']:,.{1 if numbers['epochs'] < 100 else 0}f} passes"
    if numbers["images"] == numbers["preset_images"]:
        return f"{said}, the preset's ({passes})."
    if numbers["images"] == numbers["least_images"]:
        return f"{said}, the minimum ({passes})."
    why = "the longer a small set is trained on, the more the model copies it (Bonnaire et al. 2025)"
    return f"{said} ({passes}), less than the preset's {numbers['preset_images']:,}: {why}."


def on_a_gpu(config: Config, pictures: int, device: torch.device) -> str:
    """What a GPU could do beside the default; "" where it is none, or too few images are there for it."""
    if device.type != "cuda" or pictures < LARGE_SET or min(config.data.size or (0, 0)) < LARGE_SIDE:
        return ""
    if config.preset != "small":
        return ""
    return "--preset cifar10 has 35.7M weights: better images for many times the time."


def command(source: str, config: Config, preset: str | None, asked: DataConfig) -> str:
    """The line to type: what was asked for, and the budget; train chooses the rest by the same rule."""
    own, words = PRESETS[config.preset](), ["bytepixels", "train", source]
    words += [] if preset in (None, "small") else ["--preset", config.preset]
    if asked.size is not None:
        words += ["--size", *map(str, asked.size)]
    for name in ("channels", "fit", "background", "split"):
        value = getattr(asked, name)
        if value is not None and value != getattr(own.data, name):
            words += [f"--{name}", str(value)]
    for name in ("images", "micro_batch"):
        if getattr(config.train, name) != getattr(own.train, name):
            words += [f"--{name.replace('_', '-')}", str(getattr(config.train, name))]
    return shlex.join(words)


def train_numbers(config: Config, pictures: Mapping[str, int], skipped: int, classes: int) -> Numbers:
    """What train will do: `config` as it is resolved, `images` counts of how they must be changed."""
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
        f"train takes {many(numbers['pictures'], 'image')} (split {numbers['split']}){skipped}.",
        f"Each becomes {height} x {width}, {' + '.join(CHANNELS[numbers['channels']])}.",
        f"Among them, {changed}." if changed else "None has to be cropped, enlarged or composed.",
        "Random horizontal flips." if numbers["flip"] == "yes" else "No flips.",
    ]
    labels, share = many(numbers["classes"], "class label"), f"{100 * numbers['label_dropout']:g}%"
    if not numbers["classes"]:
        said.append("Unconditional: there are no class labels.")
    elif numbers["labels_learnt"]:
        said.append(f"Learnt with {labels}, which {share} of the images go without.")
    else:
        said.append(f"The {labels} are not learnt: the preset has --no-labels.")
    return " ".join(said)
