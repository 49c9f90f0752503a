"""The two types behind every source: a located `Source`, and the `ImageList` that it holds."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ...errors import InputError

MAX_FILE_BYTES = 1 << 30


class ImageRef(NamedTuple):
    """A reference to one image: `open` returns it undecoded, in any thread, or raises."""

    position: int
    open: Callable[[], Image.Image]
    held_bytes: int = 0  # memory that is taken until then


Wanted = Callable[[int], bool]  # whether the image at a position is to be read
Chunk = Callable[[Wanted], Iterator[ImageRef]]  # some images, in whatever order they are read fastest, ever the same


@dataclass(frozen=True)
class ImageList:
    """N images in their final order, and the chunks in which they are read."""

    names: list[str]
    parts: list[Chunk]
    labels: np.ndarray | None = None  # int64 [N], positions in `classes`
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    captions: list[str] | None = None  # of each, "" for none; None where no image has one

    def items(self, wanted: Wanted = lambda position: True) -> Iterator[ImageRef]:
        """Yield every wanted image once, in the order in which the source is read fastest."""
        for part in self.parts:
            yield from part(wanted)


@dataclass(frozen=True)
class Source:
    """A located data source: `key` changes whenever its content may have changed, and `read` lists its images."""

    name: str
    key: str
    read: Callable[[], ImageList]


def parts_of(count: int, item: Callable[[int], ImageRef]) -> list[Chunk]:
    """The chunks of a source whose images can be opened in any order: `item(position)` for 0..count - 1."""
    return [lambda wanted: (item(position) for position in range(count) if wanted(position))]


def file_key(*paths: Path) -> str:
    """sha256 of the contents of the files, in hexadecimal."""
    digests = []
    for path in paths:
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def check_file_size(size: int) -> None:
    """Raise ValueError for a file too large to be an image, before it is read into memory."""
    if size > MAX_FILE_BYTES:
        raise ValueError(f"{size >> 20:,} MiB is too large for an image file")


def only_split(name: str, split: str) -> None:
    """Raise InputError for a split other than train or all of a source that has no splits."""
    if split not in ("train", "all"):
        raise InputError(f"{name} has no {split} split: it is not divided into splits")


def array_images(
    images: np.ndarray,
    labels: np.ndarray | None = None,
    classes: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
    value_range: tuple[float, float] | None = None,
) -> ImageList:
    """Images of an array: [N, H, W] or [N, H, W, C], uint8 (or uint16 [N, H, W]); of any type with a value range,
    which are the values of black and white."""
    names = [f"image {index}" for index in range(len(images))]
    parts = parts_of(len(images), lambda index: ImageRef(index, partial(_from_array, images, index, value_range)))
    return ImageList(names, parts, labels, classes, notes)


def _from_array(images: np.ndarray, index: int, value_range: tuple[float, float] | None) -> Image.Image:
    image = images[index]
    if value_range is not None:  # here, one at a time: the floats of the whole set may not fit in memory
        black, white = value_range
        image = np.round((np.clip(image.astype(np.float64), black, white) - black) * (255 / (white - black)))
    return Image.fromarray(np.ascontiguousarray(image.astype(np.uint8) if value_range else image))
