"""Codebook updates of a VQ autoencoder: codes are moving means of their latents, and unused codes are replaced."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..networks.quantizer import Quantizer
from ..randomness import CODES, seeded

DECAY = 0.99  # of the moving statistics, a step (van den Oord et al. 2017, appendix A.1)
DEAD = 0.1  # of an even share of the latents: a code that takes less is replaced


class CodebookEMA(nn.Module):
    """Moving-average codebook update, with replacement of unused codes.

    van den Oord et al. 2017, appendix A.1: counts N = decay N + (1 - decay) n, sums m likewise, code = m / N. One whose
    count falls below DEAD of an even share becomes a latent of the batch, chosen by (seed, step), with an even share to
    begin with (Dhariwal et al. 2020, section 3.1). So do all in the first step: the codes begin among the latents.

    Its own memory is three buffers, so that a checkpoint holds it; the codes are the quantizer's. It is settled once
    per optimiser step, over all micro-batches and processes.
    """

    counts: Tensor
    sums: Tensor
    steps: Tensor

    def __init__(self, quantizer: Quantizer, seed: int = 0):
        super().__init__()
        self._quantizer = [quantizer]  # in a list: it is the model's part, not ours, and saved there
        self.seed = seed
        codes = quantizer.codes
        self.register_buffer("counts", codes.new_zeros(len(codes)))
        self.register_buffer("sums", torch.zeros_like(codes))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.noted: list[tuple[Tensor, Tensor]] = []  # of the step in hand

    def note(self, latents: Tensor, index: Tensor) -> None:
        """Record latents [B, Z, h, w] and the index [B, h, w] of their codes until the step ends."""
        self.noted.append((latents.detach(), index))

    def settle(self, gather: Callable[[Tensor], Tensor]) -> None:
        """Update the codes with this step's record. `gather` concatenates the rows of all processes, in order."""
        noted, self.noted = self.noted, []
        latents, index = (gather(torch.cat(parts)) for parts in zip(*noted, strict=True))
        self.update(latents.movedim(1, -1).flatten(0, -2).to(self.sums.dtype), index.flatten())

    @torch.no_grad()
    def update(self, vectors: Tensor, index: Tensor) -> None:
        """Update the codes with vectors [N, Z] assigned to codes `index` [N], ignoring vectors that are not finite."""
        codes = self._quantizer[0].codes
        good = vectors.isfinite().all(dim=1)
        vectors = torch.where(good[:, None], vectors, 0)
        counts = torch.zeros_like(self.counts).index_add_(0, index, good.to(vectors.dtype))
        self.counts.lerp_(counts, 1 - DECAY)
        self.sums.lerp_(torch.zeros_like(self.sums).index_add_(0, index, vectors), 1 - DECAY)
        share = len(vectors) / len(codes)
        pick = torch.randint(len(vectors), (len(codes),), generator=seeded(self.seed, CODES, int(self.steps)))
        pick = pick.to(vectors.device)
        dead = ((self.counts < DEAD * share) | (self.steps == 0)) & good[pick]
        self.counts.masked_fill_(dead, share)
        self.sums.copy_(torch.where(dead[:, None], share * vectors[pick], self.sums))
        codes.copy_(self.sums / self.counts.clamp(min=1e-12)[:, None])
        self.steps += 1
