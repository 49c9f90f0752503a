"""The size and channels of a pack, from what was asked for and from the headers of the images."""

from contextlib import closing

import numpy as np

from .pack_writer import DONE, Draft
from .parallel import together
from .settings import Settings
from .sources.decode import Header, read_header
from .sources.fit import Layout
from .sources.source import Pictures

GREY, SIDE = 2, (1 << 30) - 1  # the word of a header: height << 34 | width << 4 | GREY | DONE


def find_layout(draft: Draft, pictures: Pictures, settings: Settings) -> tuple[Layout, list[str]]:
    """Fill in what the settings leave to the data, from the headers of the files, and say what was found."""
    size, channels, notes = settings.size, settings.channels, []
    if size is None or channels is None:
        headers = _headers(draft, pictures, colour_settles=size is not None)
        if size is None:
            size, note = _common_size(headers)
            notes.append(note)
        channels = channels or (1 if len(headers) and not _coloured(headers).any() else 3)
    return Layout(*size, channels, settings.fit, settings.background), notes


def _headers(draft: Draft, pictures: Pictures, colour_settles: bool) -> np.ndarray:
    """The words of the readable images, uint64; not of all of them where one in colour settles what was asked."""
    words = draft.words("headers", len(pictures.names))
    if not (colour_settles and _coloured(words).any()):
        with closing(together(words, pictures.parts, read_header, draft.folder, 0)) as found:
            for position, header in found:
                words[position] = _word(header) if isinstance(header, Header) else DONE
                if colour_settles and _coloured(words[position]):
                    break
    return words[words > DONE]


def _word(header: Header) -> int:
    return header.height << 34 | header.width << 4 | GREY * header.grey | DONE


def _coloured(words: np.ndarray) -> np.ndarray:
    return (words > DONE) & (words & GREY == 0)


def _common_size(headers: np.ndarray) -> tuple[tuple[int, int], str]:
    heights, widths = headers >> 34, headers >> 4 & SIDE
    if len(np.unique(headers >> 4)) <= 1:
        height, width = (int(heights[0]), int(widths[0])) if len(headers) else (1, 1)
        return (height, width), f"All images are {height} x {width}: packed at that size."
    side = int(np.median(np.minimum(heights, widths)))
    note = f"Sizes differ: packed at {side} x {side}, the median short side; set the size for another."
    return (side, side), note
