"""The loss and the sampling loop: the functions that the article is made of."""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import InputError, check_choice
from ..registries import OBJECTIVES, SAMPLERS, WEIGHTINGS, Objective, facts
from .denoiser import Denoise, Denoiser, clipped, first_parameter, learned_variance, split_variance
from .gaussian_diffusion import GaussianDiffusion
from .levels import Level, Process
from .posterior import bound_term, interpolated_log_variance
from .prediction import coefficients, target
from .samplers import Noise, Step, trajectory

HYBRID_WEIGHT = 0.001  # Nichol & Dhariwal 2021, eq. 16: lambda


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
) -> tuple[Tensor, Tensor]:
    """The loss of each image [B], and the times [B] it was measured at.

    x0: [B, C, H, W], pixels in [-1, 1]; label: [B] or None. Times and noise are drawn unless given.
    objective: "simple" is the squared error of the prediction (Ho et al. 2020, eq. 14, before the mean), times a
    `weighting` of WEIGHTINGS when one is named. "vlb" is T times one term of the variational bound, in bits per
    dimension: its mean over t is L_0 + .. + L_(T-1). "hybrid" is simple + 0.001 vlb, the bound training the variance
    alone (Nichol & Dhariwal 2021, eq. 16). With twice the channels the model learns the variance too.
    """
    kind = facts(OBJECTIVES, check_choice("objective", objective, OBJECTIVES), Objective)
    t = (process.draw_times(len(x0)) if t is None else t).to(x0.device)
    found = evaluation(model, process, x0, prediction, label, t, noise)
    _check_objective(kind, objective, found, weighting)
    return kind(found, weighting), t


class Evaluation(NamedTuple):
    """What an objective sees of a batch: the process, the images, and what the network said of them.

    x0, x_t, noise, output: [B, C, H, W]; t: [B]; alpha, sigma, c_skip, c_out: [B, 1, 1, 1], in float32 or more.
    """

    process: Process
    prediction: str
    x0: Tensor
    x_t: Tensor
    noise: Tensor
    t: Tensor
    alpha: Tensor
    sigma: Tensor
    c_skip: Tensor
    c_out: Tensor
    output: Tensor  # of what is predicted
    fraction: Tensor | None  # of the way from the smallest variance to the largest, where the network learns it

    @property
    def target(self) -> Tensor:
        """What the network should have said."""
        return target(self.prediction, self.x0, self.noise, self.alpha, self.sigma, self.process.sigma_data)

    @property
    def estimate(self) -> Tensor:
        """The estimate of x0."""
        return self.c_skip * self.x_t + self.c_out * self.output


def evaluation(
    model: Callable[..., Tensor],
    process: Process,
    x0: Tensor,
    prediction: str,
    label: Tensor | None,
    t: Tensor,
    noise: Tensor | None,
) -> Evaluation:
    """The network's answer to x0 [B, C, H, W] at the times t [B]; noise is drawn unless given."""
    x_t, noise = process.add_noise(x0, t, noise)
    compute = torch.promote_types(x0.dtype, torch.float32)
    alpha, sigma = process.alpha_sigma(t, compute)
    c_in, c_skip, c_out = coefficients(prediction, alpha, sigma, process.sigma_data)
    given = () if label is None else (label,)
    output, fraction = split_variance(model((c_in * x_t).to(x0.dtype), t.float(), *given).to(compute), x0.shape[1])
    if output.shape != x0.shape:
        raise InputError(f"the network must return {list(x0.shape)}, as it was given, got {list(output.shape)}")
    return Evaluation(process, prediction, x0, x_t, noise, t, alpha, sigma, c_skip, c_out, output, fraction)


def simple_loss(found: Evaluation, weighting: str | None = None) -> Tensor:
    """The squared error of the prediction, [B]: Ho et al. 2020, eq. 14; weighted, of x0."""
    loss = (found.output - found.target).square().mean(dim=(1, 2, 3))
    if weighting is None:
        return loss
    weigh, process = WEIGHTINGS[check_choice("weighting", weighting, WEIGHTINGS)], found.process
    weight: Tensor = weigh(found.alpha, found.sigma, lambda: process.log_snr_density(found.t), process.sigma_data)
    return loss * (weight * found.c_out**2).flatten()  # the error of x0 is c_out times that of the output


def bound_loss(found: Evaluation, weighting: str | None = None, estimate: Tensor | None = None) -> Tensor:
    """T times the bound's term at the timesteps, in bits per dimension [B]; the variance is beta unless learned.

    estimate: of x0; by default the network's.
    """
    process, estimate = found.process, found.estimate if estimate is None else estimate
    assert isinstance(process, GaussianDiffusion)  # _check_objective saw to it
    q = process.posterior(found.t, estimate.dtype)
    if found.fraction is None:
        log_variance = q.beta.log().expand_as(found.x0)
    else:
        log_variance = interpolated_log_variance(found.fraction, q.variance.log(), q.beta.log())
    return process.T * bound_term(found.x0, estimate, q, log_variance, (found.t == 0)[:, None, None, None])


def hybrid_loss(found: Evaluation, weighting: str | None = None) -> Tensor:
    """The simple loss, and the bound that trains the variance alone, [B]: Nichol & Dhariwal 2021, eq. 16."""
    return simple_loss(found, weighting) + HYBRID_WEIGHT * bound_loss(found, None, found.estimate.detach())


def _check_objective(kind: Objective, name: str, found: Evaluation, weighting: str | None) -> None:
    """Refuse what does not go together, and say why."""
    process, learned = found.process, found.fraction is not None
    if found.prediction == "eps" and process.pure_noise and (name != "simple" or weighting is not None):
        raise InputError("eps says nothing about x0 at pure noise, which this process reaches: predict v or x0")
    if kind.needs_chain and not isinstance(process, GaussianDiffusion):
        raise InputError(f"objective {name} bounds a chain of T steps, which {type(process).__name__} is not")
    if kind.learns_variance is True and not learned:
        raise InputError(f"objective {name} trains a learned variance: the network must return twice the channels")
    if kind.learns_variance is False and learned:
        raise InputError(f"objective {name} never trains the variance that the network learns: take hybrid or vlb")
    if weighting is not None and not kind.weighted:
        raise InputError(f"objective {name} has the bound's own weights, got weighting {weighting}")


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
    step = SAMPLERS[check_choice("sampler", sampler, SAMPLERS)] if isinstance(sampler, str) else sampler
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
    """The denoiser, and ddpm's step with variance "small", "large" or "learned" (read from the same evaluation)."""
    check_choice("variance", variance, ("small", "large", "learned"))
    if variance != "learned":
        return denoiser, partial(SAMPLERS["ddpm"], variance=variance)
    denoise, fraction = learned_variance(denoiser)
    return denoise, partial(SAMPLERS["ddpm"], variance=fraction)


def default_variance(steps: int, process: Process) -> Literal["small", "large"]:
    """ "large" on the full chain, "small" on any shorter one."""
    return "large" if steps == getattr(process, "T", None) else "small"


def pure_noise(like: Tensor, level: Level, noise: Noise, sigma_data: float = 1.0) -> Tensor:
    """x_T: noise with the variance that images have at the first level, alpha^2 sigma_data^2 + sigma^2."""
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
