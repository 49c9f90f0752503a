"""The base class of every network: conditioning on time, label and text, and input checks."""

import torch
from torch import Tensor, nn

from ..errors import InputError, check_choice, check_range
from .blocks import Tokens
from .embedding import EMBEDDINGS, DestinationReader
from .text_conditioning import Text, TextReader


class Network(nn.Module):
    """network(x, t, label=None, dropout_keys=None) -> like x; time and label become one conditioning vector of `size`.

    channels: of the images. num_classes: K for a class-conditional network; labels are 0..K-1 and K (`null_label`)
    means "no label". embedding: "article" or "ddpm" (see `embedding.py`), of `waves` columns. time_scale: what t is
    multiplied with before. text_dim: D of the vectors of a text, where the network reads one (see `text.py`).
    `destination` is a DestinationReader in a flow map, else None: each network makes it last, so that its other weights
    are those that it has without.
    Raises InputError for arguments out of range.
    """

    multiple = 1  # what the sides of the images must divide by
    destination: DestinationReader | None

    def __init__(
        self,
        channels: int,
        num_classes: int | None,
        embedding: str,
        time_scale: float,
        waves: int,
        size: int,
        text_dim: int | None = None,
    ):
        super().__init__()
        check_sizes(channels=channels, num_classes=num_classes, text_dim=text_dim)
        check_choice("embedding", embedding, EMBEDDINGS)
        self.channels, self.null_label = channels, num_classes
        self.embed, self.time_scale, self.waves = EMBEDDINGS[embedding], time_scale, waves
        self.time = nn.Sequential(nn.Linear(waves, size), nn.SiLU(), nn.Linear(size, size))
        self.label = None if num_classes is None else nn.Embedding(num_classes + 1, size)
        self.text = None if text_dim is None else TextReader(text_dim, size)
        self.destination = None

    def condition(
        self, t: Tensor, label: Tensor | None, text: Tensor | None = None, way: Tensor | None = None
    ) -> Tensor:
        """[B], [B], [B, size] and [B] -> [B, size], through the SiLU that every block would otherwise repeat."""
        waves = self.embed(self.time_scale * t, self.waves)
        time = self.time(waves.to(next(self.time.parameters()).dtype))
        if self.label is not None:
            time = time + (self.label.weight[-1] if label is None else self.label(label))
        if way is not None and self.destination is not None:
            time = time + self.destination(way)
        return nn.functional.silu(time if text is None else time + text)

    def read(self, text: Text | None, batch: int) -> tuple[Tokens | None, Tensor | None]:
        """Read a text: the tokens that layers attend to, and the pooled vector [B, size]; None and None without text.
        Raises InputError for a text on a network without one, and for shapes that do not fit."""
        if self.text is not None:
            self.text.check(text, batch)
            return self.text(text, batch)
        if text is not None:
            raise InputError("text was given to a network without text: build it with text_dim")
        return None, None

    def check_size(self, height: int, width: int) -> None:
        """Raise InputError for images of a size that the network cannot take."""
        raise NotImplementedError

    def check_input(self, x: Tensor, t: Tensor, label: Tensor | None, destination: Tensor | None = None) -> None:
        """Raise InputError for shapes that do not fit, labels or a destination on a network without, and labels out of
        range when they are on the CPU (on an accelerator the check would stall it)."""
        if x.ndim != 4 or x.shape[1] != self.channels:
            raise InputError(f"x must be [B, {self.channels}, H, W], got {list(x.shape)}")
        self.check_size(*x.shape[2:])
        if t.shape != x.shape[:1]:
            raise InputError(f"t must be [{len(x)}], one time per image, got {list(t.shape)}")
        if label is not None:
            self._check_label(label, x.shape[0])  # len(x) would fix the batch of an exported network
        if destination is not None:
            if self.destination is None:
                raise InputError("a destination was given to a network without: build it with destinations=True")
            self.destination.check(destination, x.shape[0])

    def _check_label(self, label: Tensor, batch: int) -> None:
        if self.null_label is None:
            raise InputError("this network has no classes (num_classes=None): label must be None")
        if label.shape != (batch,) or label.is_floating_point():
            raise InputError(f"label must be [{batch}] of integers, got {list(label.shape)} {label.dtype}")
        if label.device.type == "cpu" and label.numel() > 0 and not torch.compiler.is_compiling():
            for value in (int(label.min()), int(label.max())):
                check_range("label", value, 0, self.null_label)


def check_sizes(**sizes: int | None) -> None:
    """Raise InputError for a given size below 1."""
    for name, value in sizes.items():
        if value is not None:
            check_range(name, value, 1)


def check_dropout(dropout: float) -> None:
    """Raise InputError for a probability outside [0, 1)."""
    if not 0 <= dropout < 1:
        raise InputError(f"dropout must be at least 0 and below 1, got {dropout}")
