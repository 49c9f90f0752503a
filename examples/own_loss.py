"""A loss of one's own: add noise, call the network, compare with whatever it should say."""

import torch
from torch import Tensor, nn

from bytepixels import GaussianDiffusion, UNet, sample
from examples.digits import digits, trained

diffusion = GaussianDiffusion(100)


def huber_loss(model: nn.Module, x0: Tensor) -> Tensor:
    """The noise-prediction loss of DDPM with Huber's in the square's place: outliers pull less."""
    t = diffusion.draw_times(len(x0))
    x_t, noise = diffusion.add_noise(x0, t)
    return nn.functional.smooth_l1_loss(model(x_t, t), noise, beta=0.5)


model = trained(UNet(1, 16, (1, 2), 1, (1,)), huber_loss, digits())
with torch.no_grad():
    x = sample(model, diffusion, (16, 1, 8, 8))
