"""Decode one image file to uint8 [C, H, W]: any mode, any size, with transparency and EXIF rotation applied."""

import logging
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from threading import Semaphore
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from .fit import REDUCING_GAP, Layout, fit

logging.getLogger("PIL").addHandler(logging.NullHandler())  # what is wrong with a file is ours to say, once

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
GREY_MODES = {"1", "L", "LA", "F"}
COMMON_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
# Formats that Pillow names but that are no pixels, need another program, or (EPS) would run one.
REFUSED_FORMATS = {"EPS", "MPEG", "HDF5", "GRIB", "BUFR", "WMF"}
SWAPS_SIDES = {5, 6, 7, 8}  # EXIF orientations that turn a landscape into a portrait
ORIENTATION = 0x0112
LARGE = 1 << 24  # pixels; of larger images only two are decoded at a time, for each takes a gigabyte on its way
HUGE = 1 << 26  # ... and of those above this, one
_LARGE_TURNS, _HUGE_TURN = Semaphore(2), Semaphore(1)
DARKEST = 1  # of 255: the greatest value of an image that is black to the eye
PNG_EXIF = {"exif", "Raw profile type exif", "XML:com.adobe.xmp"}


class ImageHeader(NamedTuple):
    """The facts in an image file's header, before the pixels are decoded."""

    height: int  # upright
    width: int
    grey: bool
    kind: str  # "PNG RGBA"; "array L" where it never was a file
    rotated: bool  # EXIF says that it lies on its side, on its head or is mirrored
    several_frames: bool  # an animation or several pages, of which the first counts


class Decoded(NamedTuple):
    """A decoded image, uint8 [C, H, W], and the conversions that it needed."""

    pixels: np.ndarray
    composed: bool  # some pixels were transparent and lie on the background now
    reshaped: bool  # the aspect ratio was not the layout's: cropped, padded or squashed
    enlarged: bool


@cache
def image_formats() -> tuple[str, ...]:
    """The image formats that may be opened, by Pillow's names."""
    Image.init()
    with suppress(ImportError):  # the extra "heif"
        from pillow_heif import register_heif_opener

        register_heif_opener()
    # Pillow tries them one after the other: the common ones first make opening three times faster.
    allowed = set(Image.OPEN) - REFUSED_FORMATS
    return (*(name for name in COMMON_FORMATS if name in allowed), *sorted(allowed - set(COMMON_FORMATS)))


@cache
def image_suffixes() -> frozenset[str]:
    """The lower-case suffixes of those formats, with the dot."""
    allowed = {*image_formats(), "MPO"}  # which are opened as JPEG
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in allowed)


@cache
def lacking_suffixes() -> dict[str, str]:
    """Suffixes of photo formats that cannot be read here -> the package to install."""
    heif = dict.fromkeys((".heic", ".heif", ".hif"), "pip install 'bytepixels[heif]'")
    lacking = heif | {".avif": "pip install 'pillow>=11.3'"}
    return {suffix: remedy for suffix, remedy in lacking.items() if suffix not in image_suffixes()}


def open_image(file: str | BinaryIO) -> Image.Image:
    """Read the header of an image file; the pixels are decoded when first used."""
    return Image.open(file, formats=image_formats())


def read_header(image: Image.Image) -> ImageHeader:
    """What the header of an image says that is not decoded yet."""
    frames = False
    with suppress(Exception):  # damaged later frames do not matter: only the first is taken
        frames = bool(getattr(image, "is_animated", False))
    kind = f"{image.format or 'array'} {image.mode}"
    return ImageHeader(*upright_size(image), _is_grey(image), kind, orientation(image) != 1, frames)


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Height and width of an image once it is turned as its EXIF says."""
    width, height = image.size
    turned = image.format != "TIFF" and orientation(image) in SWAPS_SIDES  # Pillow turns a TIFF by itself
    return (width, height) if turned else (height, width)


def to_pixels(image: Image.Image, layout: Layout) -> Decoded:
    """Decode, rotate upright, blend with the background, and fit to the layout's size: uint8 [C, H, W]."""
    if image.format == "PNG":
        _check_png(image.fp)  # type: ignore[attr-defined]
    side = int(REDUCING_GAP * max(layout.height, layout.width))
    size = upright_size(image)
    if min(image.size) > side:
        image.draft(None, (side, side))  # decode a JPEG at 1/2, 1/4 or 1/8, both sides still at least this long
    pixels, free = image.width * image.height, nullcontext()
    with _HUGE_TURN if pixels > HUGE else free, _LARGE_TURNS if pixels > LARGE else free:
        return _decode(image, size, layout)


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Suppress Pillow's warnings about damaged EXIF, and about images of 89 million pixels or more, as phones take
    them. Pillow still refuses twice as many."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def is_dark(pixels: np.ndarray) -> bool:
    """Whether an image uint8 [C, H, W] is (nearly) black, whatever its alpha."""
    return not (pixels[: 1 if len(pixels) < 3 else 3] > DARKEST).any()


