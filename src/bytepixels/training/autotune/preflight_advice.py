"""What is worth doing before training: a few sentences, each with a count and an action."""

from ...data.inspection.statistics import FEW_IN_CLASS, Numbers
from ...wording import many
from ..session import FEW

MOST = 5  # sentences


def advice(report: Numbers) -> list[str]:
    """The most important sentences on a whole report; none where nothing is wrong."""
    lacking = [note for note in report["files"]["notes"] if "pip install" in note]
    found = [*_broken(report), *_copies(report["copies"]), *_pixels(report), *_classes(report), *_shapes(report)]
    return [*lacking, *found][:MOST]


def _broken(report: Numbers) -> list[str]:
    found, unreadable, check = [], len(report["files"]["unreadable"]), report["overfit"]
    if check is not None and check["learns"] is False:
        steps = many(check["steps"], "step")
        found.append(f"Find out why {steps} on one batch did not halve its loss before training in earnest.")
    if check is None:
        reckoned = report["reckoned"]
        costs = f"{reckoned['bytes'] / 1e9:,.1f} GB and {reckoned['seconds_per_picture']:,.0f} s"
        found.append(f"Choose a smaller --size or --preset: training on one image once takes about {costs} here.")
    if unreadable:
        files = many(unreadable, "file")
        found.append(f"Repair or delete {files} that cannot be read: train leaves out what it cannot read.")
    disk = report["disk"]
    lacking = disk["needed_bytes"] - disk["free_bytes"]
    if lacking > 0:
        found.append(f"Make room on the disk: {lacking / 1e9:.1f} GB are lacking for the packed set and the run.")
    return found


def _copies(copies: Numbers) -> list[str]:
    found, near = [], not copies["near"]["variants"]  # else looking alike means little
    for split, leak in copies["across_splits"].items():
        leaked = leak["exact"] + near * leak["near"]
        if leaked:
            what = f"{many(leaked, 'image')} of {split} that {_are(leaked)} in the split looked at too"
            found.append(f"Take out {what}: whatever is measured on them is too good.")
    mixed = copies["across_classes"]
    groups = mixed["exact_groups"] + near * mixed["near_groups"] if mixed else 0
    if groups:
        found.append(f"Choose a class for the copies that lie in several: {many(groups, 'group')} of them.")
    for kind, spare in (("exact", copies["exact"]["spare"]), ("near", near * copies["near"]["spare"])):
        if spare:
            what = many(spare, f"{kind} copy", f"{kind} copies")
            found.append(f"Look at {what} and delete what is to spare: what is seen more often is memorised sooner.")
    return found


def _pixels(report: Numbers) -> list[str]:
    flat, readable = report["pixels"]["one_colour"]["pictures"], report["pictures"]["readable"]
    dark = report["pixels"]["dark"]["pictures"]
    found = []
    if dark:
        what = f"{many(dark, 'image')} that {_are(dark)} black or nearly so"
        found.append(f"Look at {what}: masks of 0 and 1 must be multiplied by 255 first.")
    if flat:
        found.append(f"Look at {many(flat, 'image')} of one colour: delete what was not meant to be one.")
    if readable < FEW:
        have = f"{readable:,} there {_are(readable)}"
        found.append(f"Add images to the {have}: below {FEW} the model is likely to copy them.")
    return found


def _classes(report: Numbers) -> list[str]:
    few = len(report["classes"]["few"]) if report["classes"] else 0
    if not few:
        return []
    what = f"{many(few, 'class', 'classes')} with fewer than {FEW_IN_CLASS} images"
    return [f"Add images to {what}, or merge them: little can be learnt of them."]


def _shapes(report: Numbers) -> list[str]:
    pictures, plan = report["pictures"], report["train"]
    cut, size = pictures["aspect_ratios"]["cropped_by_more_than_a_third"], " x ".join(map(str, plan["size"]))
    found = []
    if cut:
        found.append(f"Think of --fit pad, or crop by hand: {many(cut, 'image')} would lose more than a third.")
    if pictures["enlarged"]:
        small = many(pictures["enlarged"], "image")
        found.append(f"Replace or leave out {small} smaller than {size}: enlarged, they teach it to draw blurs.")
    if plan["composed"]:
        clear = many(plan["composed"], "image")
        found.append(
            f"Choose a --background for {clear} with transparent parts, if {plan['background']} is not theirs."
        )
    return found


def _are(number: int) -> str:
    return "is" if number == 1 else "are"
