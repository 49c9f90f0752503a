"""The loss and the sampling loop: the functions that the article is made of."""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from .denoise import Denoiser, clipped, weights_like
from .errors import InputError, check_choice
from .prediction import coefficients, target
from .process import GaussianDiffusion, Level
from .samplers import SAMPLERS, Noise, Step, trajectory


def diffusion_loss(
    model: Callable[..., Tensor],
    process: GaussianDiffusion,
    x0: Tensor,
    prediction: str = "eps",
    label: Tensor | None = None,
    t: Tensor | None = None,
    noise: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Squared error of the prediction per picture [B], and the times [B] it was measured at.

    Ho et al. 2020, eq. 14, before the mean. x0: [B, C, H, W], pixels in [-1, 1]; label: [B] or None. Times and
    noise are drawn unless given.
    """
    t = (process.draw_times(len(x0)) if t is None else t).to(x0.device)
    x_t, noise = process.add_noise(x0, t, noise)
    compute = torch.promote_types(x0.dtype, torch.float32)
    alpha, sigma = process.alpha_sigma(t, compute)
    c_in, _, _ = coefficients(prediction, alpha, sigma, process.sigma_data)
    wanted = target(prediction, x0, noise, alpha, sigma, process.sigma_data)
    given = () if label is None else (label,)
    output = model((c_in * x_t).to(x0.dtype), t.float(), *given)
    if output.shape != wanted.shape:
        raise InputError(f"the network must return {list(wanted.shape)}, as it was given, got {list(output.shape)}")
    return (output.to(compute) - wanted).square().mean(dim=(1, 2, 3)), t


def training_step(
    model: Callable[..., Tensor],
    diffusion: GaussianDiffusion,
    x0: Tensor,
    prediction: str = "eps",
    label: Tensor | None = None,
) -> Tensor:
    """The mean loss of one batch x0 [B, C, H, W] in [-1, 1], ready for backward(): Ho et al. 2020, Algorithm 1."""
    return diffusion_loss(model, diffusion, x0, prediction, label)[0].mean()


def sample(
    model: Callable[..., Tensor],
    diffusion: GaussianDiffusion,
    shape: Sequence[int],
    sampler: str | Step = "ddpm",
    steps: int | None = None,
    noise: Noise = torch.randn_like,
    prediction: str = "eps",
    spacing: str = "trailing",
    times: Sequence[int] | None = None,
    clip: bool = False,
    label: Tensor | None = None,
) -> Tensor:
    """Pictures `shape` = [B, C, H, W] in [-1, 1], from noise: Ho et al. 2020, Algorithm 2, clamped at the end.

    By default the article's sampler: all T steps, the large variance, nothing clipped on the way. On fewer steps "ddpm"
    takes the small variance, because the large one spoils them (CIFAR-10 FID at 100 steps 46.5 against 11.2; Song et
    al. 2021, table 1). `sampler`: a name in SAMPLERS, or a step function, taken as it is. The first call of `noise`
    draws x_T, every stochastic step draws once more. The model is in eval mode meanwhile.
    """
    levels = diffusion.levels(steps, spacing, times)
    full_chain = len(levels) - 1 == diffusion.T
    step = SAMPLERS[check_choice("sampler", sampler, SAMPLERS)] if isinstance(sampler, str) else sampler
    if sampler == "ddpm":
        step = partial(step, variance="large" if full_chain else "small")
    denoiser = Denoiser(model, prediction, diffusion.sigma_data, label)
    weight = weights_like(model, torch.empty(0))
    like = torch.empty(tuple(shape), device=weight.device, dtype=torch.promote_types(weight.dtype, torch.float32))
    x = pure_noise(like, levels[0], noise, diffusion.sigma_data)
    with evaluating(model):
        (x,) = deque(trajectory(x, levels, clipped(denoiser) if clip else denoiser, step, noise), maxlen=1)
    return x.clamp(-1, 1)


def pure_noise(like: Tensor, level: Level, noise: Noise, sigma_data: float = 1.0) -> Tensor:
    """x_T: noise with the variance that pictures have at the first level, alpha^2 sigma_data^2 + sigma^2."""
    return math.hypot(level.alpha * sigma_data, level.sigma) * noise(like)


@contextmanager
def evaluating(model: Callable[..., Tensor]) -> Iterator[None]:
    """The model in eval mode (no dropout), and every part of it back as it was after."""
    parts = list(model.modules()) if isinstance(model, nn.Module) else []
    were_training = [part for part in parts if part.training]
    for part in were_training:
        part.training = False
    try:
        yield
    finally:
        for part in were_training:
            part.training = True
