"""Any source of pictures -> one memory-mapped uint8 array, decoded once and kept in a cache."""

import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageColor

from ..errors import InputError, check_choice, check_range
from .arrange import SPLITS, printable
from .decode import MODES, Decoded, Header, Layout, read_header, to_pixels
from .packed import FORMAT, Packed, default_cache, open_packed, publish
from .parallel import in_parallel
from .pictures import Pictures, Source, file_key
from .sources import open_source

FITS = ("crop", "pad", "squash")
MAX_SIDE = 8192
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Settings:
    """What was asked for; None stands for "as the data say"."""

    size: tuple[int, int] | None
    channels: int | None
    fit: str
    background: tuple[int, int, int]
    split: str


def pack(
    source: str | Path,
    *,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    fit: str = "crop",
    background: str = "white",
    strict: bool = False,
    split: str = "train",
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> Packed:
    """Decode every picture of `source` to uint8 [N, C, H, W], once: the next call with the same content and settings
    opens what the first one wrote.

    source: a folder (subfolders are classes), a .zip or .tar(.gz/.xz/.bz2) of one, a .npz or .npy, one picture, the
        official CIFAR-10 or MNIST files, or a name in SOURCES.
    size: (height, width); None keeps a size that all pictures share, else takes the median short side, square.
    channels: 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA; None is 1 where every picture is grey, else 3.
    fit: for another aspect ratio: "crop" the centre, "pad" with the background, or "squash".
    background: a CSS colour, under whatever is transparent (with 1 or 3 channels).
    strict: refuse what cannot be read instead of skipping and naming it.
    split: train, val, test or all, where the source is divided so.
    cache: a folder; None is $BYTEPIXELS_CACHE or the platform's cache folder.
    progress: called with (pictures done, pictures in all).

    Raises InputError, in one sentence, when there is nothing to pack or an argument is out of range.
    """
    settings = checked_settings(size, channels, fit, background, split)
    root = default_cache() if cache is None else Path(cache).expanduser()
    found = open_source(source, split, root)
    path = root / "packs" / _folder_name(found, settings)
    packed = open_packed(path)
    if packed is None:
        packed = publish(path, lambda folder: _write(folder, found, settings, strict, progress))
    if strict and packed.meta["skipped"]:
        name, reason = packed.meta["skipped"][0]
        raise _refusal(found, name, reason)
    return packed


def checked_settings(size: Any, channels: int | None, fit: str, background: str, split: str) -> Settings:
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


def _folder_name(source: Source, settings: Settings) -> str:
    """A readable stem, and a digest of all that decides the bytes inside."""
    content = json.dumps([FORMAT, source.key, asdict(settings)])
    stem = re.sub(r"[^A-Za-z0-9-]+", "-", Path(source.name).name)[:40].strip("-")
    return f"{stem or 'pictures'}-{hashlib.sha256(content.encode()).hexdigest()[:16]}"


def _write(folder: Path, source: Source, settings: Settings, strict: bool, progress: Progress | None) -> None:
    pictures = source.read()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")  # damaged EXIF and the like: the pixels are fine
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        layout, notes = _layout(pictures, settings)
        _check_space(folder, len(pictures.names), layout)
        skipped, done_notes = _decode_all(folder / "images.npy", pictures, layout, source, strict, progress)
    kept = [index for index in range(len(pictures.names)) if index not in skipped]
    if pictures.labels is not None:
        np.save(folder / "labels.npy", pictures.labels[kept])
    meta = {
        "format": FORMAT,
        "source": source.name,
        "source_key": source.key,
        "settings": asdict(settings),
        "count": len(kept),
        "size": [layout.height, layout.width],
        "channels": layout.channels,
        "classes": pictures.classes,
        "skipped": [(pictures.names[index], reason) for index, reason in sorted(skipped.items())],
        "notes": [*pictures.notes, *notes, *done_notes],
        "sha256": {file.stem: file_key(file) for file in sorted(folder.glob("*.npy"))},
    }
    (folder / "meta.json").write_text(json.dumps(meta, indent=1))


def _layout(pictures: Pictures, settings: Settings) -> tuple[Layout, list[str]]:
    """Fill in what the settings leave to the data, from the headers of the files."""
    size, channels, notes = settings.size, settings.channels, []
    if size is None or channels is None:
        headers = [header for _, header in in_parallel(read_header, pictures) if isinstance(header, Header)]
        if size is None:
            size, note = _common_size(headers)
            notes.append(note)
        channels = channels or (1 if headers and all(header.grey for header in headers) else 3)
    return Layout(*size, channels, settings.fit, settings.background), notes


def _common_size(headers: list[Header]) -> tuple[tuple[int, int], str]:
    sizes = {(header.height, header.width) for header in headers} or {(1, 1)}
    if len(sizes) == 1:
        height, width = sizes.pop()
        return (height, width), f"All pictures are {height} x {width}: packed at that size."
    side = int(np.median([min(header.height, header.width) for header in headers]))
    note = f"Sizes differ: packed at {side} x {side}, the median short side; set the size for another."
    return (side, side), note


def _check_space(folder: Path, count: int, layout: Layout) -> None:
    needed = count * layout.channels * layout.height * layout.width
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"{count:,} pictures of {layout.height} x {layout.width} need {needed / 1e9:,.1f} GB in {folder.parent}, "
            f"where {free / 1e9:,.1f} GB are free; ask for a smaller size"
        )


