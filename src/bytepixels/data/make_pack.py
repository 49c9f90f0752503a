"""Decode a source into a finished pack: every image once, in threads."""

from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from ..wording import many
from .layout import find_layout
from .notes import COMPOSED, DARK, ENLARGED, RESHAPED, named, notes_of, refusal
from .pack_writer import DONE, HopelessError, PackWriter, Progress
from .packed import FORMAT
from .parallel import Unreadable, in_parallel
from .settings import Settings
from .sources.decode import is_dark, quiet_pillow, to_pixels
from .sources.fit import Layout
from .sources.folder_labels import Labels, first_few, printable
from .sources.source import ImageList, Source


def make_pack(
    source: Source, settings: Settings, strict: bool, said: list[str], folder: Path, progress: Progress
) -> None:
    """Write the pack of a source into the temporary `folder`. `said` receives the notes of this call alone."""
    listing = source.read()
    names = listing.names
    with quiet_pillow():
        layout, notes = find_layout(folder, listing, settings)
        writer = PackWriter(folder, "images.npy", (len(names), layout.channels, layout.height, layout.width))
        before = writer.count
        with writer:
            images = f"{len(names) - before:,} images of {layout.height} x {layout.width}"
            writer.check_space(images, "ask for a smaller size")
            skipped = _decode(writer, source, listing, layout, strict, progress)
    if len(skipped) == len(names):
        raise HopelessError(f"{source.name} holds no readable image: {named(skipped, names)}")
    labels, classes, lost = _labels_left(listing, list(skipped))
    meta = {
        "format": FORMAT,
        "source": source.name,
        "source_key": source.key,
        "settings": asdict(settings),
        "count": len(names) - len(skipped),
        "size": [layout.height, layout.width],
        "channels": layout.channels,
        "classes": classes,
        "skipped": [(names[position], reason) for position, reason in skipped.items()],
        "notes": [*listing.notes, *notes, *notes_of(writer.done, layout, skipped, names), *lost],
    }
    captions = [caption for k, caption in enumerate(listing.captions or ()) if k not in skipped]
    writer.finalize(meta | ({"captions": captions} if any(captions) else {}), labels)
    if before:
        said.append(f"{before:,} of {len(names):,} images lay packed already: it went on from there.")


def _decode(
    writer: PackWriter, source: Source, listing: ImageList, layout: Layout, strict: bool, progress: Progress
) -> dict[int, str]:
    """Decode every image that has no row yet; returns position and reason of the unreadable ones."""
    before, total, skipped = writer.count, len(listing.names), dict[int, str]()
    if before:
        progress(before, total)
    items = listing.items(lambda position: not writer.done[position])
    with closing(in_parallel(partial(_row, layout=layout), items, writer.rows.row_bytes)) as results:
        for count, (position, result) in enumerate(results, before + 1):
            if not isinstance(result, Unreadable):
                writer.write(position, *result)
            elif strict:
                raise refusal(source, listing.names[position], result)
            else:
                skipped[position] = printable(result)
            progress(count, total)
    if writer.count + len(skipped) < total:
        raise OSError("images of the source went missing while they were packed; run the same command again")
    return dict(sorted(skipped.items()))


def _row(image: Image.Image, layout: Layout) -> tuple[bytes, int]:
    """Convert an image to its row and its flag."""
    decoded = to_pixels(image, layout)
    dark = is_dark(decoded.pixels)
    flag = DONE | DARK * dark | COMPOSED * decoded.composed | RESHAPED * decoded.reshaped | ENLARGED * decoded.enlarged
    return decoded.pixels.tobytes(), flag


def _labels_left(listing: ImageList, skipped: list[int]) -> Labels:
    """The labels without the skipped images, and without the classes that lose their last one by it."""
    if listing.labels is None:
        return None, listing.classes, []
    labels, count = np.delete(listing.labels, skipped), len(listing.classes)
    lost = (np.bincount(listing.labels, minlength=count) > 0) & (np.bincount(labels, minlength=count) == 0)
    if not lost.any():
        return labels, listing.classes, []
    gone = [name for name, is_lost in zip(listing.classes, lost, strict=True) if is_lost]
    classes = tuple(name for name, is_lost in zip(listing.classes, lost, strict=True) if not is_lost)
    left_out = f"left out {many(len(gone), 'class', 'classes')} without a readable image"
    note = f"warning: {left_out}: {first_few(gone, 10)}; {len(classes):,} remain."
    return (np.cumsum(~lost) - 1)[labels].astype(np.int64), classes, [note]
