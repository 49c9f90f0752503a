"""What is worth doing before training: findings, each with a count and what to do about it."""

from dataclasses import dataclass

from ...data.inspection.statistics import DatasetStatistics
from ...wording import many
from ..session import FEW
from .preflight_plan import TrainingPlan
from .trial import OverfitCheck, StepEstimate

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