def _decode_all(
    path: Path, pictures: Pictures, layout: Layout, source: Source, strict: bool, progress: Progress | None
) -> tuple[dict[int, str], list[str]]:
    """Write images.npy; return the skipped positions with their reasons, and notes about the rest."""
    total = len(pictures.names)
    images = np.lib.format.open_memmap(path, "w+", np.uint8, (total, layout.channels, layout.height, layout.width))
    skipped: dict[int, str] = {}
    done = {"composed": 0, "reshaped": 0, "enlarged": 0}
    decoded = in_parallel(lambda image: to_pixels(image, layout), pictures)
    with closing(decoded):
        for count, (index, result) in enumerate(decoded, 1):
            if isinstance(result, Decoded):
                images[index] = result.pixels
                for fact in done:
                    done[fact] += getattr(result, fact)
            elif strict:
                raise _refusal(source, pictures.names[index], result)
            else:
                skipped[index] = str(result)
            if progress:
                progress(count, total)
    if len(skipped) == total:
        raise InputError(f"{source.name} holds no readable picture: {_named(skipped, pictures.names)}")
    del images  # closes the file: Windows renames nothing that is open
    if skipped:
        _drop(path, skipped)
    return skipped, _notes(done, skipped, pictures.names, layout)


def _drop(path: Path, skipped: dict[int, str]) -> None:
    """Rewrite images.npy without the skipped rows, row by row."""
    images, shorter = np.load(path, mmap_mode="r", allow_pickle=False), path.with_suffix(".part")
    shape = (len(images) - len(skipped), *images.shape[1:])
    with shorter.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for index, image in enumerate(images):
            if index not in skipped:
                file.write(image.tobytes())
    del images
    os.replace(shorter, path)


def _notes(done: dict[str, int], skipped: dict[int, str], names: list[str], layout: Layout) -> list[str]:
    total = len(names) - len(skipped)
    verb = {"crop": "cropped to their centre", "pad": "padded", "squash": "squashed"}[layout.fit]
    colour = "#{:02x}{:02x}{:02x}".format(*layout.background)
    sentences = {
        "composed": f"have transparent parts: composed on {colour}.",
        "reshaped": f"have another aspect ratio than {layout.height} x {layout.width}: {verb}.",
        "enlarged": f"are smaller than {layout.height} x {layout.width}: enlarged.",
    }
    notes = [f"{done[fact]:,} of {total:,} pictures {sentences[fact]}" for fact in sentences if done[fact]]
    if skipped:
        notes.append(f"Skipped {len(skipped):,} of {len(names):,} files: {_named(skipped, names)}.")
    return notes


def _named(skipped: dict[int, str], names: list[str]) -> str:
    shown = [f"{printable(names[index])} ({reason})" for index, reason in sorted(skipped.items())[:5]]
    more = f" and {len(skipped) - 5:,} more" if len(skipped) > 5 else ""
    return ", ".join(shown) + more


def _refusal(source: Source, name: str, reason: str) -> InputError:
    return InputError(f"{source.name}: {printable(name)} cannot be read ({reason}); without strict it would be skipped")
