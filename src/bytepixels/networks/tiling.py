"""Tiled encoding and decoding of images larger than memory allows."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import InputError, check_count
from .autoencoder import Autoencoder

TILE, OVERLAP = 512, 128  # pixels


class Tiled:
    """An autoencoder for images of any size: those larger than a tile are processed tile by tile."""

    def __init__(self, autoencoder: Autoencoder):
        self.autoencoder = autoencoder
        self.factor, self.latent_channels = autoencoder.factor, autoencoder.latent_channels

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents of x [B, C, H, W]."""
        return encode_tiled(self.autoencoder, x)

    def decode(self, z: Tensor) -> Tensor:
        """The images of latents z [B, Z, h, w]."""
        return decode_tiled(self.autoencoder, z)


def encode_tiled(
    autoencoder: Autoencoder, x: Tensor, tile: int = TILE, overlap: int = OVERLAP
) -> tuple[Tensor, Tensor]:
    """Encode x in tiles of at most `tile` x `tile` pixels, neighbours overlapping by at least `overlap`.

    Both are multiples of the factor. In the shared strips one tile fades into the next, linearly. What differs from
    the whole: norms and attention see a tile, and zeros stand beyond its edges. An image that fits in a tile is
    encoded whole.
    """
    autoencoder.check_size(*x.shape[2:])
    f = autoencoder.factor
    both = blended(lambda part: torch.cat(autoencoder.encode(part), dim=1), x, tile, overlap, f, 1)
    mean, std = both.chunk(2, dim=1)
    return mean, std


def decode_tiled(autoencoder: Autoencoder, z: Tensor, tile: int = TILE, overlap: int = OVERLAP) -> Tensor:
    """Decode z in tiles; tile and overlap are in pixels of the image."""
    f = autoencoder.factor
    _check(tile, overlap, f)
    return blended(autoencoder.decode, z, tile // f, overlap // f, 1, f)


def blended(function: Callable[[Tensor], Tensor], x: Tensor, tile: int, overlap: int, shrink: int, grow: int) -> Tensor:
    """Apply a function to overlapping tiles of x [B, C, H, W] and blend the results; sides scale by grow / shrink."""
    _check(tile, overlap, shrink)
    spans = [_spans(side, tile, overlap, shrink) for side in x.shape[2:]]
    if all(len(one) == 1 for one in spans):
        return function(x)
    out = weights = None
    for rows in spans[0]:
        for columns in spans[1]:
            part = function(x[:, :, rows, columns])
            if out is None or weights is None:
                out = part.new_zeros(*part.shape[:2], *(side * grow // shrink for side in x.shape[2:]))
                weights = part.new_zeros(out.shape[2:])
            place = [slice(s.start * grow // shrink, s.stop * grow // shrink) for s in (rows, columns)]
            ramps = [
                _ramp(s, whole, overlap * grow // shrink, part) for s, whole in zip(place, out.shape[2:], strict=True)
            ]
            weight = ramps[0][:, None] * ramps[1]
            out[:, :, place[0], place[1]] += weight * part
            weights[place[0], place[1]] += weight
    assert out is not None
    assert weights is not None
    return out / weights


def _spans(side: int, tile: int, overlap: int, step: int) -> list[slice]:
    """Tiles of equal length that cover a side evenly, beginning at multiples of `step`."""
    if side <= tile:
        return [slice(0, side)]
    count = -(-(side - overlap) // (tile - overlap))
    starts = [k * (side - tile) // (count - 1) // step * step for k in range(count)]
    return [slice(start, start + tile) for start in starts]


def _ramp(span: slice, whole: int, overlap: int, like: Tensor) -> Tensor:
    """Blending weights along a tile: rising over `overlap` positions at its start, falling at its end; 1 at the edges
    of the image."""
    places = torch.arange(span.stop - span.start, dtype=like.dtype, device=like.device) + 0.5
    rising = places / overlap if span.start > 0 and overlap else torch.ones_like(places)
    falling = places.flip(0) / overlap if span.stop < whole and overlap else torch.ones_like(places)
    return torch.minimum(rising, falling).clamp(max=1)


def _check(tile: int, overlap: int, factor: int) -> None:
    check_count("tile", tile, 1)
    check_count("overlap", overlap, 0)
    if tile % factor or overlap % factor:
        raise InputError(f"tile and overlap must be multiples of the factor {factor}, got {tile} and {overlap}")
    if overlap >= tile:
        raise InputError(f"overlap must be below the tile's {tile}, got {overlap}")
