"""The settings of a pack."""

from dataclasses import dataclass
from typing import Any

from PIL import ImageColor

from ..errors import InputError, check_choice, check_range
from .sources.decode import MODES
from .sources.folder_labels import SPLITS

FITS = ("crop", "pad", "squash")
MAX_SIDE = 8192


@dataclass(frozen=True)
class Settings:
    """The settings of a pack as requested; None leaves the choice to the data."""

    size: tuple[int, int] | None
    channels: int | None
    fit: str
    background: tuple[int, int, int]
    split: str


def checked_settings(size: Any, channels: int | None, fit: str, background: str, split: str) -> Settings:
    """Check the settings of a pack; InputError for one out of range."""
    if size is not None:
        if not (isinstance(size, (tuple, list)) and len(size) == 2 and all(isinstance(side, int) for side in size)):
            raise InputError(f"size must be (height, width) in pixels, got {size!r}")
        for name, side in zip(("height", "width"), size, strict=True):
            check_range(name, side, 1, MAX_SIDE)
        size = tuple(size)
    if channels is not None and channels not in MODES:
        raise InputError(f"channels must be 1, 2, 3 or 4, got {channels!r}")
    check_choice("fit", fit, FITS)
    check_choice("split", split, SPLITS)
    return Settings(size, channels, fit, _colour(background), split)


def _colour(name: str) -> tuple[int, int, int]:
    try:
        red, green, blue, *alpha = ImageColor.getrgb(name)
    except (ValueError, AttributeError, TypeError) as error:
        raise InputError(f"background must be a CSS colour such as white or #80c0ff, got {name!r}") from error
    if alpha and alpha != [255]:
        raise InputError(f"background must be an opaque colour, got {name!r}")
    return red, green, blue
