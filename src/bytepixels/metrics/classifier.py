"""A small residual classifier, whose penultimate layer gives features."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..errors import InputError, check_range
from ..randomness import FLIP, INIT, ORDER, TIMES, seeded, torch_seeded
from .features import Features, state_hash, unit

FORMAT = 1
WEIGHTS, NOTES = "features.safetensors", "features.json"
SHIFT = 8  # an image is moved by up to an eighth of its side


class Classifier(nn.Module):
    """x in -1..1 [B, channels, H, W] -> logits [B, classes]; the shape of ResNet-9 (Page 2018), half as wide."""

    def __init__(self, channels: int, classes: int, width: int):
        super().__init__()
        self.stem = _block(channels, width)
        self.down = nn.ModuleList([_block(times * width, 2 * times * width) for times in (1, 2, 4)])
        self.around = nn.ModuleList([_Residual(2 * width), nn.Identity(), _Residual(8 * width)])
        self.head = nn.Linear(8 * width, classes)

    def features(self, x: Tensor) -> Tensor:
        """The features of the penultimate layer: [B, 8 width]."""
        x = self.stem(x)
        for down, around in zip(self.down, self.around, strict=True):
            x = down(x)
            x = around(F.max_pool2d(x, 2) if min(x.shape[2:]) > 1 else x)
        return x.amax((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x)) / 8


def _block(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU())


class _Residual(nn.Sequential):
    """A residual pair of blocks: x + f(x)."""

    def __init__(self, width: int):
        super().__init__(_block(width, width), _block(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


@dataclass(frozen=True)
class Recipe:
    """The hyperparameters of a classifier's training."""

    width: int = 32
    epochs: int = 10
    batch: int = 256
    lr: float = 0.2
    weight_decay: float = 5e-4
    flip: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        check_range("--width", self.width, 4)
        check_range("--epochs", self.epochs, 1)
        check_range("--batch", self.batch, 2)
        if not 0 < self.lr < 10:
            raise InputError(f"--lr must be between 0 and 10, got {self.lr}")


def train_classifier(
    images: Tensor, labels: Tensor, classes: int, recipe: Recipe, device: torch.device
) -> Iterator[tuple[int, float, Classifier]]:
    """(images seen, loss, the network) after every step: one cycle of the learning rate, Nesterov, flips and shifts.

    images: uint8 [N, C, H, W] and labels [N], both on the host. A function of the seed.
    """
    with torch_seeded(recipe.seed, INIT):
        made = Classifier(images.shape[1], classes, recipe.width)
    network: Classifier = made.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    batch = min(recipe.batch, len(images))
    each = len(images) // batch  # steps of an epoch
    steps = recipe.epochs * each
    optimizer = torch.optim.SGD(network.parameters(), recipe.lr, 0.9, weight_decay=recipe.weight_decay, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, steps, pct_start=0.2, div_factor=10)
    for step in range(steps):
        epoch, k = divmod(step, each)
        rows = torch.randperm(len(images), generator=seeded(recipe.seed, ORDER, epoch))[k * batch : (k + 1) * batch]
        x = unit(augmented(images[rows], recipe.flip, recipe.seed, step).to(device))
        logits = network.train()(x.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits, labels[rows].to(device), label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        yield (step + 1) * batch, loss.item(), network


def augmented(images: Tensor, flip: bool, seed: int, step: int) -> Tensor:
    """Augment images [B, C, H, W]: random flips if asked, and random shifts by up to an eighth of the side."""
    count, _, height, width = images.shape
    if flip:
        mirror = torch.rand(count, generator=seeded(seed, FLIP, step)) < 0.5
        images = torch.where(mirror[:, None, None, None], images.flip(-1), images)
    generator = seeded(seed, TIMES, step)
    rows, columns = (_moved(side, count, generator) for side in (height, width))  # [B, side] each
    return images[torch.arange(count)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _moved(side: int, count: int, generator: torch.Generator) -> Tensor:
    """Row indices [count, side] of random shifts, with reflection at the edges."""
    reach = side // SHIFT
    shift = torch.randint(-reach, reach + 1, (count, 1), generator=generator)
    moved = (torch.arange(side) + shift).abs()
    return torch.where(moved >= side, 2 * (side - 1) - moved, moved)


def accuracy(network: Classifier, images: Tensor, labels: Tensor, device: torch.device, batch: int = 500) -> float:
    """The share of images that are classified correctly."""
    network.eval()
    with torch.no_grad():
        named = torch.cat([network(unit(x.to(device))).argmax(1).cpu() for x in images.split(batch)])
    return (named == labels).double().mean().item()


def save_classifier(folder: Path, network: Classifier, recipe: Recipe, notes: dict[str, Any]) -> None:
    """Write features.safetensors and features.json. notes: metadata, with classes, size and channels at least."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}, folder / WEIGHTS)
    said = {"format": FORMAT, "recipe": asdict(recipe), "hash": state_hash(network), **notes}
    (folder / NOTES).write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")


class ClassifierFeatures(Features):
    """Features from the penultimate layer of a classifier saved by `evaluate train-features`, at its training size."""

    def __init__(self, folder: Path, device: torch.device | str = "cpu"):
        try:
            self.notes = json.loads((folder / NOTES).read_text(encoding="utf-8"))
            if self.notes["format"] != FORMAT:
                raise ValueError(f"they are of format {self.notes['format']}, this version reads {FORMAT}")
            self.classes: list[str] = list(self.notes["classes"])
            network = Classifier(self.notes["channels"], len(self.classes), self.notes["recipe"]["width"])
            network.load_state_dict(load_file(folder / WEIGHTS))
            self.hash, self.size = state_hash(network), tuple(self.notes["size"])
            if self.hash != self.notes["hash"]:
                raise ValueError("its weights differ from those that were written")
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            line = str(error).split("\n")[0]
            raise InputError(f"{folder} holds no features of evaluate train-features: {line}") from error
        self.network, self.device = network.to(device).eval(), device
        self.name, self.resize = folder.absolute().name, f"bilinear to {self.size[0]} x {self.size[1]}"

    def __call__(self, images: Tensor) -> Tensor:
        channels = int(self.notes["channels"])
        if images.shape[1] != channels:
            raise InputError(f"features {self.name} are of images with {channels} channels, got {images.shape[1]}")
        x = unit(images.to(self.device))
        if tuple(x.shape[2:]) != self.size:
            x = F.interpolate(x, self.size, mode="bilinear", antialias=True, align_corners=False)
        with torch.no_grad():
            return self.network.features(x).cpu()

    def probabilities(self, images: Tensor, features: Tensor) -> Tensor | None:
        with torch.no_grad():
            return (self.network.head(features.to(self.device)) / 8).softmax(1).cpu()
