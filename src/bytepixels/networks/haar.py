"""The Haar transform: an image as four of half its size; it is orthogonal, so white noise stays white."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import check_choice

STEMS = {"conv": 1, "haar": 2}  # what lies between the pixels and the first level, and by what it divides their sides
LEAST_SIDE = 24  # pixels, from which "auto" is "haar": of smaller images every pixel counts


def haar(x: Tensor) -> Tensor:
    """Haar transform: halved sums and differences of 2 x 2 pixels, [B, C, H, W] -> [B, 4C, H / 2, W / 2], even sides.

    The channels are all means, all differences of columns, of rows, and of both (Haar 1910; its use in diffusion: Phung
    et al. 2023). The transform is orthonormal: lengths, inner products and white noise stay what they are.
    """
    return torch.cat(_turned([x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)]), dim=1)


def unhaar(y: Tensor) -> Tensor:
    """Inverse Haar transform: [B, 4C, h, w] -> [B, C, 2h, 2w]."""
    pixels = torch.stack(_turned(list(y.chunk(4, dim=1))), dim=2)  # [B, C, 4, h, w]
    rows = pixels.unflatten(2, (2, 2)).permute(0, 1, 4, 2, 5, 3)  # [B, C, h, 2, w, 2]
    return rows.flatten(4).flatten(2, 3)


def coarse_first(x: Tensor, factor: int) -> Tensor:
    """The Haar transform over log2(factor) scales: [B, C, H, W] -> [B, C factor^2, H / factor, W / factor].

    The first C channels are the means of factor x factor pixels, times the factor; coarse differences come before fine
    ones. Orthonormal. `factor` is a power of two that divides both sides.
    """
    channels = x.shape[1]
    for _ in range(factor.bit_length() - 1):
        x = haar(x).unflatten(1, (4, -1, channels)).transpose(1, 2).flatten(1, 3)  # [B, kinds so far, 4, C, h, w]
    return x


def from_coarse(y: Tensor, factor: int) -> Tensor:
    """Inverse of `coarse_first`: [B, C factor^2, h, w] -> [B, C, factor h, factor w]."""
    channels = y.shape[1] // factor**2
    for _ in range(factor.bit_length() - 1):
        y = unhaar(y.unflatten(1, (-1, 4, channels)).transpose(1, 2).flatten(1, 3))
    return y


def _turned(parts: list[Tensor]) -> list[Tensor]:
    """Apply the symmetric orthogonal map of four numbers, which is its own inverse."""
    a, b, c, d = parts
    top, bottom, upper, lower = a + b, c + d, a - b, c - d
    return [(top + bottom) / 2, (upper + lower) / 2, (top - bottom) / 2, (upper - lower) / 2]


def even(x: Tensor) -> Tensor:
    """Make the sides of x [B, C, H, W] even by repeating the last row or column."""
    height, width = x.shape[2:]
    return F.pad(x, (0, width % 2, 0, height % 2), mode="replicate") if height % 2 or width % 2 else x


def chosen_stem(stem: str, height: int, width: int) -> str:
    """Resolve stem `auto` for images of that size."""
    return stem if stem != "auto" else "haar" if min(height, width) >= LEAST_SIDE else "conv"


def check_stem(stem: str) -> int:
    """The factor by which a stem divides the sides of the images. InputError for an unknown stem."""
    return STEMS[check_choice("stem", stem, STEMS)]
