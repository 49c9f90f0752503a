"""A process of one's own: the levels that its times have, and back. Here alpha and sigma lie on a circle."""

import math

import torch
from torch import Tensor

from bytepixels import Level, RectifiedFlow, UNet, diffusion_loss, sample
from examples.digits import digits, trained


class TrigonometricFlow(RectifiedFlow):
    """x_t = cos(pi t / 2) x0 + sin(pi t / 2) eps, t from 0 (clean) to 1 (noise): Albergo & Vanden-Eijnden 2023."""

    def alpha_sigma(self, t: Tensor, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """t [B] in 0..1 -> each [B, 1, 1, 1]."""
        angle = (math.pi / 2 * torch.as_tensor(t).to(dtype))[:, None, None, None]
        return torch.cos(angle), torch.sin(angle)

    def level(self, half_log_snr: float) -> Level:
        """The level with this log(alpha / sigma)."""
        angle = math.atan(math.exp(-half_log_snr))
        return Level(angle / (math.pi / 2), math.cos(angle), math.sin(angle))

    def time_at(self, angle: Tensor) -> Tensor:
        """The times with these atan2(sigma, alpha): what a flow map asks for."""
        return angle / (math.pi / 2)

    def _half_log_snr(self, t: float) -> float:
        return -math.log(math.tan(math.pi / 2 * t)) if t < 1 else -math.inf


process = TrigonometricFlow()
unet = UNet(1, 16, (1, 2), 1, (1,), time_scale=1000)  # embeddings are made for times of 0..1000
model = trained(unet, lambda model, x0: diffusion_loss(model, process, x0, "v")[0].mean(), digits())
with torch.no_grad():
    x = sample(model, process, (16, 1, 8, 8), sampler="ddim", steps=20, prediction="v")
