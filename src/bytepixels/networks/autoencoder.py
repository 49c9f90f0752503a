"""The autoencoder of latent diffusion: images to latents at 1 / factor of their resolution, and back."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError, check_choice, check_count
from .blocks import Downsample, ResidualBlock, Upsample, group_count, group_norm, zero_
from .haar import coarse_first, from_coarse
from .quantizer import Quantizer

KINDS = ("kl", "vq")
FRESH_STD = 0.01  # of the latents of a residual autoencoder that has learnt nothing yet
LOG_VARIANCE = (-30.0, 20.0)  # what a log variance is clamped to, as in Rombach et al. 2022's code


class Autoencoder(nn.Module):
    """A convolutional encoder and decoder with attention at the lowest resolution (Rombach et al. 2022, appendix G).

    channels: of the images. width: channels at full resolution; level i has width * multipliers[i] and 1 / 2**i of
        the resolution, so that the factor is 2**(levels - 1): 1, 2, 4, 8. blocks: residual blocks per level of the
        encoder; the decoder has one more.
    latent_channels: Z, of the latents. attention: whether the middles attend.
    kind: "kl" gives every number of a latent a mean and a deviation; "vq" puts each of its vectors to the nearest of
        `codes` codes (see `quantizer.py`).
    groups: of the norms; as in the U-Net when None.
    residual: the network adds to a shortcut, in which the latents are the Z coarsest numbers of the Haar transform,
        divided by the factor (the first C of them are mean colours), and the way back is its inverse. Last layers are
        zero at first, so that a fresh network keeps the colours. (Chen et al. 2024 have shortcuts of space to depth
        round each change of resolution; this is one round all of them.)

    Residual branches start at zero, so that a fresh network is its convolutions alone.
    Raises InputError when these do not fit together.
    """

    def __init__(
        self,
        channels: int = 3,
        width: int = 128,
        multipliers: Sequence[int] = (1, 2, 4),
        blocks: int = 2,
        latent_channels: int = 4,
        kind: str = "kl",
        codes: int = 1024,
        attention: bool = True,
        groups: int | None = None,
        residual: bool = False,
    ):
        super().__init__()
        check_choice("kind", kind, KINDS)
        check_count("channels", channels, 1)
        check_count("width", width, 4)
        check_count("blocks", blocks, 1)
        check_count("latent_channels", latent_channels, 1)
        if len(multipliers) == 0:
            raise InputError("multipliers must name at least one level, got none")
        for multiplier in multipliers:
            check_count("multipliers", multiplier, 1)
        groups = group_count(width) if groups is None else groups
        check_count("groups", groups, 1)
        if width % groups:
            raise InputError(f"groups must divide the width {width}, got {groups}")
        self.settings: dict[str, Any] = {  # of which another call makes the same network
            "channels": channels,
            "width": width,
            "multipliers": list(multipliers),
            "blocks": blocks,
            "latent_channels": latent_channels,
            "kind": kind,
            "codes": codes,
            "attention": attention,
            "groups": groups,
            "residual": residual,
        }
        self.channels, self.latent_channels, self.kind = channels, latent_channels, kind
        self.factor = 2 ** (len(multipliers) - 1)
        widths, moments = [width * m for m in multipliers], latent_channels * (2 if kind == "kl" else 1)
        self.encoder = Encoder(channels, widths, blocks, moments, groups, attention)
        self.to_latent = nn.Conv2d(moments, moments, 1)
        self.quantizer = Quantizer(codes, latent_channels) if kind == "vq" else None
        self.from_latent = nn.Conv2d(latent_channels, latent_channels, 1)
        self.decoder = Decoder(channels, widths, blocks, latent_channels, groups, attention)
        self.residual = residual
        if residual:
            self._begin_as_the_shortcut()

    def _begin_as_the_shortcut(self) -> None:
        """Initialise the network as the plain shortcut, with a small deviation of the latents."""
        zero_(self.to_latent)
        zero_(self.decoder.last)
        if self.kind == "kl":
            assert self.to_latent.bias is not None
            nn.init.constant_(self.to_latent.bias[self.latent_channels :], 2 * math.log(FRESH_STD))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images x [B, C, H, W] in -1..1 -> mean and standard deviation of their latents, each [B, Z, H/f, W/f].

        kind "vq": the latents before they are put to the nearest code, which `decode` does, and deviations of zero.
        Raises InputError for another number of channels and for sides that the factor f does not divide.
        """
        if x.ndim != 4 or x.shape[1] != self.channels:
            raise InputError(f"x must be [B, {self.channels}, H, W], got {list(x.shape)}")
        self.check_size(*x.shape[2:])
        h = self.to_latent(self.encoder(x)).to(x.dtype)
        if self.residual:
            coarse = _channels(coarse_first(x, self.factor) / self.factor, self.latent_channels)
            h = h + _channels(coarse, h.shape[1])
        if self.kind == "vq":
            return h, torch.zeros_like(h)
        mean, log_variance = h.chunk(2, dim=1)
        return mean, torch.exp(log_variance.clamp(*LOG_VARIANCE) / 2)

    def decode(self, z: Tensor) -> Tensor:
        """Latents z [B, Z, h, w] -> images [B, C, f h, f w], about -1..1 (nothing is clamped), of z's type.

        kind "vq": each vector of z is put to its nearest code first; gradients pass straight through that.
        """
        if z.ndim != 4 or z.shape[1] != self.latent_channels:
            raise InputError(f"z must be [B, {self.latent_channels}, h, w], got {list(z.shape)}")
        return self.render(z if self.quantizer is None else self.quantizer(z)[0])

    def render(self, z: Tensor) -> Tensor:
        """Decode latents that are codes already, or that have none (kl)."""
        x = self.decoder(self.from_latent(z)).to(z.dtype)
        if not self.residual:
            return x
        return x + from_coarse(_channels(self.factor * z, self.channels * self.factor**2), self.factor)

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """Reconstruct images: through sampled latents with standard normal `noise`, or through their mean."""
        mean, std = self.encode(x)
        return self.decode(mean if noise is None else mean + std * noise)

    def check_size(self, height: int, width: int) -> None:
        """Raise InputError for sides that the factor does not divide."""
        if height % self.factor or width % self.factor or 0 in (height, width):
            raise InputError(f"each side of an image must be a multiple of {self.factor}, got {height} x {width}")


