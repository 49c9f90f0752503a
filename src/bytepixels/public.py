"""The public names of the package, loaded when the first of them is asked for."""

from .codec.codec import LatentCodec, PixelCodec
from .core.denoiser import Denoiser, classifier_guided, clipped, guided
from .core.editing import inpainted, invert, noised_start, resampled_trajectory, resampling_path, slerp
from .core.gaussian_diffusion import CLEAN, SPACINGS, EDMProcess, GaussianDiffusion, Level, RectifiedFlow
from .core.inverse_problems import consistent, measured
from .core.likelihood import ode_bits, ode_log_likelihood, variational_bound
from .core.linear_operators import LinearOperator
from .core.losses import diffusion_loss, sample, training_step
from .core.samplers import churned, trajectory
from .core.schedules import (
    cosine_schedule,
    linear_schedule,
    scaled_linear_schedule,
    sigmoid_schedule,
    zero_terminal_snr,
)
from .errors import InputError
from .networks import DiT, UNet, timestep_embedding
from .randomness import SeededNoise
from .registries import (
    NETWORKS,
    OBJECTIVES,
    PROCESSES,
    SAMPLERS,
    SCHEDULES,
    WEIGHTINGS,
    Backbone,
    ForwardProcess,
    Objective,
    Sampler,
)
from .version import __version__

__all__ = [
    "CLEAN",
    "NETWORKS",
    "OBJECTIVES",
    "PROCESSES",
    "SAMPLERS",
    "SCHEDULES",
    "SPACINGS",
    "WEIGHTINGS",
    "Backbone",
    "Denoiser",
    "DiT",
    "EDMProcess",
    "ForwardProcess",
    "GaussianDiffusion",
    "InputError",
    "LatentCodec",
    "Level",
    "LinearOperator",
    "Objective",
    "PixelCodec",
    "RectifiedFlow",
    "Sampler",
    "SeededNoise",
    "UNet",
    "__version__",
    "churned",
    "classifier_guided",
    "clipped",
    "consistent",
    "cosine_schedule",
    "diffusion_loss",
    "guided",
    "inpainted",
    "invert",
    "linear_schedule",
    "measured",
    "noised_start",
    "ode_bits",
    "ode_log_likelihood",
    "resampled_trajectory",
    "resampling_path",
    "sample",
    "scaled_linear_schedule",
    "sigmoid_schedule",
    "slerp",
    "timestep_embedding",
    "training_step",
    "trajectory",
    "variational_bound",
    "zero_terminal_snr",
]
