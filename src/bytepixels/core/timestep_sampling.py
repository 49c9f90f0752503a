"""Importance sampling of timesteps for the variational bound, whose terms differ by orders of magnitude."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

HISTORY = 10  # losses remembered at every timestep
UNIFORM = 0.001  # share of the draws that stays uniform, so that none is ever forgotten


class ImportanceSampler(nn.Module):
    """Importance-sampled timesteps: p_t ~ sqrt(E[L_t^2]) of the last ten losses (Nichol & Dhariwal 2021, section 3.3).

    Uniform until every timestep has ten, and while all are 0. Its memory is two buffers, so that a checkpoint holds it.
    """

    losses: Tensor
    counts: Tensor

    def __init__(self, timesteps: int):
        super().__init__()
        self.register_buffer("losses", torch.zeros(timesteps, HISTORY, dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(timesteps, dtype=torch.int64))
        self.noted: list[tuple[Tensor, Tensor]] = []  # of the step in hand

    def probabilities(self) -> Tensor:
        """The probability p_t of each timestep: [T] float64."""
        p = self.losses.square().mean(dim=1).sqrt()
        p = (1 - UNIFORM) * p / p.sum().clamp(min=1e-300) + UNIFORM / len(p)
        return torch.where((self.counts >= HISTORY).all() & (self.losses > 0).any(), p, torch.full_like(p, 1 / len(p)))

    def draw(self, batch: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw timesteps [batch] and their weights 1 / (T p_t) [batch], which keep the mean loss unbiased."""
        p = self.probabilities()
        t = torch.multinomial(p, batch, replacement=True, generator=generator)
        return t, (1 / (len(p) * p[t])).float()

    def note(self, t: Tensor, losses: Tensor) -> None:
        """Record the unweighted losses [B] at timesteps t [B] of one micro-batch until the step ends."""
        self.noted.append((t, losses))

    def settle(self, gather: Callable[[Tensor], Tensor]) -> None:
        """Add the losses recorded in this step. `gather` concatenates the rows of all processes, in order."""
        noted, self.noted = self.noted, []
        t, losses = (torch.cat(parts) for parts in zip(*noted, strict=True))
        self.update(gather(t), gather(losses))

    @torch.no_grad()
    def update(self, t: Tensor, losses: Tensor) -> None:
        """Add unweighted losses [B] at timesteps t [B] to the history; losses that are not finite are ignored."""
        alike = t[:, None] == t  # [B, B]: a timestep may come more than once in a batch
        slot = (self.counts[t] + alike.tril(-1).sum(dim=1)) % HISTORY
        order = torch.arange(len(t), device=t.device)
        # draws that share a slot all write what the last of them has: which write comes last is not defined
        kept = losses.to(self.losses.dtype)[(alike & (slot[:, None] == slot)).mul(order).amax(dim=1)]
        self.losses[t, slot] = torch.where(kept.isfinite(), kept, self.losses[t, slot])
        self.counts.index_add_(0, t, torch.ones_like(t))
