"""Images and masks for edit, and the display of holes and noise."""

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from ..codec.codec import Codec
from ..data import pack
from ..data.sources.decode import upright_size
from ..data.sources.open_source import open_source
from ..errors import InputError
from ..runs.run_directory import Run

WHITE = 128  # and more, of a mask, is painted anew
SHOWN_NOISE = 3.0  # standard deviations from mid-grey to white, where noise is shown


def load_image(
    run: Run,
    path: Path,
    channels: int | None = None,
    background: str | None = None,
    own_size: bool = False,
) -> Tensor:
    """One image file as the run sees images: uint8 [C, H, W], made to fit as its training images were.

    channels, background: others than the run's. own_size: the file's, whatever the run's is.
    """
    if not path.is_file():
        raise InputError(f"{path} is a folder, not an image file" if path.is_dir() else f"there is no file {path}")
    data = run.config.data
    with TemporaryDirectory(ignore_cleanup_errors=True) as cache:
        packed = pack(
            path,
            size=None if own_size else run.shape[1:],
            channels=channels or run.shape[0],
            fit=data.fit,
            background=background or data.background,
            cache=cache,
        )
        if len(packed) != 1:
            raise InputError(f"{path} holds {len(packed):,} images, not one")
        return torch.from_numpy(packed.images[0].copy())


def load_mask(run: Run, path: Path, image: Path) -> Tensor:
    """Load a mask file, fitted as the image is: bool [1, H, W], True is white.

    Padding and transparent parts are black. InputError where it is white nowhere or everywhere, or where its shape is
    another than the image's: they would be cropped differently.
    """
    mask = load_image(run, path, channels=1, background="black")
    (height, width), (mask_height, mask_width) = _size(image), _size(path)
    if abs(height * mask_width - width * mask_height) > max(height, width, mask_height, mask_width):  # a pixel's worth
        shapes = f"{mask_height} x {mask_width} for an image of {height} x {width}"
        raise InputError(f"{path} must have the shape of {image}: it is {shapes} (height x width)")
    anew = mask >= WHITE
    if not bool(anew.any()):
        lightest = f"{WHITE} of 255 and more counts as white, its lightest pixel at that size is {int(mask.max())}"
        raise InputError(f"{path} has no white pixel ({lightest}): nothing would be repainted")
    if bool(anew.all()):
        raise InputError(f"{path} is all white: nothing would be kept; bytepixels sample draws whole images")
    return anew


def _size(path: Path) -> tuple[int, int]:
    """Height and width of an image file, upright."""
    (item,) = open_source(path, "all", Path()).read().items()
    with item.open() as image:
        return upright_size(image)


def without(image: Tensor, anew: Tensor) -> Tensor:
    """Fill the repainted area, bool [1, H, W], of an image uint8 [C, H, W] with opaque mid-grey."""
    return torch.where(anew, _opaque(torch.full_like(image, 128)), image)


def noise_image(codec: Codec, x: Tensor) -> Tensor:
    """Draw noise of standard deviation 1, like x0 [c, h, w], as an image: from mid-grey to white is 3."""
    return _opaque(codec.to_images(x[None] / SHOWN_NOISE)[0].cpu())


def _opaque(image: Tensor) -> Tensor:
    if len(image) in (2, 4):
        image[-1] = 255
    return image
