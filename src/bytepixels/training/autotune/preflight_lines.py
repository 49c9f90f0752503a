"""The numbers of a report on images, in words: lines of (label, text) for each of its parts."""

from collections.abc import Mapping, Sequence

from ...data.inspection.duplicates import BITS, NEAR_BITS, NEAR_CORRELATION
from ...data.inspection.statistics import FEW_IN_CLASS, UNREADABLE, Numbers
from ...wording import many

Lines = list[tuple[str, str]]
SHOWN_CLASSES = 10


def picture_lines(numbers: Numbers) -> Lines:
    sizes, ratios = numbers["sizes"], numbers["aspect_ratios"]
    total = numbers["readable"]
    if sizes["different"] == 1:
        size = f"{_size(sizes['median'])}, all of them"
    else:
        steps = ", ".join(f"{name} {_size(sizes[name])}" for name in ("smallest", "median", "largest"))
        size = f"{sizes['different']:,} different; by area: {steps} (height x width)"
    ratio = f"{ratios['commonest']:g} (width / height), all of them"
    if ratios["others"]:
        ends = f"from {_ratio(ratios['tallest'])} to {_ratio(ratios['widest'])}"
        ratio = f"{ratios['commonest']:g} (width / height) is the commonest, {ratios['others']:,} are others, {ends}"
    special = {
        "transparent": "with transparent parts",
        "rotated_by_exif": "turned by EXIF",
        "several_frames": "animated or with several pages (the first is taken)",
        "grey": "grey",
    }
    found = [f"{numbers[key]:,} {words}" for key, words in special.items() if numbers[key]]
    return [
        ("images", f"{total:,}" + (f" of {numbers['files']:,} files" if total < numbers["files"] else "")),
        ("sizes", size),
        ("aspect ratio", ratio),
        ("kinds", ", ".join(f"{kind} {count:,}" for kind, count in numbers["kinds"].items())),
        ("among them", ", ".join(found) or "none is transparent, turned, animated or grey"),
    ]


def file_lines(numbers: Numbers) -> Lines:
    files = numbers["unreadable"]
    strange, damaged = numbers["no_pictures"], numbers["damaged"]
    counts = [f"{strange:,} not {'an image' if strange == 1 else 'images'}"] if strange else []
    counts += [f"{damaged:,} damaged or truncated"] if damaged else []
    lines = [("cannot be read", ", ".join(counts) or "none")]
    lines += [("", f"{file['name']}: {file['reason']}") for file in files[:UNREADABLE]]
    if len(files) > UNREADABLE:
        lines.append(("", f"and {len(files) - UNREADABLE:,} more (all of them with --json)"))
    return lines + [("note" if k == 0 else "", note) for k, note in enumerate(numbers["notes"])]


def copy_lines(numbers: Numbers) -> Lines:
    exact, near, classes = numbers["exact"], numbers["near"], numbers["across_classes"]
    rule = f"at most {NEAR_BITS} of {BITS} hash bits apart, thumbnails correlate by {NEAR_CORRELATION}, or mirrored"
    lines = [("exact copies", _grouped(exact)), *_shown(exact["examples"])]
    lines += [("near copies", _grouped(near) + f" ({rule})"), *_shown(near["examples"], " looks like ")]
    if near["variants"]:
        lines.append(("", "so many are in the nature of the set: variants, or too small or simple to tell apart"))
    if not near["all_compared"]:
        lines.append(("", "so many look alike that not every pair was compared: there may be more"))
    if classes is not None:
        found = f"{many(classes['exact_groups'], 'group')} of exact and {classes['near_groups']:,} of near copies"
        lines.append(("across classes", found if classes["examples"] else "none"))
        lines += _shown(classes["examples"], " and ")
    for split, leak in numbers["across_splits"].items():
        text = f"{leak['exact']:,} exactly, {leak['near']:,} nearly, of {leak['pictures']:,}"
        lines += [(f"also in {split}", text), *_shown(leak["examples"], " and ")]
    return lines


def class_lines(numbers: Numbers | None) -> Lines:
    if numbers is None:
        return [("classes", "none")]
    counts: Mapping[str, int] = numbers["pictures"]
    listed = ", ".join(f"{name} {count:,}" for name, count in list(counts.items())[:SHOWN_CLASSES])
    more = f", and {len(counts) - SHOWN_CLASSES:,} more" if len(counts) > SHOWN_CLASSES else ""
    ends = [f"{end} {numbers[end]['name']} ({numbers[end]['pictures']:,})" for end in ("smallest", "largest")]
    ratio = "no end" if numbers["ratio"] is None else f"1 to {numbers['ratio']:.3g}"
    return [
        ("classes", f"{numbers['count']:,}: {listed}{more}"),
        ("balance", f"{', '.join(ends)}, {ratio}; {len(numbers['few']):,} with fewer than {FEW_IN_CLASS}"),
    ]


def pixel_lines(numbers: Numbers) -> Lines:
    rows = zip(*(numbers[key] for key in ("channels", "mean", "std", "mean_of_x0", "std_of_x0")), strict=True)
    lines = [
        (name, f"mean {mean:.1f}, standard deviation {std:.1f} of 255; in -1..1: {x0:+.3f}, {std_x0:.3f}")
        for name, mean, std, x0, std_x0 in rows
    ]
    return [
        *lines,
        ("pure pixels", f"black {100 * numbers['black']:.2f}%, white {100 * numbers['white']:.2f}%"),
        ("of one colour", _named(numbers["one_colour"])),
        ("nearly black", _named(numbers["dark"])),
    ]


def _named(marked: Numbers) -> str:
    """ "2: a.png, b.png"."""
    return f"{marked['pictures']:,}: {', '.join(marked['examples'])}" if marked["pictures"] else "0"


def _size(size: Sequence[int]) -> str:
    return f"{size[0]} x {size[1]}"


def _ratio(shape: Numbers) -> str:
    return f"{shape['ratio']:.3g} ({_size(shape['size'])}, {shape['name']})"


def _grouped(numbers: Numbers) -> str:
    if not numbers["groups"]:
        return "none"
    return f"{many(numbers['groups'], 'group')} of {numbers['pictures']:,} images, {numbers['spare']:,} to spare"


def _shown(examples: Sequence[Sequence[str]], between: str = " = ") -> Lines:
    return [("", between.join(names)) for names in examples]
