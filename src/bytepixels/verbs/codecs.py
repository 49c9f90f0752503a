"""The codec of a run: its pixels, or the latents of the first stage that it was begun with."""

import torch

from ..codec import Codec, PixelCodec
from ..runs.directory import Run


def codec_of(run: Run, device: torch.device) -> Codec:
    """What turns a run's pictures into x0 and back."""
    return PixelCodec()
