"""Images out of measurements y = A x0 + noise, A linear, by a denoiser that knows nothing of A.

Were x0 given x_t Gaussian, N(D, C) with D the denoiser's estimate, Bayes' rule would give
E[x0 | x_t, y] = D + C A^T (A C A^T + s^2 I)^-1 (y - A D), with s the noise's standard deviation, and no Jacobian of D.
Of Gaussian data, with their C, that is exact: it is the denoiser of p(x0 | y), and a sampler that starts at pure noise
draws from that posterior. With C a multiple of I, and s = 0, it is DDNM (Wang et al. 2023, eq. 13).
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn.functional import softshrink

from ..errors import InputError, check_count, check_range
from .denoiser import Denoise
from .levels import Level
from .linear_operators import Linear, LinearOperator

Covariance = Callable[[Tensor, Level], Tensor]  # (v, level) -> C v, like v [B, C, H, W]: C of x0 given x_t
Variance = TypeVar("Variance", float, Tensor)
PIXEL_VARIANCE, CHANNEL_CORRELATION = 0.25, 0.875  # of 2,000 images of CIFAR-10 in [-1, 1]: 0.245, 0.875
ITERATIONS = 60  # of conjugate gradients; a blur would take more, for what is hardly there
GREY_LEVEL = 2 / 255  # in x0
ROUNDING = GREY_LEVEL / math.sqrt(12)  # the standard deviation of what rounding to grey levels does
WITHIN = 0.49 * GREY_LEVEL  # and rounding x, another half: what averages pixels is within a grey level
ROUNDS, POWERS = 300, 20


def posterior_variance(variance: Variance, level: Level) -> Variance:
    """Of x0 given x_t = alpha x0 + sigma eps, where x0 has this variance: sigma^2 S / (sigma^2 + alpha^2 S)."""
    return level.sigma**2 * variance / (level.sigma**2 + level.alpha**2 * variance)


def isotropic(std: float) -> Covariance:
    """C of data whose pixels are independent, each of this standard deviation."""
    return lambda v, level: posterior_variance(std**2, level) * v


def photographs(v: Tensor, level: Level) -> Tensor:
    """C of data with the power spectrum of photographs, 1 / f^2 (Field 1987), and with correlated channels.

    In the cosine transform (edges mirrored) the coefficients of k and m half periods are independent, with variances in
    proportion to 1 / (1 + k^2 + m^2); any two channels have the same correlation.
    """
    channels, height, width = v.shape[1:]
    rows, columns = cosines(height), cosines(width)
    frequency = torch.arange(height)[:, None] ** 2 + torch.arange(width) ** 2
    spectrum = 1 / (1 + frequency.double())
    spectrum = PIXEL_VARIANCE / spectrum.mean() * spectrum
    together = posterior_variance((1 + (channels - 1) * CHANNEL_CORRELATION) * spectrum, level).to(v)
    apart = posterior_variance((1 - CHANNEL_CORRELATION) * spectrum, level).to(v)
    coefficients = rows.to(v) @ v @ columns.to(v).T
    mean = coefficients.mean(1, keepdim=True)
    return rows.to(v).T @ (together * mean + apart * (coefficients - mean)) @ columns.to(v)


@lru_cache(maxsize=8)
def cosines(n: int) -> Tensor:
    """The orthonormal cosine transform (DCT-II) [n, n], float64; row k is a cosine of k half periods."""
    k = torch.arange(n, dtype=torch.float64)[:, None]
    matrix = math.sqrt(2 / n) * torch.cos(math.pi / n * k * (k.T + 0.5))
    matrix[0] /= math.sqrt(2)
    return matrix


def measured(
    denoise: Denoise,
    operator: LinearOperator,
    y: Tensor,
    noise_std: float = ROUNDING,
    covariance: Covariance = photographs,
    iterations: int = ITERATIONS,
) -> Denoise:
    """Each estimate of x0 corrected by the measurement y = A x0 + noise: the formula at the head of this file.

    y: [B, ...], or [1, ...] of all images alike. noise_std: in x0's units. iterations: of conjugate gradients at most.
    InputError for a y that is not of the operator's shape.
    """
    check_range("noise_std", noise_std, 0)
    check_count("iterations", iterations, 1)

    def correct(x: Tensor, level: Level) -> Tensor:
        x0 = denoise(x, level)
        residual = _residual(operator, y, x0)
        return x0 + _correction(operator, residual, noise_std, lambda v: covariance(v, level), iterations)

    return correct


def consistent(x0: Tensor, operator: LinearOperator, y: Tensor, low: float = -1.0, high: float = 1.0) -> Tensor:
    """An image near x0 [B, C, H, W], within low..high, that the operator makes y of: A x is less than WITHIN from y.

    y is known to half a grey level, and no better: what is nearer stays as it is. Steps down the gradient of the rest's
    square, each clipped to the range, with Nesterov's momentum (Beck & Teboulle 2009, FISTA), for each image until it
    is there, ROUNDS at most: where there is no such image it comes near one.
    """
    rate = 1 / _largest_eigenvalue(operator, x0)
    x0 = ahead = x0.clamp(low, high)
    for k in range(ROUNDS):
        away = _residual(operator, y, x0).abs().amax(tuple(range(1, y.ndim)), keepdim=True)
        there = (away < WITHIN).view(-1, 1, 1, 1)
        if bool(there.all()):
            break
        rest = softshrink(_residual(operator, y, ahead), 0.9 * WITHIN)
        before, x0 = x0, torch.where(there, x0, (ahead + rate * operator.transpose(rest)).clamp(low, high))
        ahead = x0 + k / (k + 3) * (x0 - before)
    return x0


def _largest_eigenvalue(operator: LinearOperator, like: Tensor) -> float:
    """Of A^T A, and a little more, by the power method; 1 of an A that is 0."""
    x = torch.randn(1, *like.shape[1:], generator=torch.Generator().manual_seed(0), dtype=like.dtype).to(like.device)
    length = 0.0
    for _ in range(POWERS):
        x = operator.transpose(operator.apply(x / x.norm().clamp(min=1e-12)))
        length = x.norm().item()
    return 1.05 * length or 1.0


def _residual(operator: LinearOperator, y: Tensor, x0: Tensor) -> Tensor:
    """y - A x0."""
    again = operator.apply(x0)
    if again.shape[1:] != y.shape[1:] or len(y) not in (1, len(again)):
        raise InputError(f"the operator must return what was measured, {list(y.shape)}, got {list(again.shape)}")
    return y.to(x0) - again


def _correction(
    operator: LinearOperator, residual: Tensor, noise_std: float, covariance: Linear, iterations: int
) -> Tensor:
    """C A^T (A C A^T + noise_std^2 I)^-1 residual, [B, C, H, W]."""

    def matrix(z: Tensor) -> Tensor:
        return operator.apply(covariance(operator.transpose(z))) + noise_std**2 * z

    return covariance(operator.transpose(conjugate_gradients(matrix, residual, iterations)))


def conjugate_gradients(matrix: Linear, b: Tensor, iterations: int) -> Tensor:
    """z with matrix(z) = b, for each image of b [B, ...] by itself (Hestenes & Stiefel 1952).

    matrix: symmetric, with no eigenvalue below 0. It ends early where nothing is left but rounding.
    """
    z, rest, towards = torch.zeros_like(b), b, b
    square = _dot(b, b)
    rounding = (16 * torch.finfo(b.dtype).eps) ** 2 * square
    for _ in range(iterations):
        left = square > rounding
        if not bool(left.any()):
            break
        image = matrix(towards)
        curvature = _dot(towards, image)
        left = left & (curvature > 0)  # 0 in what the operator does not see
        length = torch.where(left, square / curvature, 0)
        z, rest = z + length * towards, rest - length * image
        before, square = square, _dot(rest, rest)
        towards = rest + torch.where(left, square / before, 0) * towards
    return z


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """The inner product of each image of [B, ...]: [B, 1, ...]."""
    return (a * b).sum(tuple(range(1, a.ndim)), keepdim=True)
