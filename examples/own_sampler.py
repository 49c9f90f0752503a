"""A sampler of one's own: a function from one noise level to the next, which sees a denoiser and nothing else."""

import torch

from bytepixels import Denoiser, EDMProcess, Level, SeededNoise, UNet, clipped, diffusion_loss, trajectory
from examples.digits import digits, trained


def midpoint_step(x, now, nxt, denoise, noise, memory=None):
    """The midpoint rule for dx/dsigma = (x - x0) / sigma in EDM's variables: twice the evaluations, second order."""
    if nxt.sigma == 0:
        return denoise(x, now), None
    middle = Level(t=(now.t + nxt.t) / 2, alpha=1.0, sigma=(now.sigma * nxt.sigma) ** 0.5)  # t is ln(sigma) / 4
    half = x + (middle.sigma - now.sigma) * (x - denoise(x, now)) / now.sigma
    return x + (nxt.sigma - now.sigma) * (half - denoise(half, middle)) / middle.sigma, None


process = EDMProcess()
unet = UNet(1, 16, (1, 2), 1, (1,), time_scale=1000)
model = trained(unet, lambda model, x0: diffusion_loss(model, process, x0, "v")[0].mean(), digits())
denoise = clipped(Denoiser(model, "v", process.sigma_data))
levels = process.levels(10, "karras")
start = levels[0].sigma * SeededNoise(range(16))(torch.empty(16, 1, 8, 8))
with torch.no_grad():
    *_, x = trajectory(start, levels, denoise, midpoint_step)
