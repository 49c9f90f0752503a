"""Notes about a pack: how its images were converted, and which were unreadable."""

import numpy as np

from .pack_writer import HopelessError
from .sources.fit import Layout
from .sources.folder_labels import first_few, printable
from .sources.source import Source

COMPOSED, RESHAPED, ENLARGED, DARK = 2, 4, 8, 16  # bits of an image's flag, beside DONE


def notes_of(done: np.ndarray, layout: Layout, skipped: dict[int, str], names: list[str]) -> list[str]:
    """Write the notes for the user. done: the flags, uint8 [N]; skipped: position and reason; names: of all N files."""
    total = len(names) - len(skipped)
    verb = {"crop": "cropped to their centre", "pad": "padded", "squash": "squashed"}[layout.fit]
    colour = "#{:02x}{:02x}{:02x}".format(*layout.background)
    sentences = {
        COMPOSED: f"have transparent parts: composed on {colour}.",
        RESHAPED: f"have another aspect ratio than {layout.height} x {layout.width}: {verb}.",
        ENLARGED: f"are smaller than {layout.height} x {layout.width}: enlarged.",
    }
    counts = {bit: np.count_nonzero(done & bit) for bit in sentences}
    notes = [f"{counts[bit]:,} of {total:,} images {sentences[bit]}" for bit in sentences if counts[bit]]
    if dark := [names[position] for position in np.flatnonzero(done & DARK).tolist()]:
        notes.append(
            f"warning: {len(dark):,} of {total:,} images are black or nearly so: no value above 1 of 255 (such as "
            f"{printable(dark[0])}). If they are masks of 0 and 1, multiply their values by 255 first."
        )
    if skipped:
        notes.append(f"Skipped {len(skipped):,} of {len(names):,} files: {named(skipped, names)}.")
    return notes


def named(skipped: dict[int, str], names: list[str]) -> str:
    """Name the first few files with their reasons."""
    shown = [f"{printable(names[index])} ({reason})" for index, reason in skipped.items()]
    return first_few(shown)


def refusal(source: Source, name: str, reason: str) -> HopelessError:
    """The error for an unreadable image under --strict."""
    return HopelessError(
        f"{source.name}: {printable(name)} cannot be read ({reason}); without strict it would be skipped"
    )
