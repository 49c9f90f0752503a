"""Denoisers: callables (x [B, C, H, W], level) -> estimate of x0, like x. They are all that a sampler ever sees."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .prediction import coefficients
from .process import Level

Denoise = Callable[[Tensor, Level], Tensor]


@dataclass(frozen=True)
class Denoiser:
    """Reads x0 out of a network(x, t, label=None) that was trained to predict `prediction` ("eps", "x0" or "v")."""

    network: Callable[..., Tensor]
    prediction: str = "eps"
    sigma_data: float = 1.0
    label: Tensor | None = None  # [B] int64

    def __call__(self, x: Tensor, level: Level) -> Tensor:
        c_in, c_skip, c_out = coefficients(self.prediction, level.alpha, level.sigma, self.sigma_data)
        t = torch.full((len(x),), level.t, device=x.device, dtype=torch.float32)  # [B]
        given = () if self.label is None else (self.label,)
        output = self.network((c_in * x).to(weights_like(self.network, x).dtype), t, *given)
        return c_skip * x + c_out * output.to(x.dtype)


def weights_like(network: Callable[..., Tensor], default: Tensor) -> Tensor:
    """A weight of the network, to read its type and device from; `default` where it has none."""
    return next(network.parameters(), default) if isinstance(network, nn.Module) else default


def clipped(denoise: Denoise, low: float = -1.0, high: float = 1.0) -> Denoise:
    """x0 is known to lie in [low, high]: true of pixels, not of latents."""
    return lambda x, level: denoise(x, level).clamp(low, high)


def guided(denoise: Denoise, unconditional: Denoise, scale: float) -> Denoise:
    """Classifier-free guidance (Ho & Salimans 2022, eq. 6, as a scale 1 + w): 1 is no guidance, 0 is unconditional."""
    if scale == 1:
        return denoise
    return lambda x, level: torch.lerp(unconditional(x, level), denoise(x, level), scale)
