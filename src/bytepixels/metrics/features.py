"""Feature extractors for images. Only Inception's Frechet distance is called FID; others name their features."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..codec.codec import PixelCodec
from ..errors import InputError
from ..randomness import seeded

INCEPTION = "inception-2015-12-05"  # the TorchScript file that EDM's and StyleGAN's numbers are made with
INCEPTION_DIMENSIONS = 2048
PCA_SIDE, PCA_COMPONENTS = 32, 64
unit = PixelCodec().to_model  # uint8 [B, C, H, W] -> float32 in -1..1


class Features:
    """Turns images into vectors that can be compared: uint8 [B, C, H, W] -> float32 [B, D]."""

    name: str
    hash: str  # sha256 of the weights
    resize: str  # what happens to the size of the images

    def __call__(self, images: Tensor) -> Tensor:
        raise NotImplementedError

    def probabilities(self, images: Tensor, features: Tensor) -> Tensor | None:
        """Class probabilities [B, K] of the network; None if it has no classes."""
        return None


def title(features: str) -> str:
    """The name of the Frechet distance under the features of that name."""
    return "FID" if features == "inception" else f"Frechet distance (features {features})"


def rgb(images: Tensor) -> Tensor:
    """Convert uint8 [B, 1 to 4, H, W] to RGB [B, 3, H, W]: grey repeated, transparency on white."""
    channels = images.shape[1]
    if channels in (2, 4):
        colour, alpha = images[:, :-1].float(), images[:, -1:].float() / 255
        images = (colour * alpha + 255 * (1 - alpha)).round().to(torch.uint8)
    return images if images.shape[1] == 3 else images.expand(-1, 3, -1, -1)


class RandomFeatures(Features):
    """Three convolutions with fixed random weights: mean and standard deviation of each of their channels.

    They see colour, contrast and texture, know nothing of objects, need no download, and are the same everywhere: a
    function of the seed and of the number of channels. Images keep their size.
    """

    widths = (24, 32, 40)

    def __init__(self, channels: int, device: torch.device | str = "cpu", seed: int = 1):
        generator = seeded(seed, channels)
        fan_in = (channels, *self.widths)
        shapes = [(out, before, 3, 3) for before, out in zip(fan_in, self.widths, strict=False)]
        weights = [torch.randn(s, generator=generator) / (s[1] * 9 / 2) ** 0.5 for s in shapes]
        self.name, self.resize = "random", "none"
        self.hash = hashlib.sha256(b"".join(w.numpy().tobytes() for w in weights)).hexdigest()
        self.weights = [w.to(device) for w in weights]

    def __call__(self, images: Tensor) -> Tensor:
        x, pooled = unit(images.to(self.weights[0].device)), []
        for weight in self.weights:
            x = F.leaky_relu(F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), weight), 0.2)
            pooled += [x.mean((2, 3)), x.std((2, 3), correction=0)]
            x = F.avg_pool2d(x, 2, ceil_mode=True)
        return torch.cat(pooled, 1)


class PixelFeatures(Features):
    """The first principal components of the data's pixels (layout and colour), in units of pixels in -1..1."""

    def __init__(self, images: np.ndarray, seed: int = 0):
        """images: the data, uint8 [N, C, H, W], whose components are computed; at least two."""
        from sklearn.decomposition import PCA

        if len(images) < 2:
            raise InputError(f"the principal components of pixels need two or more images, got {len(images)}")
        height, width = images.shape[2:]
        scale = max(1, max(height, width) / PCA_SIDE)
        self.size = max(1, round(height / scale)), max(1, round(width / scale))
        self.name = "pixels"
        self.resize = "none" if scale == 1 else f"area to {self.size[0]} x {self.size[1]}"
        rows = self._flat(torch.from_numpy(np.array(images))).numpy()
        count = min(PCA_COMPONENTS, *rows.shape)
        solver = "randomized" if count < min(rows.shape) else "full"
        self.pca = PCA(count, svd_solver=solver, random_state=seed).fit(rows)
        self.hash = hashlib.sha256(self.pca.mean_.tobytes() + self.pca.components_.tobytes()).hexdigest()

    def _flat(self, images: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(unit(images.cpu()), self.size).flatten(1)

    def __call__(self, images: Tensor) -> Tensor:
        return torch.from_numpy(self.pca.transform(self._flat(images).numpy())).float()


class ScriptFeatures(Features):
    """Features by a TorchScript file: uint8 [B, 3, H, W] in 0..255 -> [B, D] or [B, D, 1, 1]; it resizes by itself.

    One named inception-2015-12-05.pt is taken for the Inception of EDM's and StyleGAN's numbers; its hash is in every
    record, so that nobody need take our word for it.
    """

    def __init__(self, path: Path, device: torch.device | str = "cpu"):
        try:
            self.hash = hashlib.sha256(path.read_bytes()).hexdigest()
            self.network: Any = torch.jit.load(path, map_location=device).eval()
        except (OSError, RuntimeError, ValueError) as error:
            line = str(error).strip().split("\n")[0]
            raise InputError(f"{path} is no TorchScript file that torch {torch.__version__} reads: {line}") from error
        self.path, self.device = path, device
        self.name, self.resize = ("inception" if path.stem == INCEPTION else path.stem), "the file's own"

    def __call__(self, images: Tensor) -> Tensor:
        wanted = {"return_features": True} if self.name == "inception" else {}
        found = self._run(images, wanted)
        if self.name == "inception" and found.shape[1] != INCEPTION_DIMENSIONS:
            raise InputError(
                f"{self.path} is not Inception: it has {found.shape[1]} features, not {INCEPTION_DIMENSIONS}"
            )
        return found

    def probabilities(self, images: Tensor, features: Tensor) -> Tensor | None:
        """Inception's class probabilities, without the last layer's bias, as published scores use them."""
        return self._run(images, {"no_output_bias": True}) if self.name == "inception" else None

    def _run(self, images: Tensor, wanted: dict[str, bool]) -> Tensor:
        try:
            with torch.no_grad():
                found = self.network(rgb(images).to(self.device), **wanted)
        except RuntimeError as error:
            shape, line = list(images.shape), str(error).strip().split("\n")[-1]
            raise InputError(f"{self.path} cannot take uint8 images, 3 channels, of shape {shape}: {line}") from error
        if not isinstance(found, Tensor) or len(found) != len(images):
            raise InputError(f"{self.path} must return one vector for each image")
        return found.flatten(1).float().cpu()


def state_hash(network: nn.Module) -> str:
    """sha256 of a network's weights, by name."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
