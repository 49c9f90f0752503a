"""The article's network: a U-Net with skip connections, told the timestep. With no arguments, DDPM's for CIFAR-10."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError, check_range
from .base import Network, check_dropout, check_sizes
from .blocks import Downsample, ResidualBlock, Upsample, group_count, group_norm, zero_
from .dropout import number_dropouts
from .embedding import DestinationReader
from .haar import check_stem, even, haar, unhaar
from .text_conditioning import Text


class UNet(Network):
    """Ho et al. 2020, appendix B: residual blocks going down and up, with a skip connection from every layer.

    channels: of the images. width: channels of level 0; level i has width * multipliers[i] and 1 / 2**i of its
        resolution. blocks: residual blocks per level (one more on the way up).
    stem: "conv": level 0 has the images' resolution; "haar": half of it, of the Haar transform (see `haar.py`), for a
        quarter of the work. An odd side is made even by repeating its last pixels, which are cut off again.
    attention: the levels that attend (the middle always does), each with `heads` heads.
    dropout: in [0, 1), inside the residual blocks. embedding: "article" or "ddpm" (see `embedding.py`).
    num_classes: K for a class-conditional network; labels are 0..K-1 and K (`null_label`) means "no label".
    time_scale: what t is multiplied with before it is embedded; 1000 for times of about one.
    out_channels: of the output, when it is not `channels` (a learned variance doubles it).
    text_dim: D for a network conditioned on text: where it attends, it attends to the text's tokens too.
    destinations: whether it can be told a destination, as a flow map is (see `embedding.py`).

    The last layer starts at zero, so a fresh network returns zeros, and so do the residual and attention branches.
    Raises InputError when these do not fit together.
    """

    def __init__(
        self,
        channels: int = 3,
        width: int = 128,
        multipliers: Sequence[int] = (1, 2, 2, 2),
        blocks: int = 2,
        attention: Sequence[int] = (1,),
        heads: int = 1,
        dropout: float = 0.1,
        num_classes: int | None = None,
        embedding: str = "article",
        out_channels: int | None = None,
        time_scale: float = 1.0,
        text_dim: int | None = None,
        stem: str = "conv",
        destinations: bool = False,
    ):
        check_sizes(blocks=blocks, heads=heads, out_channels=out_channels)
        check_range("width", width, 4)
        check_dropout(dropout)
        _check_levels(width, multipliers, attention, heads)
        time_dim = 4 * width
        super().__init__(channels, num_classes, embedding, time_scale, waves=width, size=time_dim, text_dim=text_dim)
        self.stem = check_stem(stem)
        self.min_side = self.stem * 2 ** (len(multipliers) - 1)
        pixels = self.stem**2  # that one place of level 0 stands for
        self.groups = group_count(width)

        def block(c_in: int, c_out: int, attends: bool) -> ResidualBlock:
            return ResidualBlock(c_in, c_out, time_dim, self.groups, dropout, heads if attends else None, text_dim)

        self.first = nn.Conv2d(pixels * channels, width, 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        skips, c = [width], width  # the channels of each skip connection, and of the layer built last
        for level, multiplier in enumerate(multipliers):
            if level > 0:
                self.down.append(Downsample(c))
                skips.append(c)
            for _ in range(blocks):
                self.down.append(block(c, width * multiplier, level in attention))
                c = width * multiplier
                skips.append(c)
        self.middle = nn.ModuleList([block(c, c, True), block(c, c, False)])
        for level, multiplier in reversed(list(enumerate(multipliers))):
            for _ in range(blocks + 1):
                self.up.append(block(c + skips.pop(), width * multiplier, level in attention))
                c = width * multiplier
            if level > 0:
                self.up.append(Upsample(c))
        self.norm = group_norm(self.groups, c)
        self.last = zero_(nn.Conv2d(c, pixels * (out_channels or channels), 3, padding=1))
        number_dropouts(self)
        self.destination = DestinationReader(width, time_dim) if destinations else None

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

        x: [B, C, H, W], each side at least 2**(levels - 1), even or odd. t: [B], float or integer.
        label: [B] int64 in 0..K, or None for no label. dropout_keys: [B] integers that decide, image by image, what
        is dropped while training; drawn when None. text: vectors [B, L, D] and a mask [B, L], whose empty rows mean no
        text, as None does for all. destination: [B] in 0..1, how far from t it lies (`levels.way_between`); None is 0.
        Returns [B, out_channels, H, W] of x's type.
        Raises InputError for shapes that do not fit, labels on a network without classes, a text on one without, and
        labels out of range when they are on the CPU (on an accelerator the check would stall it: check them before).
        """
        self.check_input(x, t, label, destination)
        tokens, read = self.read(text, x.shape[0])
        time = self.condition(t, label, read, destination)
        h = self.first(x if self.stem == 1 else haar(even(x)))
        skips = [h]
        for layer in self.down:
            h = layer(h) if isinstance(layer, Downsample) else layer(h, time, dropout_keys, tokens)
            skips.append(h)
        for layer in self.middle:
            h = layer(h, time, dropout_keys, tokens)
        for layer in self.up:
            if isinstance(layer, Upsample):
                h = layer(h, skips[-1].shape[2:])
            else:
                h = layer(torch.cat([h, skips.pop()], dim=1), time, dropout_keys, tokens)
        y = self.last(F.silu(self.norm(h))).to(x.dtype)
        return y if self.stem == 1 else unhaar(y)[:, :, : x.shape[2], : x.shape[3]]

    def check_size(self, height: int, width: int) -> None:
        """Raise InputError when a side is too small to be halved on every level."""
        if min(height, width) < self.min_side:
            limit = f"{self.min_side.bit_length() + 1 - self.stem} levels: each side must be at least {self.min_side}"
            raise InputError(f"{height} x {width} images are too small for {limit}")


def _check_levels(width: int, multipliers: Sequence[int], attention: Sequence[int], heads: int) -> None:
    if len(multipliers) == 0:
        raise InputError("multipliers must name at least one level, got none")
    for multiplier in multipliers:
        check_range("multipliers", multiplier, 1)
    for level in attention:
        check_range("attention (a level)", level, 0, len(multipliers) - 1)
    for level in {*attention, len(multipliers) - 1}:
        channels = width * multipliers[level]
        if channels % heads:
            raise InputError(f"heads must divide the {channels} channels of level {level}, got {heads}")
