"""Diffusion models from scratch: the equations under their own names, and the tools to use them on pictures."""

from .codec import PixelCodec
from .denoise import Denoiser, clipped, guided
from .errors import InputError
from .networks import UNet, timestep_embedding
from .process import CLEAN, SPACINGS, GaussianDiffusion, Level
from .randomness import SeededNoise
from .samplers import SAMPLERS, trajectory
from .schedules import (
    SCHEDULES,
    cosine_schedule,
    linear_schedule,
    scaled_linear_schedule,
    sigmoid_schedule,
    zero_terminal_snr,
)
from .training import diffusion_loss, sample, training_step
from .version import __version__

__all__ = [
    "CLEAN",
    "SAMPLERS",
    "SCHEDULES",
    "SPACINGS",
    "Denoiser",
    "GaussianDiffusion",
    "InputError",
    "Level",
    "PixelCodec",
    "SeededNoise",
    "UNet",
    "__version__",
    "clipped",
    "cosine_schedule",
    "diffusion_loss",
    "guided",
    "linear_schedule",
    "sample",
    "scaled_linear_schedule",
    "sigmoid_schedule",
    "timestep_embedding",
    "training_step",
    "trajectory",
    "zero_terminal_snr",
]
