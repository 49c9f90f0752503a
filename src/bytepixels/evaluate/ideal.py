"""What a denoiser can be compared with: the best linear guess, and the ideal denoiser of a finite set of pictures."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..codec import PixelCodec
from ..levels import Level

BLOCK_NUMBERS = 2**21  # of float32 in a block of pictures: 8 MiB, which the allocator keeps for the next one


class Pictures(NamedTuple):
    """The pictures that a run was trained on, as it saw them."""

    images: np.ndarray  # uint8 [N, C, H, W], possibly memory-mapped
    labels: Tensor | None  # [N] int64 on the host; None where the run knows no classes
    mirrored: bool  # whether each stands for its mirror image as well

    def blocks(self, device: torch.device, members: np.ndarray | None = None) -> Iterator[Tensor]:
        """x0 of all of them, or of those at positions `members`, mirror images included: [at most K, C, H, W] each."""
        rows = max(1, BLOCK_NUMBERS // (self.images[0].size * (1 + self.mirrored)))
        count = len(self.images) if members is None else len(members)
        for start in range(0, count, rows):
            chosen = slice(start, start + rows) if members is None else members[start : start + rows]
            x0 = PixelCodec().to_model(torch.from_numpy(np.array(self.images[chosen])).to(device))
            yield torch.cat([x0, x0.flip(-1)]) if self.mirrored else x0


class LinearGuess:
    """The best guess of x0 that is linear in each pixel alone (the Wiener filter): it knows means and variances.

    mu + alpha S / (alpha^2 S + sigma^2) (x - alpha mu), with mu and S [1, C, H, W] over all pictures of all classes.
    """

    def __init__(self, pictures: Pictures, device: torch.device):
        sums = [torch.stack([block.sum(0), block.square().sum(0)]) for block in pictures.blocks(device)]
        count = len(pictures.images) * (1 + pictures.mirrored)
        self.mean, square = (torch.stack(sums).sum(0) / count).unsqueeze(1)  # [1, C, H, W] each
        self.variance = (square - self.mean**2).clamp(min=0)

    def __call__(self, x: Tensor, level: Level, label: Tensor | None = None) -> Tensor:
        """x0, like x [B, C, H, W]."""
        gain = level.alpha * self.variance / (level.alpha**2 * self.variance + level.sigma**2)
        return self.mean + gain * (x - level.alpha * self.mean)


class IdealDenoiser:
    """E[x0 | x_t] where x0 is one of `pictures`, each as likely: the softmax of -|x_t - alpha x_i|^2 / (2 sigma^2).

    No denoiser has a lower error on those pictures; at little noise it knows which one it was, and copies it. With
    labels, over the pictures of the same class. `centre` [1, C, H, W] is taken off all of them, for float32's sake.
    """

    def __init__(self, pictures: Pictures, centre: Tensor):
        self.pictures, self.centre = pictures, centre
        labels = pictures.labels
        known = () if labels is None else labels.unique().tolist()
        self.members = {c: (labels == c).nonzero().flatten().numpy() for c in known}

    def __call__(self, x: Tensor, level: Level, label: Tensor | None = None) -> Tensor:
        """x0, like x [B, C, H, W]."""
        return self.posterior(x, level, label)[0]

    def posterior(self, x: Tensor, level: Level, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x0 [B, C, H, W], and the entropy in nats [B] of which picture it was. label [B]: a class with pictures."""
        if label is None:
            return self._over(x, level, None)
        x0, entropy = torch.empty_like(x), x.new_empty(len(x))
        for c in label.unique().tolist():
            rows = label == c
            x0[rows], entropy[rows] = self._over(x[rows], level, self.members[c])
        return x0, entropy

    def _over(self, x: Tensor, level: Level, members: np.ndarray | None) -> tuple[Tensor, Tensor]:
        """One pass over the blocks, with a running maximum of the logits as in any streaming softmax."""
        scale = level.alpha / level.sigma**2
        flat = (x - level.alpha * self.centre).flatten(1)  # [B, D]
        top = torch.full_like(flat[:, 0], torch.finfo(flat.dtype).min)
        total, moment, weighted = torch.zeros_like(top), torch.zeros_like(top), torch.zeros_like(flat)
        for block in self.pictures.blocks(x.device, members):
            known = (block - self.centre).flatten(1)  # [K, D]
            logit = scale * (flat @ known.T - level.alpha / 2 * known.square().sum(1))  # [B, K]
            raised = torch.maximum(top, logit.amax(1))
            kept, share = torch.exp(top - raised), torch.exp(logit - raised[:, None])
            moment = kept * (moment + total * (top - raised)) + torch.special.xlogy(share, share).sum(1)
            total = kept * total + share.sum(1)
            weighted = kept[:, None] * weighted + share @ known
            top = raised
        x0 = self.centre + (weighted / total[:, None]).view_as(x)
        return x0, total.log() - moment / total
