"""Times drawn where the loss is large, for the variational bound, whose terms differ by orders of magnitude."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

HISTORY = 10  # losses remembered at every timestep
UNIFORM = 0.001  # share of the draws that stays uniform, so that none is ever forgotten


class ImportanceSampler(nn.Module):
    """Nichol & Dhariwal 2021, section 3.3: timesteps with p_t ~ sqrt(E[L_t^2]), from the last ten losses at each.

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
        """p_t, [T] float64."""
        p = self.losses.square().mean(dim=1).sqrt()
        p = (1 - UNIFORM) * p / p.sum().clamp(min=1e-300) + UNIFORM / len(p)
        return torch.where((self.counts >= HISTORY).all() & (self.losses > 0).any(), p, torch.full_like(p, 1 / len(p)))

    def draw(self, batch: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Timesteps [batch] and their weights 1 / (T p_t) [batch], with which the mean loss is what it was."""
        p = self.probabilities()
        t = torch.multinomial(p, batch, replacement=True, generator=generator)
        return t, (1 / (len(p) * p[t])).float()

    def note(self, t: Tensor, losses: Tensor) -> None:
        """Take down the unweighted losses [B] at timesteps t [B] of one micro-batch, until the step is over."""
        self.noted.append((t, losses))

    def settle(self, gather: Callable[[Tensor], Tensor]) -> None:
        """Remember what was noted in this step. `gather` puts the rows of all processes together, in order."""
        noted, self.noted = self.noted, []
        t, losses = (torch.cat(parts) for parts in zip(*noted, strict=True))
        self.update(gather(t), gather(losses))

    @torch.no_grad()
    def update(self, t: Tensor, losses: Tensor) -> None:
        """Remember the unweighted losses [B] at timesteps t [B]; one that is not finite leaves what was there."""
        alike = t[:, None] == t  # [B, B]: a timestep may come more than once in a batch
        slot = (self.counts[t] + alike.tril(-1).sum(dim=1)) % HISTORY
        order = torch.arange(len(t), device=t.device)
        # draws that share a slot all write what the last of them has: which write comes last is not defined
        kept = losses.to(self.losses.dtype)[(alike & (slot[:, None] == slot)).mul(order).amax(dim=1)]
        self.losses[t, slot] = torch.where(kept.isfinite(), kept, self.losses[t, slot])
        self.counts.index_add_(0, t, torch.ones_like(t))
