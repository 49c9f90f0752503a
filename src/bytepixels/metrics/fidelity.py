"""The fidelity of an autoencoder's reconstructions: PSNR and SSIM, each with its error."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from ..codec.codec import PixelCodec
from ..codec.reconstruction_losses import (
    kl_divergence,
    psnr,
    ssim,
)
from ..networks import Autoencoder

AT_A_TIME = 2**20  # pixels in one call of the autoencoder


def parts_of(images: Tensor) -> Iterator[Tensor]:
    """Split images into parts that fit in one call."""
    return iter(images.split(max(1, AT_A_TIME // (images.shape[2] * images.shape[3]))))


@torch.no_grad()
def reconstructed(
    autoencoder: nn.Module, images: Tensor, device: torch.device, count: Callable[[int], None] = lambda done: None
) -> Tensor:
    """Reconstruct images uint8 [n, C, H, W] through the mean of their latents. count: called with the number done."""
    codec, again = PixelCodec(), list[Tensor]()
    for x in parts_of(images):
        again.append(codec.to_images(autoencoder(codec.to_model(x.to(device)))).cpu())
        count(sum(map(len, again)))
    return torch.cat(again)


@torch.no_grad()
def fidelity(autoencoder: Autoencoder, images: Tensor, again: Tensor, device: torch.device) -> dict[str, float]:
    """Measure what is left of images uint8 [n, C, H, W], reconstructed in `again`: means of PSNR (dB) and SSIM.

    And of the latents the divergence in nats per number (kl), or the share of codes in use and their perplexity (vq).
    """
    codec = PixelCodec()
    pairs = list(zip(parts_of(images), parts_of(again), strict=True))
    alike = torch.cat([ssim(codec.to_model(x), codec.to_model(y)) for x, y in pairs])
    found = {"psnr": psnr(images, again).clamp(max=100).mean().item(), "ssim": alike.mean().item()}
    moments = [autoencoder.encode(codec.to_model(x.to(device))) for x in parts_of(images)]
    if autoencoder.quantizer is None:
        nats = torch.cat([kl_divergence(*one) for one in moments])
        return found | {"kl": nats.mean().item() / moments[0][0][0].numel()}
    index = torch.cat([autoencoder.quantizer.nearest(mean).flatten() for mean, _ in moments])
    share = index.bincount(minlength=len(autoencoder.quantizer.codes)).double() / len(index)
    return found | {
        "codes_used": (share > 0).double().mean().item(),
        "perplexity": torch.special.entr(share).sum().exp().item(),
    }


def format_fidelity(found: dict[str, float], of: str) -> str:
    """Describe the fidelity in a sentence without its end."""
    said = f"PSNR {found['psnr']:.2f} dB, SSIM {found['ssim']:.4f} ({of})"
    if "kl" in found:
        return f"{said}; {found['kl']:.2f} nats per number of a latent"
    return f"{said}; {found['codes_used']:.0%} of the codes in use, perplexity {found['perplexity']:.0f}"
