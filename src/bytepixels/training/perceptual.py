"""Perceptual losses: distances of two images in the features of a network trained on objects. One value per image."""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import InputError
from ..metrics import imagenet
from ..randomness import NOISE, seeded

Distance = Callable[[Tensor, Tensor], Tensor]  # (x, y) float [B, C, H, W] in -1..1 -> [B]

IMAGENET, NONE = "imagenet", "none"
LAYERS = {0: 1.0, 1: 1.0, 3: 1.0, 5: 1.0, 8: 1.0, 11: 1.0}  # of its maps, and their weights: sides of 1/2 to 1/16
NOISE_STD = 0.1  # std of the noise that both images are seen under: 13 grey levels
LPIPS = {"resize_images": False, "return_lpips": True}  # what StyleGAN2's vgg16 is asked for


def chosen_perceptual(name: str | None) -> str | None:
    """Resolve `auto`: ImageNet's features where their package is installed. (Early runs say None for none.)"""
    return name if name != "auto" else IMAGENET if imagenet.installed() else NONE


@lru_cache(maxsize=1)  # for the loss, and for its trial
def open_perceptual(path: str, device: torch.device) -> Distance:
    """Open `imagenet` or a TorchScript file: a distance of two images, or features, compared by squared error.

    A file is given RGB in -1..1. A network of one image with `resize_images` and `return_lpips` is StyleGAN2's vgg16
    (Karras et al. 2020): it takes RGB in 0..255, and the squares of its differences add up to LPIPS. InputError for a
    file that is none of these.
    """
    if path == IMAGENET:
        return imagenet_distance(device)
    try:
        network = torch.jit.load(path, map_location=device).eval()
    except (RuntimeError, ValueError, OSError) as error:
        raise InputError(f"--perceptual takes a TorchScript file; {path} cannot be read as one") from error
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    arguments = network.forward.schema.arguments[1:]  # without itself
    takes = sum(not one.has_default_value() for one in arguments)
    if takes not in (1, 2):
        raise InputError(f"--perceptual {path} must take one image or two, it takes {takes}")
    lpips = takes == 1 and {one.name for one in arguments} >= LPIPS.keys()
    options = LPIPS if lpips else {}

    def distance(x: Tensor, y: Tensor) -> Tensor:
        x, y = _rgb(x), _rgb(y)
        if lpips:
            x, y = 127.5 * (x + 1), 127.5 * (y + 1)
        found = network(x, y) if takes == 2 else (network(x, **options) - network(y, **options)).square()
        if found.shape[:1] != x.shape[:1]:
            few = f"{list(found.shape)} for {len(x)} images"
            raise InputError(f"--perceptual {path} must give each image numbers of its own, got {few}")
        found = found.reshape(len(x), -1)
        return found.sum(1) if lpips else found.mean(1)

    return distance


def imagenet_distance(device: torch.device) -> Distance:
    """Squared error of features of several EfficientNet-Lite0 layers, normalised at each position.

    As LPIPS (Zhang et al. 2018, eq. 1), with another network and weights by layer instead of by channel: 0 for equal
    images to 4. Both images are seen under the same noise, always the same: on flat ones the network answers to noise
    of a tenth of a grey level, and the gradient would be about nothing that is to be seen.
    """
    network, total = imagenet.ImageNetFeatures(device), sum(LAYERS.values())

    def layers(x: Tensor) -> list[Tensor]:
        x = _rgb(x)
        noise = torch.randn(x.shape[1:], generator=seeded(0, NOISE)).to(x)
        maps = network.maps((x + NOISE_STD * noise + 1) / 2)
        chosen = (found for layer, found in zip(range(max(LAYERS) + 1), maps, strict=False) if layer in LAYERS)
        return [F.normalize(found, dim=1) for found in chosen]

    def distance(x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = layers(x)
        errors = [(a - b).square().sum(1).mean((1, 2)) for a, b in zip(wanted, layers(y), strict=True)]
        return torch.stack([w * error for w, error in zip(LAYERS.values(), errors, strict=True)]).sum(0) / total

    return distance


def _rgb(x: Tensor) -> Tensor:
    """Convert [B, C, H, W] to RGB [B, 3, H, W]: grey repeated, alpha dropped."""
    return x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x[:, :3]
