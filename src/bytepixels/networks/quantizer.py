"""Vector quantisation: every latent vector becomes the nearest of K codes (see codec/codebook.py)."""

import torch
from torch import Tensor, nn

from ..errors import check_count

BLOCK = 2**24  # numbers in a block of distances: 64 MiB


class Quantizer(nn.Module):
    """A codebook of K codes of Z numbers, a buffer without gradient, which `CodebookEMA` updates."""

    codes: Tensor

    def __init__(self, codes: int, channels: int):
        super().__init__()
        check_count("codes", codes, 2)
        self.register_buffer("codes", torch.randn(codes, channels))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Quantise latents z [B, Z, h, w]: their codes [B, Z, h, w] and code indices [B, h, w] int64.

        The gradient of a code goes straight through to its latent (van den Oord et al. 2017, section 3.2).
        """
        index = self.nearest(z)
        return z + (self.look_up(index).to(z.dtype) - z).detach(), index

    @torch.no_grad()
    def nearest(self, z: Tensor) -> Tensor:
        """The index of the nearest code of each vector of z [B, Z, h, w]: [B, h, w] int64."""
        vectors = z.movedim(1, -1).reshape(-1, z.shape[1]).to(self.codes.dtype)  # [B, Z, h, w] -> [B h w, Z]
        half = self.codes.square().sum(dim=1) / 2
        rows = max(1, BLOCK // len(self.codes))
        with torch.autocast(z.device.type, enabled=False):  # bfloat16 would confuse near codes
            found = [(part @ self.codes.T - half).argmax(dim=1) for part in vectors.split(rows)]
        return torch.cat(found).view(len(z), *z.shape[2:])

    def look_up(self, index: Tensor) -> Tensor:
        """Codes by number: [B, h, w] -> [B, Z, h, w]."""
        return self.codes[index].movedim(-1, 1)
