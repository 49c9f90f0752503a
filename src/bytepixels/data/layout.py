"""The size and channels of a pack, from what was asked for and from the headers of the images."""

import json
from collections import Counter
from contextlib import closing
from pathlib import Path

import numpy as np

from ..files import write_whole
from .cache import make_folder
from .parallel import in_parallel
from .settings import Settings
from .sources.decode import Header, read_header
from .sources.fit import Layout
from .sources.source import ImageList


def find_layout(folder: Path, images: ImageList, settings: Settings) -> tuple[Layout, list[str]]:
    """What the settings leave to the data, from the headers of the files, and sentences on what was found; kept in
    `folder` for a call that goes on there."""
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
    headers, notes = _headers(images, colour_settles=size is not None), list[str]()
    if size is None:
        size, note = _common_size(headers)
        notes = [note]
    return size, channels or (1 if headers and all(header.grey for header in headers) else 3), notes


def _headers(images: ImageList, colour_settles: bool) -> Counter[Header]:
    """How many readable images have each header; not of all of them where one in colour settles what was asked."""
    headers = Counter[Header]()
    with closing(in_parallel(read_header, images.items(), 0)) as found:
        for _, header in found:
            if isinstance(header, Header):
                headers[header] += 1
                if colour_settles and not header.grey:
                    break
    return headers


def _common_size(headers: Counter[Header]) -> tuple[tuple[int, int], str]:
    sizes = list({(header.height, header.width) for header in headers})
    if len(sizes) <= 1:
        height, width = sizes[0] if sizes else (1, 1)
        return (height, width), f"All images are {height} x {width}: packed at that size."
    sides = [min(header.height, header.width) for header in headers]
    side = int(np.median(np.repeat(sides, list(headers.values()))))
    return (side, side), f"Sizes differ: packed at {side} x {side}, the median short side; set the size for another."
