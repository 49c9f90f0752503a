"""The exponential moving average of the weights: what samples are drawn with."""

import torch
from torch import nn

WARMUP = 0.05  # of the images seen so far: the half-life starts short and grows (Karras et al. 2022, appendix F.1)


def ema_decay(images_seen: int, batch: int, half_life: float) -> float:
    """The share (0..1) of the average that a step of `batch` images keeps; `half_life`: in images.

    It is taken to be 5% of the images seen so far at most.
    """
    half_life = min(half_life, WARMUP * images_seen)
    return 0.5 ** (batch / half_life) if half_life > 0 else 0.0


@torch.no_grad()
def update_ema(ema: nn.Module, model: nn.Module, decay: float) -> None:
    """Update ema = decay * ema + (1 - decay) * model, for all weights in one call."""
    torch._foreach_lerp_(list(ema.parameters()), list(model.parameters()), 1 - decay)
    for own, other in zip(ema.buffers(), model.buffers(), strict=True):  # codes: means already
        own.copy_(other)
