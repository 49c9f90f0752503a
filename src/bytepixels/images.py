"""Pictures out: grids, PNG and GIF files. Everything here takes uint8 [N, C, H, W] with 1 to 4 channels."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .errors import InputError

if TYPE_CHECKING:
    from PIL import Image

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def grid(images: Tensor, columns: int | None = None, gap: int = 2, least: int = 64) -> Tensor:
    """Lay uint8 [N, C, H, W] out as one picture [C, H', W'], row by row, on white.

    columns: as near a square as possible unless given. Pictures with a side below `least` are enlarged by a whole
    factor, pixel for pixel, so that a person can see them.
    """
    scale = max(1, -(-least // min(images.shape[-2:])))
    images = images.repeat_interleave(scale, dim=-2).repeat_interleave(scale, dim=-1)
    n, channels, height, width = images.shape
    columns = min(n, columns or round(n**0.5 + 0.49))
    rows = -(-n // columns)
    sheet = torch.full((channels, rows * (height + gap) + gap, columns * (width + gap) + gap), 255, dtype=torch.uint8)
    for k, image in enumerate(images.cpu()):
        top, left = gap + k // columns * (height + gap), gap + k % columns * (width + gap)
        sheet[:, top : top + height, left : left + width] = image
    return sheet


def beside(left: Tensor, right: Tensor, gap: int = 12) -> Tensor:
    """Two pictures [C, H, W] of one height, side by side on white."""
    between = torch.full((left.shape[0], left.shape[1], gap), 255, dtype=torch.uint8)
    return torch.cat([left, between, right], dim=2)


def save_png(image: Tensor, path: Path) -> None:
    """Write uint8 [C, H, W] as a PNG."""
    to_pil(image).save(path)


def save_pngs(images: Tensor, paths: Sequence[Path]) -> None:
    """Write uint8 [N, C, H, W] as one PNG each, in threads."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(save_png, images.cpu(), paths))


def save_gif(frames: Iterable[Tensor], path: Path, milliseconds: int = 60, hold: int = 1500) -> None:
    """Write pictures [C, H, W] as an endless animation; the last one stays for `hold` milliseconds."""
    pictures = [to_pil(frame) for frame in frames]
    pictures = [picture if picture.mode == "L" else picture.convert("RGB") for picture in pictures]  # GIF has no alpha
    durations = [milliseconds] * (len(pictures) - 1) + [hold]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=durations, loop=0)


def to_pil(image: Tensor) -> "Image.Image":
    from PIL import Image

    if image.shape[0] not in MODES:
        raise InputError(f"a picture file has 1 to 4 channels, got {image.shape[0]}")
    array = image.permute(1, 2, 0).contiguous().cpu().numpy()  # [C, H, W] -> [H, W, C]
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)
