"""Reference denoisers: the Wiener filter, and the optimal denoiser of a finite training set.

Where images are latents, each is the Gaussian that an autoencoder makes of it.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from ..codec.codec import LatentCodec, PixelCodec
from ..core.levels import Level

BLOCK_NUMBERS = 2**21  # of float32 in a block of images: 8 MiB, which the allocator keeps for the next one

Gaussian = tuple[Tensor, Tensor | None]  # means [K, C, H, W], and variances like them; None where these are 0


class TrainingDistribution(Protocol):
    """The distribution of x0 in a run's training: a mixture of Gaussians or of points, equally weighted."""

    @property
    def labels(self) -> Tensor | None:
        """[N] int64 on the host; None where the run knows no classes."""

    def gaussians(self, device: torch.device, members: np.ndarray | None = None) -> Iterator[Gaussian]:
        """All N components, or those at positions `members`, mirror images included, in blocks."""


class EmpiricalImages(NamedTuple):
    """The empirical distribution of a run's training images: a mixture of points."""

    images: np.ndarray  # uint8 [N, C, H, W], possibly memory-mapped
    labels: Tensor | None  # [N] int64 on the host; None where the run knows no classes
    mirrored: bool  # whether each stands for its mirror image as well

    def blocks(self, device: torch.device, members: np.ndarray | None = None) -> Iterator[Tensor]:
        """x0 of all of them, or of those at positions `members`, mirror images included: [at most K, C, H, W] each."""
        for images in _blocks(self.images, members, self.images[0].size * (1 + self.mirrored)):
            x0 = PixelCodec().to_model(images.to(device))
            yield torch.cat([x0, x0.flip(-1)]) if self.mirrored else x0

    def gaussians(self, device: torch.device, members: np.ndarray | None = None) -> Iterator[Gaussian]:
        """The images as Gaussians of variance 0."""
        return ((block, None) for block in self.blocks(device, members))


class LatentMixture(NamedTuple):
    """The distribution of a run's training latents: one Gaussian per image."""

    moments: np.ndarray  # float32 [N, F, 2z, h, w]: means, then deviations; F: as is, mirrored; memory-mapped
    labels: Tensor | None  # as of EmpiricalImages
    codec: LatentCodec

    def gaussians(self, device: torch.device, members: np.ndarray | None = None) -> Iterator[Gaussian]:
        """The whitened Gaussians, in blocks."""
        for moments in _blocks(self.moments, members, self.moments[0].size):
            mean, deviation = moments.to(device).flatten(0, 1).chunk(2, dim=1)
            centre = self.codec.to_model(mean)
            yield centre, (self.codec.to_model(mean + deviation) - centre).square()