def _decode(image: Image.Image, size: tuple[int, int], layout: Layout) -> Decoded:
    """The image decoded and fitted to the layout. size: its height and width before anything was reduced."""
    image = _standard_mode(_upright(image))
    composed = False
    if layout.channels in (1, 3) and image.mode == "RGBA":
        image, composed = _compose(image, layout.background)
    fitted = fit(_convert(image, MODES[layout.channels]), layout)
    pixels = np.asarray(fitted).reshape(layout.height, layout.width, layout.channels)
    reshaped = size[0] * layout.width != size[1] * layout.height
    enlarged = size[0] < layout.height and size[1] < layout.width
    return Decoded(pixels.transpose(2, 0, 1), composed, reshaped, enlarged)


def _check_png(file: BinaryIO) -> None:
    """Raise if the checksum of a PNG's pixel data is wrong: Pillow does not check it and returns wrong pixels."""
    start = file.tell()
    file.seek(8)
    while len(head := file.read(8)) == 8 and head[4:] != b"IEND":
        content, checksum = file.read(int.from_bytes(head[:4], "big")), file.read(4)
        if head[4:] == b"IDAT" and zlib.crc32(content, zlib.crc32(b"IDAT")).to_bytes(4, "big") != checksum:
            raise ValueError("damaged or cut short: its checksum is wrong")
    file.seek(start)


def orientation(image: Image.Image) -> int:
    if image.format == "PNG" and not PNG_EXIF & image.info.keys():
        return 1  # asking further would decode the pixels
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF says nothing about the pixels, and its parser may raise nearly anything
        return 1


def _upright(image: Image.Image) -> Image.Image:
    image.load()  # before asking: Pillow turns a TIFF while it loads
    if orientation(image) != 1:
        with suppress(Exception):  # it may raise over other, damaged tags, once the pixels are turned
            ImageOps.exif_transpose(image, in_place=True)
    return image


def _is_grey(image: Image.Image) -> bool:
    palette = image.getpalette() if image.mode == "P" else None
    if palette:
        colours = np.asarray(palette).reshape(-1, 3)
        return bool((colours == colours[:, :1]).all())
    return image.mode in GREY_MODES or image.mode.startswith("I")


def _standard_mode(image: Image.Image) -> Image.Image:
    """Convert any mode to L, RGB, or RGBA if something may be transparent."""
    if image.mode == "F" or image.mode.startswith("I"):
        return _to_8_bits(image)
    if image.has_transparency_data:
        return image.convert("RGBA")
    return _convert(image, "L" if image.mode in GREY_MODES else "RGB")


def _convert(image: Image.Image, mode: str) -> Image.Image:
    return image if image.mode == mode else image.convert(mode)  # Pillow would copy it


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Convert 16-bit integers (0..65535) or floats (0..1, or 0..255) to L; to RGBA if a value is marked transparent."""
    values = np.asarray(image)
    low, high = (values.min(), values.max()) if values.size else (0, 0)
    limit = 255 if image.mode == "F" else 65535
    if not 0 <= low <= high <= limit:
        raise ValueError(f"values from {low:g} to {high:g}, outside 0..{limit}")
    white = limit if high > 1 or image.mode != "F" else 1
    scaled = np.empty(values.shape, np.uint8)
    for row, found in zip(scaled, values, strict=True):  # as float64 the whole would take eight times the memory
        row[:] = np.round(found.astype(np.float64) * (255 / white))
    grey = Image.fromarray(scaled)
    transparent = image.info.get("transparency")
    if not isinstance(transparent, int):
        return grey
    grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return grey.convert("RGBA")


def _compose(image: Image.Image, background: tuple[int, int, int]) -> tuple[Image.Image, bool]:
    """Blend RGBA with the background before any resizing, so that hidden colours cannot bleed into the edges."""
    if image.getchannel("A").getextrema() == (255, 255):
        return image.convert("RGB"), False
    below = Image.new("RGBA", image.size, (*background, 255))
    return Image.alpha_composite(below, image).convert("RGB"), True
