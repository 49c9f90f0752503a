"""One look at every image of a source: what its file says, what its pixels say, and what it is recognised by."""

import hashlib
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..pack import Progress
from ..parallel import Unreadable, in_parallel
from ..sources.decode import Layout, is_dark, orientation, quiet_pillow, read_header, to_pixels
from ..sources.source import Pictures
from .duplicates import BITS, THUMB, fingerprints

CHUNK, CHUNK_BYTES = 512, 16 << 20  # images, and bytes of theirs, whose pixels are counted at a time
SAMPLE, SAMPLE_BYTES = 256, 64 << 20  # packed images that are kept to train a few steps on


class Glance(NamedTuple):
    """What a file says before its pixels are decoded."""

    height: int  # upright
    width: int
    grey: bool
    kind: str  # "PNG RGBA"; "array L" where it never was a file
    rotated: bool  # EXIF says that it lies on its side, on its head or is mirrored
    frames: bool  # an animation or several pages, of which the first counts


class Look(NamedTuple):
    """What the pixels of one image say."""

    digest: bytes  # of every decoded pixel, upright, as RGBA
    thumb: np.ndarray  # uint8 [3, 16, 16], the whole image
    pixels: np.ndarray  # uint8 [C, H, W], as it is packed
    marks: tuple[bool, ...]  # transparent, composed, reshaped, enlarged, flat, dark


MARKS = ("transparent", "composed", "reshaped", "enlarged", "flat", "dark")


@dataclass
class Survey:
    """All images of one split: an entry for each, read or not, and the pixels of those that were, counted."""

    pictures: Pictures
    unreadable: dict[int, str]  # position -> why
    digests: list[bytes]
    bits: np.ndarray  # int8 [N, 64], -1 and 1
    mirrored: np.ndarray  # the same of the mirror image
    thumbs: np.ndarray  # uint8 [N, 3, 8, 8]
    marks: dict[str, np.ndarray]  # bool [N] for each of MARKS
    histogram: np.ndarray  # int64 [C, 256]: how often each channel has each grey level
    black: int = 0  # pixels whose colours are all 0
    white: int = 0  # ... or all 255
    sample: dict[int, np.ndarray] = field(default_factory=dict)  # position -> uint8 [C, H, W], of one at least

    @property
    def readable(self) -> np.ndarray:
        """Positions of the images that could be read, [n]."""
        return np.array([k for k in range(len(self.digests)) if k not in self.unreadable], np.int64)

    def count(self, mark: str) -> int:
        return int(self.marks[mark].sum())


def glances(pictures: Pictures, progress: Progress | None = None) -> dict[int, Glance]:
    """Position -> what its header says, of every image that has one."""
    found = {}
    with quiet_pillow(), closing(in_parallel(glance, pictures.items(), 0)) as seen:
        for count, (position, result) in enumerate(seen, 1):
            if isinstance(result, Glance):
                found[position] = result
            if progress:
                progress(count, len(pictures.names))
    return found


def glance(image: Image.Image) -> Glance:
    kind = f"{image.format or 'array'} {image.mode}"
    header, rotated, frames = read_header(image), orientation(image) != 1, False
    with suppress(Exception):  # damaged later frames do not matter: only the first is taken
        frames = bool(getattr(image, "is_animated", False))
    return Glance(header.height, header.width, header.grey, kind, rotated, frames)


def look(image: Image.Image, layout: Layout) -> Look:
    """Decode one image in full, and make of it what is packed."""
    height, width, _ = read_header(image)
    whole = to_pixels(image, Layout(height, width, 4, "squash", layout.background)).pixels  # [4, height, width]
    pixels = np.ascontiguousarray(whole.transpose(1, 2, 0))
    digest = hashlib.blake2b(f"{height} {width} ".encode(), digest_size=16)
    digest.update(pixels.data)
    decoded = Image.fromarray(pixels)
    thumb = to_pixels(decoded, Layout(THUMB, THUMB, 3, "squash", layout.background)).pixels
    packed = to_pixels(decoded, layout)
    flat = bool((packed.pixels == packed.pixels[:, :1, :1]).all())
    marks = (
        bool(whole[3].min() < 255),
        packed.composed,
        packed.reshaped,
        packed.enlarged,
        flat,
        is_dark(packed.pixels),
    )
    return Look(digest.digest(), thumb, packed.pixels, marks)


def survey(pictures: Pictures, layout: Layout, progress: Progress | None = None) -> Survey:
    """Look at every image, in memory of about half a kilobyte each."""
    total = len(pictures.names)
    found = Survey(
        pictures,
        {},
        [b""] * total,
        np.zeros((total, BITS), np.int8),
        np.zeros((total, BITS), np.int8),
        np.zeros((total, 3, THUMB // 2, THUMB // 2), np.uint8),
        {mark: np.zeros(total, bool) for mark in MARKS},
        np.zeros((layout.channels, 256), np.int64),
    )
    result_bytes = layout.channels * layout.height * layout.width
    kept = set(_sample_positions(total, result_bytes))
    with quiet_pillow(), closing(in_parallel(partial(look, layout=layout), pictures.items(), result_bytes)) as seen:
        for chunk in _chunks(seen, total, progress):
            for position, result in chunk.items():
                if isinstance(result, Look):
                    found.digests[position] = result.digest
                    for mark, value in zip(MARKS, result.marks, strict=True):
                        found.marks[mark][position] = value
                    if position in kept or not found.sample:
                        found.sample[position] = result.pixels.copy()
                else:
                    found.unreadable[position] = str(result)
            _count(found, {k: result for k, result in chunk.items() if isinstance(result, Look)})
    return found


def _chunks(
    seen: Iterator[tuple[int, Look | Unreadable]], total: int, progress: Progress | None
) -> Iterator[dict[int, Look | Unreadable]]:
    chunk: dict[int, Look | Unreadable] = {}
    held = 0
    for count, (position, result) in enumerate(seen, 1):
        chunk[position] = result
        held += result.pixels.nbytes if isinstance(result, Look) else 0
        if progress:
            progress(count, total)
        if len(chunk) == CHUNK or held > CHUNK_BYTES:
            yield chunk
            chunk, held = {}, 0
    if chunk:
        yield chunk


def _count(found: Survey, looks: dict[int, Look]) -> None:
    """Add the pixels of some images to the counts, and keep what they are recognised by."""
    if not looks:
        return
    at = np.array(list(looks))
    pixels = np.stack([one.pixels for one in looks.values()])  # [n, C, H, W]
    for channel, counts in enumerate(found.histogram):
        counts += np.bincount(pixels[:, channel].ravel(), minlength=256)
    colours = pixels[:, : 1 if pixels.shape[1] <= 2 else 3]  # without alpha
    found.black += int((colours == 0).all(axis=1).sum())
    found.white += int((colours == 255).all(axis=1).sum())
    found.bits[at], found.mirrored[at], found.thumbs[at] = fingerprints(np.stack([one.thumb for one in looks.values()]))


def _sample_positions(total: int, picture_bytes: int) -> range:
    """Evenly over the source, so that every class is there."""
    most = min(SAMPLE, max(1, SAMPLE_BYTES // picture_bytes))
    return range(0, total, max(1, -(-total // most)))