def _channels(x: Tensor, count: int) -> Tensor:
    """Take the first `count` channels of [B, c, H, W], padded with zeros."""
    return F.pad(x[:, :count], (0, 0, 0, 0, 0, max(0, count - x.shape[1])))


class Encoder(nn.Module):
    """The convolutional encoder: [B, C, H, W] -> [B, c_out, H / f, W / f]; `widths` are the channels of each level."""

    def __init__(self, channels: int, widths: Sequence[int], blocks: int, c_out: int, groups: int, attention: bool):
        super().__init__()
        self.first = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.down, c = nn.ModuleList(), widths[0]
        for level, width in enumerate(widths):
            if level > 0:
                self.down.append(Downsample(c))
            for _ in range(blocks):
                self.down.append(ResidualBlock(c, width, None, groups))
                c = width
        self.middle = middle(c, groups, attention)
        self.norm = group_norm(groups, c)
        self.last = nn.Conv2d(c, c_out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        for layer in (*self.down, *self.middle):
            h = layer(h)
        return self.last(F.silu(self.norm(h)))


class Decoder(nn.Module):
    """The convolutional decoder: [B, Z, h, w] -> [B, C, f h, f w]; `widths` as in the encoder."""

    def __init__(
        self, channels: int, widths: Sequence[int], blocks: int, latent_channels: int, groups: int, attention: bool
    ):
        super().__init__()
        c = widths[-1]
        self.first = nn.Conv2d(latent_channels, c, 3, padding=1)
        self.middle, self.up = middle(c, groups, attention), nn.ModuleList()
        for level, width in reversed(list(enumerate(widths))):
            for _ in range(blocks + 1):
                self.up.append(ResidualBlock(c, width, None, groups))
                c = width
            if level > 0:
                self.up.append(Upsample(c))
        self.norm = group_norm(groups, c)
        self.last = nn.Conv2d(c, channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        h = self.first(z)
        for layer in (*self.middle, *self.up):
            h = layer(h, (2 * h.shape[2], 2 * h.shape[3])) if isinstance(layer, Upsample) else layer(h)
        return self.last(F.silu(self.norm(h)))


def middle(channels: int, groups: int, attention: bool) -> nn.ModuleList:
    """The layers at the lowest resolution: block, attention, block."""
    heads = 1 if attention else None
    return nn.ModuleList(
        [ResidualBlock(channels, channels, None, groups, heads=heads), ResidualBlock(channels, channels, None, groups)]
    )
