"""A network of one's own: any module with network(x, t, label=None) -> like x."""

import torch
from torch import Tensor, nn

from bytepixels import RectifiedFlow, diffusion_loss, sample, timestep_embedding
from examples.digits import digits, trained


class Mixer(nn.Module):
    """A plain perceptron over all pixels and the time."""

    def __init__(self, pixels: int = 64, width: int = 256):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(pixels + 32, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.out = nn.Linear(width, pixels)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """x [B, C, H, W], t [B] in 0..1 -> like x."""
        waves = timestep_embedding(1000 * t, 32).to(x.dtype)
        return self.out(self.layers(torch.cat([x.flatten(1), waves], dim=1))).view_as(x)


flow = RectifiedFlow()
model = trained(Mixer(), lambda model, x0: diffusion_loss(model, flow, x0, "v")[0].mean(), digits())
with torch.no_grad():
    x = sample(model, flow, (16, 1, 8, 8), sampler="heun", steps=10, prediction="v")
