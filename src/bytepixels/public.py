"""The public names. The package takes them from here when the first of them is asked for."""

from .codec import LatentCodec, PixelCodec
from .denoise import Denoiser, classifier_guided, clipped, guided
from .editing import inpainted, invert, resampling_path, slerp, start_from, wander
from .errors import InputError
from .likelihood import ode_bits, ode_log_likelihood, variational_bound
from .networks import DiT, UNet, timestep_embedding
from .process import CLEAN, SPACINGS, EDMProcess, GaussianDiffusion, Level, RectifiedFlow
from .randomness import SeededNoise
from .samplers import SAMPLERS, churned, trajectory
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
from .weighting import WEIGHTINGS

__all__ = [
    "CLEAN",
    "SAMPLERS",
    "SCHEDULES",
    "SPACINGS",
    "WEIGHTINGS",
    "Denoiser",
    "DiT",
    "EDMProcess",
    "GaussianDiffusion",
    "InputError",
    "LatentCodec",
    "Level",
    "PixelCodec",
    "RectifiedFlow",
    "SeededNoise",
    "UNet",
    "__version__",
    "churned",
    "classifier_guided",
    "clipped",
    "cosine_schedule",
    "diffusion_loss",
    "guided",
    "inpainted",
    "invert",
    "linear_schedule",
    "ode_bits",
    "ode_log_likelihood",
    "resampling_path",
    "sample",
    "scaled_linear_schedule",
    "sigmoid_schedule",
    "slerp",
    "start_from",
    "timestep_embedding",
    "training_step",
    "trajectory",
    "variational_bound",
    "wander",
    "zero_terminal_snr",
]
