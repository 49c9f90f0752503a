"""Checks of the variational bound (Ho et al. 2020, eq. 5) on Gaussian data, where its value is known."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ..core.exact_denoisers import GAUSSIAN
from ..core.gaussian_diffusion import GaussianDiffusion
from ..core.levels import Level
from ..core.posterior import Posterior, bound_term, log_likelihood_of_bins, posteriors
from ..core.schedules import linear_schedule
from .check import Check, largest

ABOUT = """Data: one Gaussian, with its exact denoiser. Shown is what the bound loses: its value minus the least that a
chain from N(0, 1) can reach, H(x0) + KL(q(x_T) || N(0, 1)). With the optimal variance of p(x_(t-1) | x_t) that is 0;
with beta_t, or the posterior's beta~_t, it is a known number. Last row: what the decoder p(x0 | x_1) gives to each of
the 256 pixel values, against the normal distribution function."""
MEANS = (0.3, -2.0)  # of the data, of which nothing that is checked may depend
OPTIMAL_STEPS = (10, 100, 1000, 4000)
BETA_LOSS = {10: (0.08274, 5e-6), 100: (0.010961, 5e-7), 1000: (0.0010923, 5e-8)}  # half a unit of the last digit
POSTERIOR_LOSS = 0.570, 5e-4  # at T = 1000: why the variance is worth learning
BINS = ((0.1, -3.0), (-0.97, -9.0))  # mean and log variance: of a wide decoder, and of one narrow as a grey level


def bound_checks() -> Iterator[Check]:
    """Check the bound: tight up to x_T with the optimal variance, looser by a known amount with beta or beta~."""
    for T in OPTIMAL_STEPS:
        yield Check(f"optimal variance, T = {T}", _worst(T, "optimal"), 0, 1e-10)
    for T, known in BETA_LOSS.items():
        yield Check(f"variance beta_t, T = {T}", _worst(T, "large"), *known)
    yield Check("variance beta~_t, T = 1000", _worst(1000, "small"), *POSTERIOR_LOSS)
    yield Check("decoder: error of the probabilities", _bins_error(), 0, 1e-12)


def _worst(T: int, variance: str) -> float:
    """The largest loss over MEANS; with the optimal variance only rounding should be left."""
    return max((excess(T, mean, variance) for mean in MEANS), key=abs)


def rescaled_linear(T: int) -> Tensor:
    """The linear schedule with its ends scaled by T so that any T ends at the same noise, capped at beta 0.999."""
    return linear_schedule(T, 0.1 / T, min(20 / T, 0.999))


def excess(T: int, mean: float, variance: str) -> float:
    """The bound minus its minimum, H(x0) + KL(q(x_T) || N(0, 1)), in nats per dimension.

    variance: "optimal" is beta~ + coef_x0^2 E|x0 - E[x0|x_t]|^2, "large" beta, "small" beta~ (at t = 0, of t = 1).
    """
    schedule = linear_schedule if variance == "optimal" else rescaled_linear
    levels = GaussianDiffusion(T, schedule).levels()
    q = posteriors(levels)
    error = torch.tensor([squared_error(level) for level in levels[:-1]], dtype=torch.float64)
    small = q.variance.clone()
    small[-1] = 0  # of the step to x0 itself
    chosen = {"optimal": small + q.coef_x0**2 * error, "large": q.beta, "small": q.variance}[variance]
    # L_0, a density
    last = (math.log(2 * math.pi * chosen[-1]) + float(q.coef_x0[-1] ** 2 * error[-1] / chosen[-1])) / 2
    return last + float(_terms(q, error, chosen)[:-1].sum()) + prior(levels[0], mean) - least(levels[0], mean)


def squared_error(level: Level) -> float:
    """The optimal denoiser's error E|x0 - E[x0|x_t]|^2: the variance of x0 given x_t."""
    _, (variance,) = GAUSSIAN.components(level)
    return GAUSSIAN.variances[0] * level.sigma**2 / float(variance)


def _terms(q: Posterior[Tensor], error: Tensor, variance: Tensor) -> Tensor:
    """The expected terms E[L_t] in nats, [T]: a term is linear in |x0 - estimate|^2."""
    q = Posterior(*(field[:, None, None, None] for field in q))
    estimate = torch.zeros_like(q.variance)
    apart = error.sqrt().view_as(estimate)
    return math.log(2) * bound_term(apart, estimate, q, variance.log().view_as(estimate), torch.tensor(False))


def prior(first: Level, mean: float) -> float:
    """The prior term L_T = E[KL(q(x_T | x0) || N(0, 1))]."""
    return (first.alpha**2 * (GAUSSIAN.variances[0] + mean**2) + first.sigma**2 - 1 - 2 * math.log(first.sigma)) / 2


def least(first: Level, mean: float) -> float:
    """The minimum of the bound, H(x0) + KL(q(x_T) || N(0, 1)), for chains that start from N(0, 1)."""
    _, (variance,) = GAUSSIAN.components(first)
    kl = (float(variance) + (first.alpha * mean) ** 2 - 1 - math.log(variance)) / 2
    return math.log(2 * math.pi * math.e * GAUSSIAN.variances[0]) / 2 + kl


def _bins_error() -> float:
    """Compare the decoder's probabilities of the 256 grey levels with differences of the normal distribution function.

    The first and the last grey level reach to infinity, so the probabilities add up to 1 as well.
    """
    x0, worst = torch.linspace(-1, 1, 256, dtype=torch.float64), []
    edges = torch.cat([torch.tensor([-math.inf]), (x0[:-1] + x0[1:]) / 2, torch.tensor([math.inf])])
    for mean, log_variance in BINS:
        expected = torch.special.ndtr((edges - mean) / math.exp(log_variance / 2)).diff()
        log_p = log_likelihood_of_bins(x0, torch.full_like(x0, mean), torch.full_like(x0, log_variance))
        worst.append(log_p.exp() - expected)
    return largest(torch.cat(worst))
