"""The printed page of data doctor, section by section as it becomes known."""

import shutil
import textwrap
from collections.abc import Sequence
from typing import Any

from ... import events
from ...data.inspection.duplicates import BITS, NEAR_BITS, NEAR_CORRELATION
from ...data.inspection.statistics import DatasetStatistics, Groups, PixelStatistics
from ...requests.check_data import Doctor
from ...wording import many
from .preflight import Diagnosis, doctor
from .preflight_advice import FEW_IN_CLASS, TrainingPlan
from .preflight_training import budget_sentence, machine_lines, overfit_sentence, train_paragraph

Lines = list[tuple[str, str]]
LABEL, WIDEST = 16, 120  # columns
GROUPS, NAMES, UNREADABLE, CLASSES, ADVICE = 3, 3, 10, 10, 5  # the most that are shown
MARKS = {
    "transparent": "with transparent parts",
    "rotated": "turned by EXIF",
    "several_frames": "animated or with several pages (the first is taken)",
    "grey": "grey",
}


def diagnose(request: Doctor) -> Diagnosis:
    """Diagnose a source, and print each section as soon as it is known."""

    def show(*parts: Any) -> None:
        events.say(*(data_page(*parts) if len(parts) == 1 else plan_page(*parts)))

    found = doctor(request, show)
    events.say(*machine_page(found))
    if request.json is not None:
        events.say(f"all numbers and names: {request.json}")
    return found


def data_page(data: DatasetStatistics) -> list[str]:
    """The sections on the images: sizes, files, copies, classes, pixels."""
    return [
        section(f"{data.source}, split {data.split}", image_lines(data)),
        section("Files", file_lines(data)),
        section("Copies", copy_lines(data)),
        section("Classes", class_lines(data.classes)),
        section(f"Pixels, at {_size(data.packed_size)}", pixel_lines(data.pixels)),
    ]


def plan_page(data: DatasetStatistics, plan: TrainingPlan) -> list[str]:
    """The sections on what train would do, and the command to type."""
    lines = [("preset", plan.config.preset), ("size", plan.size_reason), ("budget", budget_sentence(plan))]
    if plan.larger_network:
        lines += [("on a GPU", "--preset cifar10 has 35.7M weights: better images for many times the time.")]
    suggestion = section("Suggestion", [line for line in lines if line[1]])
    return [section("What train will do", [("", train_paragraph(data, plan))]), f"{suggestion}\n  {plan.command}\n"]


def machine_page(found: Diagnosis) -> list[str]:
    """The sections on what training takes on this machine, whether it learns, and what to do first."""
    advice = [one.advice for one in found.findings[:ADVICE]] or ["No problems found."]
    return [
        section(f"On this machine ({found.device})", machine_lines(found)),
        section("Does it learn?", [("", overfit_sentence(found.overfit))]),
        section("Worth doing first", [(str(k), sentence) for k, sentence in enumerate(advice, 1)]),
    ]


def section(title: str, lines: Lines) -> str:
    """Format a title and (label, text) in two columns, wrapped to the terminal, with an empty line at the end."""
    width = min(WIDEST, shutil.get_terminal_size((WIDEST, 24)).columns) - LABEL - 2
    shown = [title]
    for label, text in lines:
        first, *rest = textwrap.wrap(text, max(width, 20), break_long_words=False, break_on_hyphens=False) or [""]
        shown += [f"  {label:<{LABEL}}{first}", *(" " * (LABEL + 2) + more for more in rest)]
    return "\n".join([*shown, ""])


def image_lines(data: DatasetStatistics) -> Lines:
    steps = ", ".join(f"{name} {_size(getattr(data, name))}" for name in ("smallest", "median", "largest"))
    sizes = f"{data.different_sizes:,} different; by area: {steps} (height x width)"
    ratio = f"{data.commonest_ratio:g} (width / height)"
    ends = f"from {_shape(data.tallest)} to {_shape(data.widest)}"
    others = f" is the commonest, {data.other_ratios:,} are others, {ends}" if data.other_ratios else ", all of them"
    found = [f"{data.counts[mark]:,} {words}" for mark, words in MARKS.items() if data.counts[mark]]
    return [
        ("images", f"{data.images:,}" + (f" of {data.files:,} files" if data.images < data.files else "")),
        ("sizes", sizes if data.different_sizes > 1 else f"{_size(data.median)}, all of them"),
        ("aspect ratio", ratio + others),
        ("kinds", ", ".join(f"{kind} {count:,}" for kind, count in data.kinds.items())),
        ("among them", ", ".join(found) or "none is transparent, turned, animated or grey"),
    ]


