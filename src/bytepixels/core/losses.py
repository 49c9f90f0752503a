"""The training loss and the sampling loop of the article."""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from ..errors import InputError, check_choice
from ..registries import OBJECTIVES, SAMPLERS, Objective, facts
from .denoiser import Denoise, Denoiser, clipped, first_parameter, learned_variance
from .levels import Level, Process
from .objectives import check_objective, evaluation
from .samplers import Noise, Step, step_of, trajectory


def diffusion_loss(
    model: Callable[..., Tensor],
    process: Process,
    x0: Tensor,
    prediction: str = "eps",
    label: Tensor | None = None,
    t: Tensor | None = None,
    noise: Tensor | None = None,
    weighting: str | None = None,
    objective: str = "simple",
    wanted: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The loss of each image [B], and the times [B] that it was evaluated at.

    x0: [B, C, H, W], pixels in [-1, 1]; label: [B] or None. Times and noise are drawn unless given.
    objective: "simple" is the squared error of the prediction (Ho et al. 2020, eq. 14, before the mean), times a
    `weighting` of WEIGHTINGS when one is named. "vlb" is T times one term of the variational bound, in bits per
    dimension: its mean over t is L_0 + .. + L_(T-1). "hybrid" is simple + 0.001 vlb, the bound training the variance
    alone (Nichol & Dhariwal 2021, eq. 16). Twice the channels learn the variance too. wanted: in `target`'s place.
    """
    kind = facts(OBJECTIVES, check_choice("objective", objective, OBJECTIVES), Objective)
    if kind.destinations:
        raise InputError(f"objective {objective} needs a destination for each image: call flow_map_loss")
    t = (process.draw_times(len(x0)) if t is None else t).to(x0.device)
    found = evaluation(model, process, x0, prediction, label, t, noise, wanted)
    check_objective(kind, objective, found, weighting)
    return kind(found, weighting), t


def training_step(
    model: Callable[..., Tensor],
    diffusion: Process,
    x0: Tensor,
    prediction: str = "eps",
    label: Tensor | None = None,
    weighting: str | None = None,
    objective: str = "simple",
) -> Tensor:
    """The mean loss of one batch x0 [B, C, H, W] in [-1, 1], ready for backward(): Ho et al. 2020, Algorithm 1."""
    return diffusion_loss(model, diffusion, x0, prediction, label, weighting=weighting, objective=objective)[0].mean()


def sample(
    model: Callable[..., Tensor],
    diffusion: Process,
    shape: Sequence[int],
    sampler: str | Step = "ddpm",
    steps: int | None = None,
    noise: Noise = torch.randn_like,
    prediction: str = "eps",
    spacing: str | None = None,
    times: Sequence[float] | None = None,
    clip: bool = False,
    label: Tensor | None = None,
    levels: Sequence[Level] | None = None,
    variance: str | None = None,
) -> Tensor:
    """Images `shape` = [B, C, H, W] in [-1, 1], from noise: Ho et al. 2020, Algorithm 2, clamped at the end.

    By default the article's sampler: all T steps, the large variance, nothing clipped on the way. On fewer steps "ddpm"
    takes the small variance, because the large one spoils them (CIFAR-10 FID in 50 steps 32.7 against 8.0; Song et al.
    2021, table 1), unless `variance` says "small", "large" or "learned". `sampler`: a name in SAMPLERS, or a step
    function, taken as it is. `levels`: another process' grid, instead of steps, spacing and times. The first call of
    `noise` draws x_T, every stochastic step draws once more. The model is in eval mode meanwhile.
    """
    grid = diffusion.levels(steps, spacing, times) if levels is None else diffusion.match_levels(levels)
    step = step_of(sampler, diffusion) if isinstance(sampler, str) else sampler
    denoiser = Denoiser(model, prediction, diffusion.sigma_data, label)
    denoise: Denoise = denoiser
    if sampler == "ddpm":
        denoise, step = ancestral(denoiser, variance or default_variance(len(grid) - 1, diffusion))
    elif variance is not None:
        raise InputError(f"variance {variance} belongs to sampler ddpm, got sampler {sampler}")
    weight = first_parameter(model, torch.empty(0))
    like = torch.empty(tuple(shape), device=weight.device, dtype=torch.promote_types(weight.dtype, torch.float32))
    x = pure_noise(like, grid[0], noise, diffusion.sigma_data)
    with evaluating(model):
        (x,) = deque(trajectory(x, grid, clipped(denoise) if clip else denoise, step, noise), maxlen=1)
    return x.clamp(-1, 1)


def ancestral(denoiser: Denoiser, variance: str) -> tuple[Denoise, Step]:
    """The denoiser and ddpm's step with variance "small", "large" or "learned" (read from the same evaluation)."""
    check_choice("variance", variance, ("small", "large", "learned"))
    if variance != "learned":
        return denoiser, partial(SAMPLERS["ddpm"], variance=variance)
    denoise, fraction = learned_variance(denoiser)
    return denoise, partial(SAMPLERS["ddpm"], variance=fraction)


def default_variance(steps: int, process: Process) -> Literal["small", "large"]:
    """The default variance of ddpm: "large" on the full chain, "small" on a shorter one."""
    return "large" if steps == getattr(process, "T", None) else "small"


def pure_noise(like: Tensor, level: Level, noise: Noise, sigma_data: float = 1.0) -> Tensor:
    """Draw x_T: noise with the variance of the images at the first level, alpha^2 sigma_data^2 + sigma^2."""
    return math.hypot(level.alpha * sigma_data, level.sigma) * noise(like)


@contextmanager
def evaluating(model: Callable[..., Tensor]) -> Iterator[None]:
    """Put the model in eval mode (no dropout) for the block, then restore the mode of every part."""
    parts = list(model.modules()) if isinstance(model, nn.Module) else []
    were_training = [part for part in parts if part.training]
    for part in were_training:
        part.training = False
    try:
        yield
    finally:
        for part in were_training:
            part.training = True
