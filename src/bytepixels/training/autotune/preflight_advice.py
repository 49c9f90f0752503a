"""What to do with a source: the budget that suits it, the command for that, and what to mend before it."""

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
from ...wording import many
from ..defaults import choice_sentence
from ..session import FEW
from .trial import OverfitCheck, StepEstimate

LARGE_SET, LARGE_SIDE = 10_000, 32  # images, and pixels of their side, from which a GPU's 35.7M weights are worth it
LEAST_IMAGES = 50_000  # the budget below which little is drawn yet (RESULTS.md: the first faces of emoji after 38,000)
# Memorising begins after a time in proportion to the number of images (Bonnaire et al. 2025; Favero et al. 2025), so
# the limit is one of epochs. 100 is a rule of thumb (RESULTS.md: its first signs after 42 epochs of digits); 2,000 is
# what DDPM gave its CIFAR-10 (Ho et al. 2020, appendix B), with dropout.
EPOCHS = {"small": 100, "few_steps": 100, "digits": 100, "cifar10": 2_000, "speedrun": 200}

FEW_IN_CLASS = 50  # images of a class, below which little can be learnt of it
SPARE = "Look at {n} and delete what is to spare: what is seen more often is memorised sooner."
ADVICE = {  # kind -> what is counted, and what to do about it; the most important first
    "does_not_learn": ("step", "Find out why {n} on one batch did not halve its loss before training in earnest."),
    "too_large": ("image", "Choose a smaller --size or --preset: training on {n} once takes about {costs} here."),
    "unreadable": ("file", "Repair or delete {n} that cannot be read: train leaves out what it cannot read."),
    "disk": ("byte", "Make room on the disk: {gigabytes} are lacking for the packed set and the run."),
    "leaks": (
        "image",
        "Take out {n} of {split} that {are} in the split looked at too: whatever is measured on them is too good.",
    ),
    "copies_across_classes": ("group", "Choose a class for the copies that lie in several: {n} of them."),
    "exact_copies": ("exact copy/exact copies", SPARE),
    "near_copies": ("near copy/near copies", SPARE),
    "dark": ("image", "Look at {n} that {are} black or nearly so: masks of 0 and 1 must be multiplied by 255 first."),
    "one_colour": ("image", "Look at {n} of one colour: delete what was not meant to be one."),
    "few_images": ("image", "Add images to the {count:,} there {are}: below {few} the model is likely to copy them."),
    "small_classes": (
        "class/classes",
        "Add images to {n} with fewer than {few_in_class} images, or merge them: little can be learnt of them.",
    ),
    "much_cropped": ("image", "Think of --fit pad, or crop by hand: {n} would lose more than a third."),
    "enlarged": ("image", "Replace or leave out {n} smaller than {size}: enlarged, they teach it to draw blurs."),
    "composed": ("image", "Choose a --background for {n} with transparent parts, if {background} is not theirs."),
}


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
    """True if the device is a GPU, and the images are many and large enough for cifar10's network."""
    large = images >= LARGE_SET and min(config.data.size or (0, 0)) >= LARGE_SIDE
    return device.type == "cuda" and large and config.preset == "small"


def suggested_command(source: str, config: Config, preset: str | None, asked: DataConfig) -> str:
    """The line to type: what was asked for, and the budget; train chooses the rest by the same rule."""
    own = PRESETS[config.preset]()
    train = replace(own.train, images=config.train.images, micro_batch=config.train.micro_batch)
    named = [] if preset in (None, "small") else ["--preset", config.preset]
    flags = own_flags(replace(own, data=replace(asked, flip=own.data.flip), train=train), data_as_asked=True)
    return " ".join(["bytepixels train", shlex.quote(source), *named, *flags])


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a data set, the machine or the training."""

    kind: str  # of ADVICE, or missing_package
    count: int  # of images, files, ...
    advice: str  # a sentence


def find_problems(
    data: DatasetStatistics, plan: TrainingPlan, step: StepEstimate, check: OverfitCheck | None, lacking_bytes: int
) -> list[Finding]:
    """All that is wrong, the most important first; none where nothing is. check: None where a step takes too much."""
    copies, pixels = data.copies, data.pixels
    near = not copies.variants  # else looking alike means little
    leaks = {name: len(one.exact) + near * len(one.near) for name, one in copies.across_splits.items()}
    counts = {
        "does_not_learn": check.steps if check is not None and check.learns is False else 0,
        "too_large": int(check is None),
        "unreadable": len(data.unreadable),
        "disk": max(lacking_bytes, 0),
        "leaks": sum(leaks.values()),
        "copies_across_classes": len(copies.exact_across_classes) + near * len(copies.near_across_classes),
        "exact_copies": sum(len(group) - 1 for group in copies.exact),
        "near_copies": near * sum(len(group) - 1 for group in copies.near),
        "dark": len(pixels.dark),
        "one_colour": len(pixels.one_colour),
        "few_images": data.images if data.images < FEW else 0,
        "small_classes": sum(count < FEW_IN_CLASS for count in (data.classes or {}).values()),
        **{kind: data.counts[kind] for kind in ("much_cropped", "enlarged", "composed")},
    }
    values = {
        "costs": f"{step.bytes / 1e9:,.1f} GB and {step.seconds_per_image:,.0f} s",
        "gigabytes": f"{lacking_bytes / 1e9:.1f} GB",
        "split": " and ".join(name for name, count in leaks.items() if count),
        "few": FEW,
        "few_in_class": FEW_IN_CLASS,
        "size": " x ".join(map(str, plan.config.data.size or ())),
        "background": plan.config.data.background,
    }
    found = [Finding("missing_package", 1, note) for note in data.notes if "pip install" in note]
    for kind, count in counts.items():
        if count:
            noun, advice = ADVICE[kind]
            n, are = many(count, *noun.split("/")), "is" if count == 1 else "are"
            found.append(Finding(kind, count, advice.format(n=n, count=count, are=are, **values)))
    return found
