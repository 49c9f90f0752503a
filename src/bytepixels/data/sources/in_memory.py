"""Write images held by a program to the cache, under their hash, as a source."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...errors import InputError
from ..cache import make_folder
from ..packed import default_cache
from .decode import MODES


def source_of(images: Any) -> str:
    """The path of a source with these images; a path or a name is returned as it is.

    images: an array or a tensor [N, H, W] or [N, H, W, C], uint8, or float in 0..1; channels may come first, as torch
    has them. Or whatever is iterated over: PIL images, arrays, (image, label) pairs, or mappings with "image" and maybe
    "label", as datasets of torch and of Hugging Face give them; of any sizes. Raises InputError where there are none.
    """
    if isinstance(images, (str, Path)):
        return str(images)
    found = list(_pairs(images))
    if not found:
        raise InputError("no images were given: a source needs one or more")
    labels = [label for _, label in found if label is not None]
    if labels and len(labels) < len(found):
        raise InputError(f"{len(labels)} of the {len(found)} images given have a label; give all of them one, or none")
    digest = hashlib.sha256()
    for image, label in found:
        digest.update(repr((image.shape, label)).encode() + image.tobytes())
    folder = default_cache() / "arrays" / digest.hexdigest()[:16]
    make_folder(folder.parent)
    write = _write_array if len({image.shape for image, _ in found}) == 1 else _write_files
    return str(write(folder, found))


def image_file(image: Any) -> Path:
    """The path of a file with one image that a program holds, as in `source_of`; a path is returned as it is."""
    if isinstance(image, (str, Path)):
        return Path(image)
    pixels = _pixels(image)
    digest = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()[:16]
    path = default_cache() / "arrays" / f"{digest}.png"
    make_folder(path.parent)
    _save(pixels, path)
    return path


def _write_array(folder: Path, found: list[tuple[np.ndarray, Any]]) -> Path:
    """Images of one size, as an .npz file beside `folder`."""
    path, draft = folder.with_suffix(".npz"), folder.with_name(f".tmp-{folder.name}.npz")
    if not path.is_file():
        images, labels = zip(*found, strict=True)
        arrays: dict[str, Any] = {"images": np.stack(images)}
        np.savez(draft, **arrays | ({} if labels[0] is None else {"labels": np.array(labels)}))
        draft.replace(path)
    return path


def _write_files(folder: Path, found: list[tuple[np.ndarray, Any]]) -> Path:
    """Write images of several sizes as a folder of PNGs, one subfolder per label."""
    done = folder / ".complete"
    if not done.is_file():
        for number, (image, label) in enumerate(found):
            place = folder / ("" if label is None else str(label))
            make_folder(place)
            _save(image, place / f"{number:08d}.png")
        done.touch()
    return folder


def _save(pixels: np.ndarray, path: Path) -> None:
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(path)


def _pairs(images: Any) -> Iterator[tuple[np.ndarray, Any]]:
    """Yield each image as uint8 [H, W, C] with its label or None."""
    images = _on_host(images)
    if isinstance(images, np.ndarray) and images.ndim not in (3, 4):
        raise InputError(f"an array of images has 3 or 4 dimensions (number, sides, channels), got {images.ndim}")
    if not isinstance(images, Iterable) and not hasattr(images, "__getitem__"):
        raise InputError(f"a source is a path, an array or a sequence of images, got {type(images).__name__}")
    for one in images:
        label = None
        if isinstance(one, Mapping):
            image = next((one[name] for name in ("image", "img", "images") if name in one), None)
            if image is None:
                raise InputError(f"an item of a data set has an 'image', got {sorted(map(str, one))}")
            label = one.get("label")
        elif isinstance(one, (tuple, list)) and len(one) == 2:
            image, label = one
        else:
            image = one
        yield _pixels(image), label if label is None or isinstance(label, str) else int(label)


def _on_host(values: Any) -> Any:
    """A tensor as an array; anything else as it is."""
    return values.detach().cpu().numpy() if hasattr(values, "detach") else values


def _pixels(image: Any) -> np.ndarray:
    """Convert one image to uint8 [H, W, C]."""
    if hasattr(image, "convert"):  # PIL's
        image = image.convert("L" if image.mode in ("1", "L", "I;16") else "RGBA" if "A" in image.mode else "RGB")
    pixels = np.asarray(_on_host(image))
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.ndim == 3 and pixels.shape[0] in MODES and pixels.shape[-1] not in MODES:  # channels come first
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim != 3 or pixels.shape[-1] not in MODES:
        raise InputError(f"an image has a height, a width and 1 to 4 channels, got the shape {pixels.shape}")
    if np.issubdtype(pixels.dtype, np.floating):
        if not 0 <= float(pixels.min()) <= float(pixels.max()) <= 1:
            raise InputError(f"images of floats lie in 0..1, got {float(pixels.min()):g} to {float(pixels.max()):g}")
        pixels = (pixels * 255).round().astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise InputError(f"images are uint8 (0..255) or floats in 0..1, got {pixels.dtype}")
    return np.ascontiguousarray(pixels)
