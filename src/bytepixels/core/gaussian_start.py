"""The first step for nothing: at the noisiest levels the best estimate of x0 is that of Gaussian data.

For x0 ~ N(m, S) and x_t = alpha x0 + sigma eps the posterior mean is (Bishop 2006, eq. 2.116)

    E[x0 | x_t] = m + alpha S (alpha^2 S + sigma^2 I)^-1 (x_t - alpha m)

and where sigma is far above alpha times the data's deviation, of any data the first two moments are all that counts:
the network's evaluation there can be left out. S is kept as its largest principal components and one variance for all
other directions, which near pure noise are not told from it: memory and time grow with the pixels, not their square.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from .denoiser import Denoise
from .levels import Level

COMPONENTS = 256
ITERATIONS = 3  # of the subspace; each is two products with all images


@dataclass(frozen=True)
class GaussianData:
    """Mean and covariance of x0: directions^T diag(variances) directions, and `rest` in all other directions."""

    mean: Tensor  # [C, H, W]
    directions: Tensor  # [K, C * H * W], orthonormal rows
    variances: Tensor  # [K], the largest first
    rest: float

    @classmethod
    def of(cls, x0: Tensor, components: int = COMPONENTS) -> "GaussianData":
        """The moments of x0 [N, C, H, W], N at least 2. Exact where `components` are as many as there are pixels.

        Else the leading ones, by subspace iteration from a fixed seed (Halko et al. 2011, algorithm 4.4).
        """
        if len(x0) < 2:
            raise InputError(f"a covariance needs two images or more, got {len(x0)}")
        flat = x0.flatten(1)
        mean = flat.mean(dim=0)
        away = flat - mean
        pixels = away.shape[1]
        if components >= pixels:
            basis = torch.eye(pixels, dtype=away.dtype, device=away.device)
        else:
            generator = torch.Generator().manual_seed(0)
            basis = torch.randn(pixels, components, generator=generator).to(away)
            for _ in range(ITERATIONS):
                basis = torch.linalg.qr(away.T @ (away @ basis)).Q
        within = away @ basis
        variances, turn = torch.linalg.eigh((within.T @ within).double() / (len(x0) - 1))
        variances, turn = variances.flip(0).clamp(min=0), turn.flip(1)
        left = float(away.double().square().sum()) / (len(x0) - 1) - float(variances.sum())
        rest = max(left, 0.0) / max(pixels - len(variances), 1)
        return cls(mean.view_as(x0[0]), (basis @ turn.to(basis)).T.contiguous(), variances.to(mean), rest)

    def denoise(self, x: Tensor, level: Level) -> Tensor:
        """E[x0 | x_t = x], like x [B, C, H, W]."""
        a, s = level.alpha, level.sigma
        return self.mean.to(x) + self._scaled(x - a * self.mean.to(x), lambda v: a * v / (a**2 * v + s**2))

    def flow(self, x: Tensor, now: Level, nxt: Level) -> Tensor:
        """The probability flow's exact solution from `now` to `nxt`, like x: each direction keeps its quantile."""

        def scale(v: Tensor) -> Tensor:
            return ((nxt.alpha**2 * v + nxt.sigma**2) / (now.alpha**2 * v + now.sigma**2)).sqrt()

        return nxt.alpha * self.mean.to(x) + self._scaled(x - now.alpha * self.mean.to(x), scale)

    def _scaled(self, away: Tensor, scale: Callable[[Tensor], Tensor]) -> Tensor:
        """`away` times a function of the variance in every direction."""
        directions, flat = self.directions.to(away), away.flatten(1)
        rest = float(scale(torch.tensor(self.rest, dtype=torch.float64)))
        own = scale(self.variances.double()).to(away) - rest
        return (rest * flat + (flat @ directions.T * own) @ directions).view_as(away)


def started(gaussian: GaussianData, denoise: Denoise, first: Level) -> Denoise:
    """The denoiser, with the Gaussian's estimate at the level `first`, where it is not evaluated."""
    return lambda x, level: gaussian.denoise(x, level) if level == first else denoise(x, level)
