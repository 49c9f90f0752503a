"""Write images: grids, PNG and GIF files. All functions take uint8 [N, C, H, W] with 1 to 4 channels."""

import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from .errors import InputError

if TYPE_CHECKING:
    from PIL import Image

LONGEST = 512  # pixels of a side, above which a grid enlarges nothing
MOST_ACROSS = 1 << 14  # of a grid's side: more than viewers, and the GIF format, take
GAP = 2  # pixels between the images of a grid
PIXELS = 1 << 26  # of a grid
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def grid(images: Tensor, columns: int | None = None, gap: int = GAP, least: int = 64, pixels: int = PIXELS) -> Tensor:
    """Lay uint8 [N, C, H, W] out as one image [C, H', W'], row by row, on white, of about `pixels` at most.

    columns: unless given, as many as bring the whole nearest to a square. Images with a side below `least` are enlarged
    by a whole factor, pixel for pixel, so that a person can see them; what would be too large is shrunk by one.
    """
    n, channels, height, width = images.shape
    scale = max(1, min(-(-least // min(height, width)), LONGEST // max(height, width)))
    shape = (height * scale + gap) / (width * scale + gap)
    columns = max(1, min(n, columns or round((n * (1 if 2 / 3 < shape < 3 / 2 else shape)) ** 0.5 + 0.49)))
    rows = -(-n // columns)

    def excess(scale: int) -> float:
        """The factor by which the grid would exceed each side, at most."""
        high, wide = rows * (height * scale + gap), columns * (width * scale + gap)
        return max((high * wide / pixels) ** 0.5, max(high, wide) / MOST_ACROSS)

    while scale > 1 and excess(scale) > 1:
        scale -= 1
    if excess(scale) > 1:
        images = _shrunk(images, math.ceil(excess(scale)))
    images = images.repeat_interleave(scale, dim=-2).repeat_interleave(scale, dim=-1)
    height, width = images.shape[-2:]
    sheet = torch.full((channels, rows * (height + gap) + gap, columns * (width + gap) + gap), 255, dtype=torch.uint8)
    for k, image in enumerate(images.cpu()):
        top, left = gap + k // columns * (height + gap), gap + k % columns * (width + gap)
        sheet[:, top : top + height, left : left + width] = image
    return sheet


def room_in_grid(rows: int, columns: int) -> int:
    """The largest side in pixels at which `grid` shrinks none of so many images; at least 1."""
    return max(1, min(MOST_ACROSS // max(rows, columns), math.isqrt(PIXELS // (rows * columns))) - GAP)


def _shrunk(images: Tensor, factor: int) -> Tensor:
    """Shrink uint8 [N, C, H, W] by an integer factor, by averaging pixels; a shorter side becomes one pixel."""
    height, width = images.shape[-2:]
    block = min(factor, height), min(factor, width)
    return torch.cat([F.avg_pool2d(one[None].float(), block, ceil_mode=True).round().to(torch.uint8) for one in images])


def beside(left: Tensor, right: Tensor, gap: int = 12) -> Tensor:
    """Two images [C, H, W] of one height, side by side on white."""
    between = torch.full((left.shape[0], left.shape[1], gap), 255, dtype=torch.uint8)
    return torch.cat([left, between, right], dim=2)


def save_png(image: Tensor, path: Path) -> None:
    """Write uint8 [C, H, W] as a PNG."""
    to_pil(image).save(path)


def save_pngs(images: Tensor, paths: Sequence[Path]) -> None:
    """Write uint8 [N, C, H, W] as one PNG each, in threads."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(save_png, images.cpu(), paths))


def save_extra(path: Path, save: Callable[[Path], None]) -> None:
    """Write an optional summary file; any failure is an OSError in one sentence."""
    try:
        save(path)
    except Exception as error:
        path.unlink(missing_ok=True)
        why = getattr(error, "strerror", None) or error or type(error).__name__
        raise OSError(f"{path} could not be written ({why}); the images themselves and manifest.json are") from error


def save_gif(frames: Iterable[Tensor], path: Path, milliseconds: int = 60, hold: int = 1500) -> None:
    """Write images [C, H, W] as an endless animation; the last one stays for `hold` milliseconds."""
    stills = [to_pil(frame) for frame in frames]
    stills = [one if one.mode == "L" else one.convert("RGB") for one in stills]  # GIF has no alpha
    durations = [milliseconds] * (len(stills) - 1) + [hold]
    stills[0].save(path, save_all=True, append_images=stills[1:], duration=durations, loop=0)


def to_pil(image: Tensor) -> "Image.Image":
    from PIL import Image

    if image.shape[0] not in MODES:
        raise InputError(f"an image file has 1 to 4 channels, got {image.shape[0]}")
    array = image.permute(1, 2, 0).contiguous().cpu().numpy()  # [C, H, W] -> [H, W, C]
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)
