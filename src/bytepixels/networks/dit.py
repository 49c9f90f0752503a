"""The diffusion transformer: attention between patches, in the U-Net's place. With no arguments, DiT-S/2."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError, check_choice, check_range
from .base import Network, check_dropout, check_sizes
from .blocks import NORM_EPS, CrossAttention, Tokens, attention_of
from .dropout import Dropout, number_dropouts
from .embedding import DestinationReader
from .patches import patchified, position_waves, rope_angles, turned, unpatchified, unrotated
from .text_conditioning import Text

POSITIONS = ("rope", "sincos")
WAVES = 256  # columns of the time's embedding, as in Peebles & Xie's code
MLP_RATIO = 4
INIT_STD = 0.02  # of the embeddings


class DiT(Network):
    """Peebles & Xie 2023: blocks of attention and MLP over patches, modulated by the time and the label (adaLN-Zero).

    channels: of the images. patch: pixels along a patch's side, which the images' sides must divide by.
    width: numbers per token, shared by `heads` heads. depth: blocks.
    positions: "rope" turns queries and keys by angles of their row and column (Su et al. 2021, in two dimensions as
        Heo et al. 2024); "sincos" adds waves to the tokens, as the paper does. Both are computed for the grid at hand.
    registers: learned tokens beside the patches, left out at the end (Darcet et al. 2024).
    dropout: in [0, 1), on what attention and MLP return (Vaswani et al. 2017, section 5.4).
    num_classes, embedding, time_scale, out_channels, text_dim, destinations: as in `UNet`; each block attends to the
        text as well.

    The last layer and every gate start at zero: a fresh network returns zeros, and its blocks are the identity.
    Raises InputError when these do not fit together.
    """

    def __init__(
        self,
        channels: int = 3,
        patch: int = 2,
        width: int = 384,
        depth: int = 12,
        heads: int = 6,
        positions: str = "rope",
        registers: int = 0,
        dropout: float = 0.0,
        num_classes: int | None = None,
        embedding: str = "article",
        out_channels: int | None = None,
        time_scale: float = 1.0,
        text_dim: int | None = None,
        destinations: bool = False,
    ):
        check_sizes(patch=patch, depth=depth, heads=heads, out_channels=out_channels)
        check_range("registers", registers, 0)
        check_choice("positions", positions, POSITIONS)
        check_dropout(dropout)
        _check_width(width, heads, positions)
        super().__init__(channels, num_classes, embedding, time_scale, WAVES, width, text_dim)
        self.multiple = self.patch = patch
        self.width, self.heads, self.positions = width, heads, positions
        self.first = nn.Linear(channels * patch**2, width)
        self.registers = nn.Parameter(torch.zeros(registers, width)) if registers else None
        self.blocks = nn.ModuleList(Block(width, heads, dropout, text_dim) for _ in range(depth))
        self.modulation = nn.Linear(width, 2 * width)
        self.last = nn.Linear(width, (out_channels or channels) * patch**2)
        self._initialise()
        number_dropouts(self)
        self.destination = DestinationReader(WAVES, width) if destinations else None

    def _initialise(self) -> None:
        """Initialise the weights as in Peebles & Xie's code."""
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        embeddings: list[Tensor | None] = [self.registers, *(p for p in self.time.parameters() if p.ndim > 1)]
        embeddings += [] if self.label is None else [self.label.weight]
        for weight in embeddings:
            if weight is not None:
                nn.init.normal_(weight, std=INIT_STD)
        for name, parameter in self.named_parameters():
            if "modulation" in name or name.startswith(("last", "text.pooled")) or "cross.project" in name:
                nn.init.zeros_(parameter)

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        label: Tensor | None = None,
        dropout_keys: Tensor | None = None,
        text: Text | None = None,
        destination: Tensor | None = None,
    ) -> Tensor:
        """The prediction for a noisy batch.

        x: [B, C, H, W], each side a multiple of the patch's. t: [B], float or integer.
        label: [B] int64 in 0..K, or None for no label. dropout_keys: [B] integers that decide, image by image, what
        is dropped while training; drawn when None. text, destination: as in `UNet`.
        Returns [B, out_channels, H, W] of x's type.
        Raises InputError for what `check_input` and `read` refuse.
        """
        self.check_input(x, t, label, destination)
        words, pooled = self.read(text, x.shape[0])
        condition = self.condition(t, label, pooled, destination)
        height, width = (side // self.patch for side in x.shape[2:])
        tokens = self.first(patchified(x, self.patch)).to(x.dtype)  # [B, N, D]
        turns = None
        if self.positions == "sincos":
            tokens = tokens + position_waves(height, width, self.width, x)
        else:
            turns = rope_angles(height, width, self.width // self.heads, x)
        if self.registers is not None:
            tokens = torch.cat([tokens, self.registers.expand(x.shape[0], -1, -1)], dim=1)  # [B, N + R, D]
            turns = turns and unrotated(*turns, len(self.registers))
        for block in self.blocks:
            tokens = block(tokens, condition, turns, dropout_keys, words)
        shift, scale = self.modulation(condition).to(x.dtype)[:, None].chunk(2, dim=2)
        patches = self.last(modulated(tokens[:, : height * width], shift, scale))
        return unpatchified(patches, height, width, self.patch).to(x.dtype)

    def check_size(self, height: int, width: int) -> None:
        """Raise InputError for a side that does not divide into patches."""
        if height % self.patch or width % self.patch:
            limit = f"patches of {self.patch} x {self.patch}: each side must be a multiple of {self.patch}"
            raise InputError(f"{height} x {width} images do not divide into {limit}")


class Block(nn.Module):
    """Transformer block (Peebles & Xie 2023, section 3.2): x + gate * attention(modulated(x)), then with an MLP.

    With `text_dim`, between the two it attends to a text's tokens (as Chen et al. 2024, PixArt, section 2.3).
    forward(x, condition, turns, keys, words): x [B, N, D], condition [B, D] (already through its SiLU) -> [B, N, D];
    `turns` as `rope_angles` makes them; `keys` [B] decide what is dropped (see `dropout.py`). The rows of `qkv` are
    [q | k | v], and inside each the heads lie one after another.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0, text_dim: int | None = None):
        super().__init__()
        self.heads = heads
        self.cross = None if text_dim is None else CrossAttention(width, text_dim, heads)
        self.modulation = nn.Linear(width, 6 * width)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        hidden = MLP_RATIO * width
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, width))
        self.dropout1, self.dropout2 = Dropout(dropout), Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        condition: Tensor,
        turns: tuple[Tensor, Tensor] | None = None,
        keys: Tensor | None = None,
        words: Tokens | None = None,
    ) -> Tensor:
        modulation = self.modulation(condition).to(x.dtype)[:, None]  # [B, 1, 6D]
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation.chunk(6, dim=2)
        h = self._attend(modulated(x, shift1, scale1), turns)
        x = torch.addcmul(x, gate1, self.dropout1(h.transpose(1, 2), keys).transpose(1, 2))
        if self.cross is not None and words is not None:
            x = x + self.cross(F.layer_norm(x, x.shape[2:], eps=NORM_EPS), *words)
        h = self.mlp(modulated(x, shift2, scale2))
        return torch.addcmul(x, gate2, self.dropout2(h.transpose(1, 2), keys).transpose(1, 2))

    def _attend(self, h: Tensor, turns: tuple[Tensor, Tensor] | None) -> Tensor:
        q, k, v = self.qkv(h).unflatten(2, (3, self.heads, -1)).unbind(2)  # each [B, N, heads, D / heads]
        if turns is not None:
            q, k = turned(q, *turns), turned(k, *turns)
        h = attention_of(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        return self.project(h.transpose(1, 2).flatten(2))


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Normalise each token, then scale and shift it by the condition: [B, N, D] and two of [B, 1, D]."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[2:], eps=NORM_EPS), 1 + scale)


def _check_width(width: int, heads: int, positions: str) -> None:
    check_range("width", width, 4)
    if width % heads:
        raise InputError(f"heads must divide the width {width}, got {heads}")
    if positions == "rope" and width // heads % 4:
        raise InputError(f"positions rope needs 4, 8, 12, ... channels in a head, got {width} / {heads} heads")
    if width % 4:
        raise InputError(f"width must be a multiple of 4, got {width}")
