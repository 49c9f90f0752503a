"""One pass over every image of a source: its header, its pixel statistics and its fingerprint."""

import hashlib
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image

from ...events import Work
from ..parallel import Unreadable, in_parallel
from ..sources.decode import ImageHeader, Layout, is_dark, quiet_pillow, read_header, to_pixels, upright_size
from ..sources.source import ImageList

Result = TypeVar("Result")
THUMB = 16  # side of the thumbnails
SAMPLE, SAMPLE_BYTES = 256, 64 << 20  # packed images that are kept to train a few steps on
MARKS = ("transparent", "composed", "reshaped", "enlarged", "one_colour", "dark")


class ImageInspection(NamedTuple):
    """The facts from the pixels of one image."""

    digest: bytes  # of every decoded pixel, upright, as RGBA
    thumb: np.ndarray  # uint8 [3, 16, 16], the whole image
    pixels: np.ndarray  # uint8 [C, H, W], as it is packed
    marks: tuple[bool, ...]  # one for each of MARKS


@dataclass
class DatasetInspection:
    """The inspection of one split: a row for each image, readable or not, and pixel counts of the readable ones."""

    images: ImageList
    digests: list[bytes]
    thumbs: np.ndarray  # uint8 [N, 3, 16, 16]
    marks: np.ndarray  # bool [N, len(MARKS)]
    histogram: np.ndarray  # int64 [C, 256]: how often each channel has each grey level
    black: int = 0  # pixels whose colours are all 0
    white: int = 0  # ... or all 255
    unreadable: dict[int, str] = field(default_factory=dict)  # position -> why
    sample: dict[int, np.ndarray] = field(default_factory=dict)  # position -> uint8 [C, H, W], of one at least

    @property
    def readable(self) -> np.ndarray:
        """Positions of the images that could be read, [n]."""
        return np.array([k for k in range(len(self.digests)) if k not in self.unreadable], np.int64)

    def marked(self, mark: str) -> np.ndarray:
        """Positions of the images with one of MARKS."""
        return np.flatnonzero(self.marks[:, MARKS.index(mark)])


def read_headers(images: ImageList) -> dict[int, ImageHeader]:
    """Read the header of every image that has one: position -> ImageHeader."""
    with closing(each_header(images)) as headers:
        return dict(headers)


def each_header(images: ImageList) -> Generator[tuple[int, ImageHeader], None, None]:
    """Yield position and header of every image that has one; close the generator to stop early."""
    with closing(_every(images, "headers", read_header, 0)) as results:
        for position, header in results:
            if isinstance(header, ImageHeader):
                yield position, header


def inspect_image(image: Image.Image, layout: Layout) -> ImageInspection:
    """Decode one image in full, and convert it as packing does."""
    height, width = upright_size(image)
    whole = to_pixels(image, Layout(height, width, 4, "squash", layout.background)).pixels  # [4, height, width]
    pixels = np.ascontiguousarray(whole.transpose(1, 2, 0))
    digest = hashlib.blake2b(f"{height} {width} ".encode(), digest_size=16)
    digest.update(pixels.data)
    decoded = Image.fromarray(pixels)
    thumb = to_pixels(decoded, Layout(THUMB, THUMB, 3, "squash", layout.background)).pixels
    packed = to_pixels(decoded, layout)
    one_colour, dark = bool((packed.pixels == packed.pixels[:, :1, :1]).all()), is_dark(packed.pixels)
    marks = bool(whole[3].min() < 255), packed.composed, packed.reshaped, packed.enlarged, one_colour, dark
    return ImageInspection(digest.digest(), thumb, packed.pixels, marks)


def inspect_images(images: ImageList, layout: Layout) -> DatasetInspection:
    """Inspect every image, in about a kilobyte of memory each."""
    total, image_bytes = len(images.names), layout.channels * layout.height * layout.width
    thumbs, marks = np.zeros((total, 3, THUMB, THUMB), np.uint8), np.zeros((total, len(MARKS)), bool)
    found = DatasetInspection(images, [b""] * total, thumbs, marks, np.zeros((layout.channels, 256), np.int64))
    kept = min(SAMPLE, max(1, SAMPLE_BYTES // image_bytes))
    every = -(-total // kept)  # evenly over the source, so that every class is there
    with closing(_every(images, "pixels", partial(inspect_image, layout=layout), image_bytes)) as results:
        for position, result in results:
            if isinstance(result, Unreadable):
                found.unreadable[position] = str(result)
                continue
            found.digests[position], thumbs[position], pixels, marks[position] = result
            _count(found, pixels)
            if position % every == 0 or not found.sample:
                found.sample[position] = pixels.copy()
    return found


def _every(
    images: ImageList, what: str, work: Callable[[Image.Image], Result], result_bytes: int
) -> Generator[tuple[int, Result | Unreadable], None, None]:
    """Yield position and work(image) of every image, with progress."""
    with (
        quiet_pillow(),
        Work(what, len(images.names)) as progress,
        closing(in_parallel(work, images.items(), result_bytes)) as results,
    ):
        for count, result in enumerate(results, 1):
            progress.update(count)
            yield result


def _count(found: DatasetInspection, pixels: np.ndarray) -> None:
    """Add the pixels of one image to the counts."""
    for channel, counts in zip(pixels, found.histogram, strict=True):
        counts += np.bincount(channel.ravel(), minlength=256)
    colours = pixels[: 1 if len(pixels) <= 2 else 3]  # without alpha
    found.black += int((colours == 0).all(axis=0).sum())
    found.white += int((colours == 255).all(axis=0).sum())
