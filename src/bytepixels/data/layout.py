"""The size and channels of a pack, from the settings and from the headers of the images."""

import json
from collections.abc import Collection
from contextlib import closing
from pathlib import Path

import numpy as np

from ..files import write_whole
from .cache import make_folder
from .inspection.survey import each_header
from .settings import Settings
from .sources.decode import ImageHeader
from .sources.fit import Layout
from .sources.source import ImageList


def find_layout(folder: Path, images: ImageList, settings: Settings) -> tuple[Layout, list[str]]:
    """Choose the size and channels that the settings leave open, from the headers of the files, with notes on what was
    found; kept in `folder` so that an interrupted call can resume."""
    size, channels, notes, kept = settings.size, settings.channels, list[str](), folder / "layout.json"
    if size is None or channels is None:
        try:
            size, channels, notes = json.loads(kept.read_text())
        except (OSError, ValueError):
            size, channels, notes = _from_headers(images, size, channels)
            make_folder(folder)
            write_whole(kept, json.dumps([size, channels, notes]))
    height, width = size
    return Layout(height, width, channels, settings.fit, settings.background), notes


def _from_headers(
    images: ImageList, size: tuple[int, int] | None, channels: int | None
) -> tuple[tuple[int, int], int, list[str]]:
    """Size and channels, and sentences on the size where it was not asked for. Then one image in colour is enough."""
    seen = []
    with closing(each_header(images)) as headers:
        for _, header in headers:
            seen.append(header)
            if size is not None and not header.grey:
                break
    channels = channels or (1 if seen and all(header.grey for header in seen) else 3)
    if size is not None:
        return size, channels, []
    height, width = own_size(seen)
    if len(sizes_of(seen)) == 1:
        note = f"All images are {height} x {width}: packed at that size."
    else:
        note = f"Sizes differ: packed at {height} x {width}, the median short side; set the size for another."
    return (height, width), channels, [note]


def own_size(seen: Collection[ImageHeader]) -> tuple[int, int]:
    """The size that all these images have, else their median short side, squared."""
    sizes = sizes_of(seen)
    if len(sizes) == 1:
        return sizes.pop()
    side = int(np.median([min(one.height, one.width) for one in seen]))
    return side, side


def sizes_of(seen: Collection[ImageHeader]) -> set[tuple[int, int]]:
    """The sizes among these images, height and width; 1 x 1 where there are none."""
    return {(one.height, one.width) for one in seen} or {(1, 1)}
