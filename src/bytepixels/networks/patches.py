"""Images as sequences of patches, and two positional encodings."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .embedding import timestep_embedding

ROPE_PERIOD = 100  # of the slowest turn, in patches (times 2 pi): grids are shorter than texts (Heo et al. 2024)


def patchified(x: Tensor, patch: int) -> Tensor:
    """Cut images into patches, row by row: -> [B, N, C * patch * patch].

    (torch's pixel_unshuffle returns an empty batch as it is.)
    """
    height, width = (side // patch for side in x.shape[2:])
    cut = x.unflatten(3, (width, patch)).unflatten(2, (height, patch))  # [B, C, H / patch, patch, W / patch, patch]
    return cut.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def unpatchified(patches: Tensor, height: int, width: int, patch: int) -> Tensor:
    """Inverse of `patchified`, for a grid of height x width patches."""
    cut = patches.unflatten(2, (-1, patch, patch)).unflatten(1, (height, width))
    return cut.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


def position_waves(height: int, width: int, columns: int, like: Tensor) -> Tensor:
    """Sinusoidal positions [height * width, columns]: sines and cosines of each patch's column, then of its row."""
    places = _places(max(height, width), like)
    waves = timestep_embedding(places, columns // 2).roll(columns // 4, dims=1)  # Peebles & Xie: sines first
    return _over_grid(waves[:height], waves[:width]).to(like.dtype)


def rope_angles(height: int, width: int, columns: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary embedding, each [height * width, columns].

    The first half of a head's numbers are turned in pairs with those of the second half: one half of the pairs by
    angles of the patch's column, the other by those of its row. The sines have the sign that `turned` wants.
    """
    quarter = columns // 4
    angles = _places(max(height, width), like)[:, None] * ROPE_PERIOD ** -(_places(quarter, like) / quarter)
    angles = _over_grid(angles[:height], angles[:width])  # [N, columns / 2]
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([cos, cos], dim=1), torch.cat([-sin, sin], dim=1)


def unrotated(cos: Tensor, sin: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Extend rotary angles by `count` tokens without a position, which are not rotated."""
    return F.pad(cos, (0, 0, 0, count), value=1.0), F.pad(sin, (0, 0, 0, count))


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate pairs (a, b) of x [B, N, heads, columns] to (a cos - b sin, b cos + a sin)."""
    cos, sin = (one.to(x.dtype)[:, None] for one in (cos, sin))  # [N, 1, columns]
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin)


def _places(count: int, like: Tensor) -> Tensor:
    """Positions 0, 1, 2, ... in float32 or wider."""
    return torch.arange(count, dtype=torch.promote_types(like.dtype, torch.float32), device=like.device)


def _over_grid(rows: Tensor, columns: Tensor) -> Tensor:
    """Combine [H, D] and [W, D] to [H * W, 2D]: the numbers of each position's column, then of its row."""
    height, width = len(rows), len(columns)
    return torch.cat([columns.expand(height, -1, -1), rows[:, None].expand(-1, width, -1)], dim=2).flatten(0, 1)
