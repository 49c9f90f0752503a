"""The posterior q(x_s | x_t, x0) of one reverse step, and the terms of the variational bound.

x_t = alpha x0 + sigma eps; `_s` marks the cleaner of the two levels. Numbers, or tensors that broadcast with x.
"""

import math
from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from .levels import Level

Number = TypeVar("Number", float, Tensor)  # the same formulas serve one level on the host and a batch of them


class Posterior(NamedTuple, Generic[Number]):
    """q(x_s | x_t, x0) = Normal(coef_xt * x_t + coef_x0 * x0, variance); beta is what the step adds, Var(x_t | x_s)."""

    coef_xt: Number
    coef_x0: Number
    variance: Number
    beta: Number


def posterior(alpha: Number, sigma: Number, alpha_s: Number, sigma_s: Number) -> Posterior[Number]:
    """The posterior between two levels (Ho et al. 2020, eq. 6 and 7): of neighbours, beta_t and `variance` beta~_t."""
    ratio = alpha / alpha_s
    added = sigma**2 - (ratio * sigma_s) ** 2
    return Posterior(ratio * (sigma_s / sigma) ** 2, alpha_s * added / sigma**2, added * (sigma_s / sigma) ** 2, added)


def posteriors(levels: Sequence[Level]) -> Posterior[Tensor]:
    """The posterior of every step of a grid that ends in CLEAN, each field [steps] float64.

    The last step's `variance` is 0, which has no logarithm: that of the step before stands for it.
    """
    alpha, sigma = torch.tensor([level[1:] for level in levels], dtype=torch.float64).T
    q = posterior(alpha[:-1], sigma[:-1], alpha[1:], sigma[1:])
    q.variance[-1] = q.variance[-2] if len(q.variance) > 1 else q.beta[-1]
    return q


def interpolated_log_variance(fraction: Tensor, log_small: Number, log_large: Number) -> Tensor:
    """The learned log variance (Nichol & Dhariwal 2021, eq. 15), "small" at fraction -1 and "large" at 1."""
    share = (fraction + 1) / 2
    return share * log_large + (1 - share) * log_small


def bound_term(x0: Tensor, estimate: Tensor, q: Posterior[Tensor], log_variance: Tensor, last: Tensor) -> Tensor:
    """One term of the variational bound in bits per dimension [B] (Ho et al. 2020, eq. 5).

    KL(q(x_s | x_t, x0) || Normal(mean, exp(log_variance))), the means pull * (x0 - estimate) apart; where `last`, the
    step to the clean end (mean = estimate), -log P(x0) instead. x0, estimate, log_variance: [B, C, H, W]; the fields
    of q and `last` broadcast with them.
    """
    wider = log_variance - torch.log(q.variance)
    distance = q.coef_x0 * (x0 - estimate)
    spread = torch.expm1(-wider) + wider  # >= 0, and 0 where the variance is the posterior's
    kl = (spread + distance**2 * torch.exp(-log_variance)) / 2
    nats = torch.where(last, -log_likelihood_of_bins(x0, estimate, log_variance), kl)
    return nats.mean(dim=(1, 2, 3)) / math.log(2)


def log_likelihood_of_bins(x0: Tensor, mean: Tensor, log_variance: Tensor, bins: int = 256) -> Tensor:
    """log P(x0) in nats, elementwise: Normal(mean, exp(log_variance)) cut into `bins` (Ho et al. 2020, eq. 13).

    x0: the middles of even bins over [-1, 1]; the first and the last reach to infinity.
    """
    half = 1 / (bins - 1)
    scale = torch.exp(-log_variance / 2)
    upper, lower = (x0 + half - mean) * scale, (x0 - half - mean) * scale
    flip = upper + lower > 0  # the far tail is the one that float arithmetic keeps
    upper, lower = torch.where(flip, -lower, upper), torch.where(flip, -upper, lower)
    first, last = x0 < -1 + half, x0 > 1 - half
    open_below = torch.where(flip, last, first)
    open_above = torch.where(flip, first, last)
    log_upper = log_ndtr(upper).masked_fill(open_above, 0.0)
    gap = (log_ndtr(lower) - log_upper).clamp(max=-1e-12).masked_fill(open_below, -torch.inf)
    return log_upper + torch.log(-torch.expm1(gap))


FAR = -20.0  # standard deviations; from there on the five terms of the series are exact to 1e-12


def log_ndtr(x: Tensor) -> Tensor:
    """Logarithm of the standard normal distribution function, with a right gradient in float32's far tail, where
    torch's has none: there it is -x^2 / 2 - log(-x sqrt(2 pi)) + log(1 - 1/x^2 + 3/x^4 - 15/x^6 + 105/x^8)."""
    far = x.clamp(max=FAR)
    u = far**-2
    series = torch.log1p(-u * (1 - u * (3 - u * (15 - 105 * u))))
    tail = -(far**2) / 2 - torch.log(-far * math.sqrt(2 * math.pi)) + series
    return torch.where(x < FAR, tail, torch.special.log_ndtr(x.clamp(min=FAR)))
