"""Objectives: from what a network says of a batch to the loss of each image.

An objective is a function (Evaluation, weighting) -> loss [B]; its name stands in `registries.OBJECTIVES`.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import InputError, check_choice
from ..registries import WEIGHTINGS, Objective
from .denoiser import split_variance
from .gaussian_diffusion import GaussianDiffusion
from .levels import Process
from .posterior import bound_term, interpolated_log_variance
from .prediction import coefficients, target

HYBRID_WEIGHT = 0.001  # Nichol & Dhariwal 2021, eq. 16: lambda


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
    fraction: Tensor | None = None  # of the way from the smallest variance to the largest, where the network learns it
    wanted: Tensor | None = None  # what the network should have said, where that is not what was done to x0

    @property
    def target(self) -> Tensor:
        """What the network should have said."""
        if self.wanted is not None:
            return self.wanted
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
    wanted: Tensor | None = None,
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
    return Evaluation(process, prediction, x0, x_t, noise, t, alpha, sigma, c_skip, c_out, output, fraction, wanted)


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
    assert isinstance(process, GaussianDiffusion)  # check_objective saw to it
    q = process.posterior(found.t, estimate.dtype)
    if found.fraction is None:
        log_variance = q.beta.log().expand_as(found.x0)
    else:
        log_variance = interpolated_log_variance(found.fraction, q.variance.log(), q.beta.log())
    return process.T * bound_term(found.x0, estimate, q, log_variance, (found.t == 0)[:, None, None, None])


def hybrid_loss(found: Evaluation, weighting: str | None = None) -> Tensor:
    """The simple loss, and the bound that trains the variance alone, [B]: Nichol & Dhariwal 2021, eq. 16."""
    return simple_loss(found, weighting) + HYBRID_WEIGHT * bound_loss(found, None, found.estimate.detach())


def check_objective(kind: Objective, name: str, found: Evaluation, weighting: str | None) -> None:
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