def _blocks(rows: np.ndarray, members: np.ndarray | None, numbers: int) -> Iterator[Tensor]:
    """Yield all rows, or those at `members`, in blocks of BLOCK_NUMBERS numbers; `numbers`: of each row."""
    each = max(1, BLOCK_NUMBERS // numbers)
    for start in range(0, len(rows) if members is None else len(members), each):
        part = slice(start, start + each)
        yield torch.from_numpy(np.array(rows[part if members is None else members[part]]))


class WienerDenoiser:
    """The best element-wise linear estimate of x0 (Wiener filter), from means and variances alone.

    mu + alpha S / (alpha^2 S + sigma^2) (x - alpha mu), with mu and S [1, C, H, W] over all x0, of all classes.
    """

    def __init__(self, known: TrainingDistribution, device: torch.device):
        count, sums = 0, []
        for mean, variance in known.gaussians(device):
            squares = mean.square() if variance is None else mean.square() + variance
            sums.append(torch.stack([mean.sum(0), squares.sum(0)]))
            count += len(mean)
        self.mean, square = (torch.stack(sums).sum(0) / count).unsqueeze(1)  # [1, C, H, W] each
        self.variance = (square - self.mean**2).clamp(min=0)

    def __call__(self, x: Tensor, level: Level, label: Tensor | None = None) -> Tensor:
        """Estimate x0, like x [B, C, H, W]."""
        gain = level.alpha * self.variance / (level.alpha**2 * self.variance + level.sigma**2)
        return self.mean + gain * (x - level.alpha * self.mean)


class OptimalDenoiser:
    """The optimal denoiser E[x0 | x_t] of a training distribution: no denoiser has a lower error on it.

    Of images it is their mean, weighed by softmax(-|x_t - alpha x_i|^2 / (2 sigma^2)) (Karras et al. 2022, appendix
    B.3, eq. 57): at little noise it knows which one it was, and copies it. Of Gaussians it is each one's own estimate,
    weighed by how likely it makes x_t. With labels, over those of the same class. `centre` [1, C, H, W] is taken off
    all of them, for float32's sake; it computes in float64 where x and the centre are.
    """

    def __init__(self, known: TrainingDistribution, centre: Tensor):
        self.known, self.centre = known, centre
        labels = known.labels
        classes = () if labels is None else labels.unique().tolist()
        self.members = {c: (labels == c).nonzero().flatten().numpy() for c in classes}

    def __call__(self, x: Tensor, level: Level, label: Tensor | None = None) -> Tensor:
        """Estimate x0, like x [B, C, H, W]."""
        return self.posterior(x, level, label)[0]

    def posterior(self, x: Tensor, level: Level, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Estimate x0 [B, C, H, W], with the entropy over images in nats [B]. label [B]: a class with images."""
        if label is None:
            return self._over(x, level, None)
        x0, entropy = torch.empty_like(x), x.new_empty(len(x))
        for c in label.unique().tolist():
            rows = label == c
            x0[rows], entropy[rows] = self._over(x[rows], level, self.members[c])
        return x0, entropy

    def _over(self, x: Tensor, level: Level, members: np.ndarray | None) -> tuple[Tensor, Tensor]:
        """Accumulate over the blocks in one pass, with a running maximum of the logits (streaming softmax)."""
        flat = (x - level.alpha * self.centre).flatten(1)  # [B, D]
        top = torch.full_like(flat[:, 0], torch.finfo(flat.dtype).min)
        total, moment, weighted = torch.zeros_like(top), torch.zeros_like(top), torch.zeros_like(flat)
        for mean, variance in self.known.gaussians(x.device, members):
            middle = (mean - self.centre).flatten(1)  # [K, D]
            logit, estimate = _posterior_terms(flat, level, middle, None if variance is None else variance.flatten(1))
            raised = torch.maximum(top, logit.amax(1))
            kept, share = torch.exp(top - raised), torch.exp(logit - raised[:, None])
            moment = kept * (moment + total * (top - raised)) + torch.special.xlogy(share, share).sum(1)
            total = kept * total + share.sum(1)
            weighted = kept[:, None] * weighted + estimate(share)
            top = raised
        x0 = self.centre + (weighted / total[:, None]).view_as(x)
        return x0, total.log() - moment / total


def _posterior_terms(
    x: Tensor, level: Level, mean: Tensor, variance: Tensor | None
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Posterior of x [B, D] over Gaussians [K, D]: logits [B, K] up to a term in x alone, and a function from weights
    [B, K] to the weighted sum of their estimates of x0 [B, D]."""
    alpha, noise = level.alpha, level.sigma**2
    if variance is None:
        logit = alpha / noise * (x @ mean.T - alpha / 2 * mean.square().sum(1))
        return logit, lambda share: share @ mean
    spread = alpha**2 * variance + noise  # of x_t about alpha * mean
    pull, gain = mean / spread, alpha * variance / spread
    own = alpha**2 * mean * pull + torch.log1p(alpha**2 / noise * variance)
    logit = alpha * (x @ pull.T) - (x.square() @ spread.reciprocal().T + own.sum(1)) / 2
    return logit, lambda share: noise * (share @ pull) + x * (share @ gain)
