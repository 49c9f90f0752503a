"""Text conditioning of a network: tokens for cross-attention, and a pooled vector added to the time embedding."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError
from .blocks import Tokens, zero_

Text = tuple[Tensor, Tensor]  # vectors [B, L, D] of each token, and bool [B, L]: which of them there are


class TextReader(nn.Module):
    """Normalised token vectors of a text, and a learned vector for "no text".

    forward(text, batch) -> (tokens [B, L + 1, D], mask [B, L + 1]) and the pooled text [B, time_dim], zero at first.
    An image whose mask is empty, and every image where text is None, has the learned vector for its only token; the
    others do not see it. The mean of the tokens is added to the timestep, as in Imagen (Saharia et al. 2022, D.1).
    """

    def __init__(self, text_dim: int, time_dim: int):
        super().__init__()
        self.null = nn.Parameter(torch.randn(text_dim))
        self.pooled = zero_(nn.Linear(text_dim, time_dim))

    def forward(self, text: Text | None, batch: int) -> tuple[Tokens, Tensor]:
        null = self.null.expand(batch, 1, -1)  # [B, 1, D]
        if text is None:
            mask = torch.ones(batch, 1, dtype=torch.bool, device=null.device)
            return (null, mask), self.pooled(null[:, 0])
        vectors, mask = text[0].to(null.dtype), text[1]
        some = mask.any(dim=1, keepdim=True)  # [B, 1]
        mean = (vectors * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)  # [B, D]
        pooled = torch.where(some, self._normed(mean), null[:, 0])
        tokens = torch.cat([null, self._normed(vectors).to(null.dtype)], dim=1)
        return (tokens, torch.cat([~some, mask], dim=1)), self.pooled(pooled)

    def check(self, text: Text | None, batch: int) -> None:
        """Raise InputError for a text of the wrong shape."""
        if text is None:
            return
        vectors, mask = text
        length, dim = vectors.shape[1:] if vectors.ndim == 3 else (0, 0)
        if (dim, vectors.shape[0], mask.dtype) != (len(self.null), batch, torch.bool) or mask.shape != (batch, length):
            wanted = f"vectors [{batch}, L, {len(self.null)}] and a mask bool [{batch}, L]"
            raise InputError(f"text must be {wanted}, got {list(vectors.shape)} and {mask.dtype} {list(mask.shape)}")

    def _normed(self, vectors: Tensor) -> Tensor:
        return F.layer_norm(vectors, vectors.shape[-1:])
