"""The patch discriminator of an autoencoder, and the module that trains both together."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..errors import check_range
from .autoencoder import Autoencoder
from .blocks import group_count, group_norm


class PatchDiscriminator(nn.Module):
    """A patch discriminator: convolutions of stride 2, then a logit per patch (Isola et al. 2017, section 3.2.2).

    forward(x): [B, C, H, W] -> [B, 1, h, w], above 0 for what looks real. Group norms stand where theirs are batch
    norms, so that an image's logits do not depend on those beside it.
    """

    def __init__(self, channels: int = 3, width: int = 64, layers: int = 3):
        super().__init__()
        stack: list[nn.Module] = [nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for layer in range(1, layers + 1):
            c_in, c_out = width * min(2 ** (layer - 1), 8), width * min(2**layer, 8)
            stride = 2 if layer < layers else 1
            norm = group_norm(group_count(width), c_out)
            stack += [nn.Conv2d(c_in, c_out, 4, stride=stride, padding=1, bias=False), norm, nn.LeakyReLU(0.2)]
            last = c_out
        self.stack = nn.Sequential(*stack, nn.Conv2d(last, 1, 4, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return self.stack(x)


def patch_layers(height: int, width: int) -> int:
    """The number of layers, three at most, that leaves at least one logit. Raises InputError for sides below 6."""
    check_range("the shorter side of an image for --discriminator", min(height, width), 6)
    return min(3, int(math.log2(min(height, width) / 3)))


class Reconstruction(NamedTuple):
    """The outputs of an autoencoder for a batch. The last three are None without a discriminator."""

    x: Tensor  # [B, C, H, W]
    mean: Tensor  # of the latents, [B, Z, h, w]
    std: Tensor
    chosen: Tensor | None  # numbers of their codes [B, h, w], and those [B, Z, h, w]; None without codes
    codes: Tensor | None
    judged: Tensor | None  # logits of x that move the autoencoder alone
    real: Tensor | None  # logits of the images, and of x, that move the discriminator alone
    fake: Tensor | None


class AutoencoderWithDiscriminator(nn.Module):
    """An autoencoder and its discriminator, if it has one, trained by one optimiser in one backward pass.

    forward(x, noise): images [B, C, H, W] in -1..1, standard normal noise like their latents; None for their means.
    """

    def __init__(self, autoencoder: Autoencoder, discriminator: PatchDiscriminator | None = None):
        super().__init__()
        self.autoencoder, self.discriminator = autoencoder, discriminator

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Reconstruction:
        mean, std = self.autoencoder.encode(x)
        chosen = codes = None
        if self.autoencoder.quantizer is None:
            z = mean if noise is None else mean + std * noise
        else:
            z, chosen = self.autoencoder.quantizer(mean)
            codes = z.detach()
        again = self.autoencoder.render(z)
        judge = self.discriminator
        if judge is None or not self.training:
            return Reconstruction(again, mean, std, chosen, codes, None, None, None)
        still = {name: parameter.detach() for name, parameter in judge.named_parameters()}
        judged = functional_call(judge, still, again)
        real, fake = judge(torch.cat([x, again.detach()])).chunk(2)
        return Reconstruction(again, mean, std, chosen, codes, judged, real, fake)
