"""Codecs: uint8 images <-> x0, what the process works on. Latents are another codec; nothing else changes."""

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from ..errors import InputError

Shape = tuple[int, int, int]
Bounds = tuple[float | Tensor, float | Tensor]  # what x0 lies between: of all channels, or [c, 1, 1] of each
PIXELS: Bounds = (-1.0, 1.0)
LEAST_DEVIATION = 1e-6  # of a channel, in units of its mean: below, float32 does not tell latents apart


class Codec(Protocol):
    """A map from images to x0 and back."""

    @property
    def bounds(self) -> Bounds:
        """The range (low, high) of x0, for `clipped(denoise, *codec.bounds)`."""

    def to_model(self, images: Tensor) -> Tensor:
        """Map images, uint8 [B, C, H, W], or the stored latents of a training, to x0 float32 [B, c, h, w]."""

    def to_images(self, x0: Tensor) -> Tensor:
        """x0 [B, c, h, w] -> uint8 [B, C, H, W]."""

    def shape(self, images: Shape) -> Shape:
        """(c, h, w) of x0 for images of (C, H, W)."""


class Autoencoder(Protocol):
    """A first stage: images in [-1, 1], [B, C, H, W], and latents [B, z, h, w], `factor` times as small."""

    factor: int
    latent_channels: int

    def encode(self, x: Tensor, /) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents, each [B, z, h, w]."""

    def decode(self, z: Tensor, /) -> Tensor:
        """Latents -> images."""


class PixelCodec:
    """0..255 <-> [-1, 1], evenly: 0 -> -1, 255 -> 1 (Ho et al. 2020, section 3.3)."""

    bounds = PIXELS

    def to_model(self, images: Tensor) -> Tensor:
        """uint8 [B, C, H, W] -> float32 in [-1, 1]. InputError for any other type."""
        if images.dtype != torch.uint8:
            raise InputError(f"images must be uint8, got {images.dtype}")
        return images.float().div_(127.5).sub_(1)

    def to_images(self, x0: Tensor) -> Tensor:
        """x0 [B, C, H, W], clamped to [-1, 1] -> uint8, rounded to the nearest grey level."""
        return x0.float().clamp(-1, 1).add(1).mul_(127.5).round_().to(torch.uint8)

    def shape(self, images: Shape) -> Shape:
        """x0 has the shape of the images."""
        return images


class LatentCodec:
    """Images <-> whitened latents of an autoencoder: x0 = sigma_data * (latent - mean) / deviation, by channel.

    mean, deviation: [z], of the latents over the whole data set (`Latents.statistics`).
    low, high: [z], what the latents of the data lie between.
    sigma_data: the process' own, so that each sees the deviation that it takes x0 to have: 1, and 0.5 for EDM, whose
        noise levels are chosen for that (Karras et al. 2024, EDM2, scale latents to 0.5 as well).
    at_a_time: images in one call of the autoencoder, which takes much memory for each.
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        mean: Sequence[float],
        deviation: Sequence[float],
        low: Sequence[float],
        high: Sequence[float],
        sigma_data: float = 1.0,
        device: torch.device | str = "cpu",
        at_a_time: int = 16,
    ):
        self.autoencoder, self.at_a_time = autoencoder, at_a_time
        channels = autoencoder.latent_channels
        if lengths := {len(one) for one in (mean, deviation, low, high)} - {channels}:
            raise InputError(f"the autoencoder has {channels} latent channels, their statistics are of {lengths.pop()}")
        for channel, (middle, spread) in enumerate(zip(mean, deviation, strict=True)):
            if not LEAST_DEVIATION * abs(middle) < spread < math.inf:
                found = f"mean {middle:g}, deviation {spread:g}"
                raise InputError(f"channel {channel} of the latents tells no two images apart ({found})")
        values = torch.tensor([mean, deviation, low, high], dtype=torch.float32, device=device)
        self._mean, spread, least, most = values[..., None, None]  # [z, 1, 1]
        self._scale = spread / sigma_data
        self.bounds = self._whitened(least), self._whitened(most)

    def to_model(self, images: Tensor) -> Tensor:
        """Images uint8 [B, C, H, W], encoded to the mean of their posterior, or latents as they are drawn from the
        stored moments, float [B, z, h, w] -> x0 float32 [B, z, h, w]. InputError for another number of channels."""
        if images.dtype == torch.uint8:
            encode = encoder_of(self.autoencoder, self._mean.device)
            images = torch.cat([encode(part)[0] for part in images.split(self.at_a_time)])
        if images.ndim != 4 or images.shape[1] != len(self._mean) or not images.is_floating_point():
            wanted = f"images uint8 [B, C, H, W] or latents [B, {len(self._mean)}, h, w]"
            raise InputError(f"a latent codec takes {wanted}, got {images.dtype} {list(images.shape)}")
        return self._whitened(images.float())

    def to_images(self, x0: Tensor) -> Tensor:
        """x0 [B, z, h, w], decoded -> uint8 [B, C, H, W], clamped and rounded like pixels."""
        with torch.no_grad():
            latents = (x0.float() * self._scale + self._mean).split(self.at_a_time)
            return torch.cat([PixelCodec().to_images(self.autoencoder.decode(part)) for part in latents])

    def shape(self, images: Shape) -> Shape:
        """(z, h, w). InputError for images that the autoencoder's factor does not divide."""
        _, height, width = images
        factor = self.autoencoder.factor
        if height % factor or width % factor:
            size = f"{height} x {width}"
            raise InputError(f"height and width must be multiples of {factor}, the autoencoder's factor, got {size}")
        return len(self._mean), height // factor, width // factor

    def _whitened(self, latents: Tensor) -> Tensor:
        return (latents - self._mean) / self._scale


def encoder_of(
    autoencoder: Autoencoder, device: torch.device | str = "cpu"
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Return the function that encodes images uint8 [B, C, H, W] to the mean and standard deviation of their latents,
    float32 [B, z, h, w], on the autoencoder's device."""

    def encode(images: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            mean, deviation = autoencoder.encode(PixelCodec().to_model(images.to(device)))
        return mean.float(), deviation.float()

    return encode
