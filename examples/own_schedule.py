"""A noise schedule of one's own: any function from T to betas makes a GaussianDiffusion."""

import numpy as np
import torch

from bytepixels import GaussianDiffusion, UNet, sample, training_step
from examples.digits import digits, trained


def logistic_schedule(timesteps: int, start: float = 4.0, end: float = -7.0) -> np.ndarray:
    """betas [T] whose alpha_bar falls along a logistic curve, from 0.98 to 0.001."""
    alpha_bar = 1 / (1 + np.exp(-np.linspace(start, end, timesteps + 1)))
    return np.clip(1 - alpha_bar[1:] / alpha_bar[:-1], 0, 0.999)


diffusion = GaussianDiffusion(100, logistic_schedule)
model = trained(UNet(1, 16, (1, 2), 1, (1,)), lambda model, x0: training_step(model, diffusion, x0), digits())
with torch.no_grad():
    x = sample(model, diffusion, (16, 1, 8, 8), sampler="ddim", steps=10)
