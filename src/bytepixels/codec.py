"""Codecs: uint8 pictures <-> x0, what the process works on. Latents are another codec; nothing else changes."""

import torch
from torch import Tensor

from .errors import InputError


class PixelCodec:
    """0..255 <-> [-1, 1], evenly: 0 -> -1, 255 -> 1 (Ho et al. 2020, section 3.3)."""

    def to_model(self, images: Tensor) -> Tensor:
        """uint8 [B, C, H, W] -> float32 in [-1, 1]. InputError for any other type."""
        if images.dtype != torch.uint8:
            raise InputError(f"pictures must be uint8, got {images.dtype}")
        return images.float().div_(127.5).sub_(1)

    def to_images(self, x0: Tensor) -> Tensor:
        """x0 [B, C, H, W], clamped to [-1, 1] -> uint8, rounded to the nearest grey level."""
        return x0.float().clamp(-1, 1).add(1).mul_(127.5).round_().to(torch.uint8)
