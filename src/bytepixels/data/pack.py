"""Pack any source of images into one memory-mapped uint8 array, decoded once and cached."""

import hashlib
import json
import re
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from .make_pack import make_pack
from .notes import refusal
from .pack_writer import Progress, load_or_make
from .packed import FORMAT, Packed, default_cache, open_packed
from .settings import Settings, checked_settings
from .sources.decode import image_formats
from .sources.open_source import open_source
from .sources.source import Source

READING = 4  # how a source's names and labels are understood; another number makes new packs


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
    """Decode every image of `source` to uint8 [N, C, H, W], once: the next call with the same content and settings
    opens what the first one wrote, or goes on where it was interrupted. Of processes that pack the same thing at once,
    on one machine or on a file system with locks that they share, one decodes it while the others wait.

    source: a folder (subfolders are classes), a .zip or .tar(.gz/.xz/.bz2) of one, a .npz or .npy, one image,
        WebDataset shards (one, a folder of them, or a pattern such as train-{000000..000127}.tar), the official
        CIFAR-10 or MNIST files, or a name in SOURCES.
    size: (height, width); None keeps a size that all images share, else takes the median short side, square.
    channels: 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA; None is 1 where every image is grey, else 3.
    fit: for another aspect ratio: "crop" the centre, "pad" with the background, or "squash".
    background: a CSS colour, under whatever is transparent (with 1 or 3 channels).
    strict: refuse what cannot be read instead of skipping and naming it.
    split: train, val, test or all, where the source is divided so.
    cache: a folder; None is $BYTEPIXELS_CACHE or the platform's cache folder.
    progress: called with (images done, images in all).

    Raises InputError, in one sentence, when there is nothing to pack or an argument is out of range.
    """
    settings = checked_settings(size, channels, fit, background, split)
    root = default_cache() if cache is None else Path(cache).expanduser()
    found = open_source(source, split, root)
    path = root / "packs" / _folder_name(found, settings)
    notes: list[str] = []
    packed = load_or_make(path, open_packed, partial(make_pack, found, settings, strict, notes), progress)
    if strict and packed.meta["skipped"]:
        name, reason = packed.meta["skipped"][0]
        raise refusal(found, name, reason)
    return replace(packed, notes=(*packed.notes, *notes))


def _folder_name(source: Source, settings: Settings) -> str:
    """The folder of a pack: a readable stem, and a digest of everything that decides its bytes."""
    kinds = ["HEIF"] if "HEIF" in image_formats() else []  # without its extra such images were left out
    content = json.dumps([FORMAT, READING, source.key, asdict(settings), *kinds])
    stem = re.sub(r"[^A-Za-z0-9-]+", "-", Path(source.name).name)[:40].strip("-")
    return f"{stem or 'images'}-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