def file_lines(data: DatasetStatistics) -> Lines:
    strange = sum("not an image" in reason for _, reason in data.unreadable)
    damaged, more = len(data.unreadable) - strange, len(data.unreadable) - UNREADABLE
    counts = [f"{strange:,} not {'an image' if strange == 1 else 'images'}"] if strange else []
    counts += [f"{damaged:,} damaged or truncated"] if damaged else []
    lines = [f"{name}: {reason}" for name, reason in data.unreadable[:UNREADABLE]]
    lines += [f"and {more:,} more (all of them with --json)"] if more > 0 else []
    return [*_labelled("cannot be read", [", ".join(counts) or "none", *lines]), *_labelled("note", data.notes)]


def copy_lines(data: DatasetStatistics) -> Lines:
    copies = data.copies
    rule = f"at most {NEAR_BITS} of {BITS} hash bits apart, thumbnails correlate by {NEAR_CORRELATION}, or mirrored"
    lines = _labelled("exact copies", [_grouped(copies.exact), *_examples(copies.exact, " = ")])
    lines += _labelled("near copies", [f"{_grouped(copies.near)} ({rule})", *_examples(copies.near, " looks like ")])
    if copies.variants:
        lines.append(("", "so many are in the nature of the set: variants, or too small or simple to tell apart"))
    if data.classes is not None:
        exact, near = copies.exact_across_classes, copies.near_across_classes
        found = f"{many(len(exact), 'group')} of exact and {len(near):,} of near copies" if exact or near else "none"
        lines += _labelled("across classes", [found, *_examples([*exact, *near], " and ")])
    for split, leak in copies.across_splits.items():
        text = f"{len(leak.exact):,} exactly, {len(leak.near):,} nearly, of {leak.images:,}"
        lines += _labelled(f"also in {split}", [text, *_examples([*leak.exact, *leak.near], " and ")])
    return lines


def class_lines(classes: dict[str, int] | None) -> Lines:
    if classes is None:
        return [("classes", "none")]
    listed = [f"{name} {count:,}" for name, count in list(classes.items())[:CLASSES]]
    listed += [f"and {len(classes) - CLASSES:,} more"] if len(classes) > CLASSES else []
    least, most = (pick(classes, key=lambda name: classes[name]) for pick in (min, max))
    ratio = f"1 to {classes[most] / classes[least]:.3g}" if classes[least] else "no end"
    few = sum(count < FEW_IN_CLASS for count in classes.values())
    ends = f"smallest {least} ({classes[least]:,}), largest {most} ({classes[most]:,})"
    return [
        ("classes", f"{len(classes):,}: {', '.join(listed)}"),
        ("balance", f"{ends}, {ratio}; {few:,} with fewer than {FEW_IN_CLASS}"),
    ]


def pixel_lines(pixels: PixelStatistics) -> Lines:
    said = "mean {:.1f}, standard deviation {:.1f} of 255; in -1..1: {:+.3f}, {:.3f}"
    rows = zip(pixels.channels, pixels.mean, pixels.std, strict=True)
    return [
        *((channel, said.format(mean, std, mean / 127.5 - 1, std / 127.5)) for channel, mean, std in rows),
        ("pure pixels", f"black {pixels.black:.2%}, white {pixels.white:.2%}"),
        ("of one colour", _named(pixels.one_colour)),
        ("nearly black", _named(pixels.dark)),
    ]


def _labelled(label: str, texts: Sequence[str]) -> Lines:
    """Put the label before the first of these lines."""
    return [(label if k == 0 else "", text) for k, text in enumerate(texts)]


def _examples(groups: Groups, between: str) -> list[str]:
    return [between.join(group[:NAMES]) for group in groups[:GROUPS]]


def _grouped(groups: Groups) -> str:
    images = sum(map(len, groups))
    return f"{many(len(groups), 'group')} of {images:,} images, {images - len(groups):,} to spare" if groups else "none"


def _named(names: Sequence[str]) -> str:
    """Format a count with names: "2: a.png, b.png"."""
    return f"{len(names):,}: {', '.join(names[:NAMES])}" if names else "0"


def _size(size: Sequence[int]) -> str:
    return " x ".join(map(str, size))


def _shape(image: tuple[str, int, int]) -> str:
    name, height, width = image
    return f"{width / height:.3g} ({height} x {width}, {name})"
