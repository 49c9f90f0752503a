"""Perceptual losses: how far two images are apart for a network that knows objects. Per image."""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from .errors import InputError
from .evaluate.imagenet import ImageNetFeatures

Distance = Callable[[Tensor, Tensor], Tensor]  # (x, y) float [B, C, H, W] in -1..1 -> [B]

IMAGENET = "imagenet"
LAYERS = {0: 1.0, 1: 1.0, 3: 1.0, 5: 1.0, 8: 1.0, 11: 1.0}  # of its maps, and their weights: sides of 1/2 to 1/16
SMALL = 1e-2  # beside the squared length of features
LPIPS = {"resize_images": False, "return_lpips": True}  # what StyleGAN2's vgg16 is asked for


@lru_cache(maxsize=1)  # for the loss, and for its trial
def open_perceptual(path: str, device: torch.device) -> Distance:
    """`imagenet`, or a TorchScript file: a distance of two images, or features, whose squared error it is then.

    A file is given RGB in -1..1. A network of one picture with `resize_images` and `return_lpips` is StyleGAN2's vgg16
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
        raise InputError(f"--perceptual {path} must take one picture or two, it takes {takes}")
    lpips = takes == 1 and {one.name for one in arguments} >= LPIPS.keys()
    options = LPIPS if lpips else {}

    def distance(x: Tensor, y: Tensor) -> Tensor:
        x, y = _rgb(x), _rgb(y)
        if lpips:
            x, y = 127.5 * (x + 1), 127.5 * (y + 1)
        found = network(x, y) if takes == 2 else (network(x, **options) - network(y, **options)).square()
        if found.shape[:1] != x.shape[:1]:
            few = f"{list(found.shape)} for {len(x)} pictures"
            raise InputError(f"--perceptual {path} must give each picture numbers of its own, got {few}")
        found = found.reshape(len(x), -1)
        return found.sum(1) if lpips else found.mean(1)

    return distance


def imagenet_distance(device: torch.device) -> Distance:
    """The features of several layers of EfficientNet-Lite0, scaled to length 1 at each place, and their squared error.

    As LPIPS (Zhang et al. 2018, eq. 1), with another network and weights by layer instead of by channel, which sum to
    1: each layer counts 0 (the same) to 4 (opposite).
    """
    network, total = ImageNetFeatures(device), sum(LAYERS.values())

    def unit(features: Tensor) -> Tensor:
        """Nothing in them counts less than a thousandth: where all are 0 the length has no gradient."""
        return features * (features.square().sum(1, keepdim=True) + SMALL).rsqrt()

    def layers(x: Tensor) -> list[Tensor]:
        maps = network.maps((_rgb(x) + 1) / 2)
        return [unit(found) for found, layer in zip(maps, range(max(LAYERS) + 1), strict=False) if layer in LAYERS]

    def distance(x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = layers(x)
        errors = [(a - b).square().sum(1).mean((1, 2)) for a, b in zip(wanted, layers(y), strict=True)]
        return sum(w * error for w, error in zip(LAYERS.values(), errors, strict=True)) / total  # type: ignore[return-value]

    return distance


def _rgb(x: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, 3, H, W]: grey three times over, without what is no colour."""
    return x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x[:, :3]
