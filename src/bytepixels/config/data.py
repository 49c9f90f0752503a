"""The images of a run: their size, and how they are made to fit it."""

from dataclasses import dataclass
from typing import Literal

from ..errors import check_choice, check_range


@dataclass(frozen=True)
class DataConfig:
    """Images: their size, and how they are made to fit it."""

    size: tuple[int, int] | None = None
    """Height and width to train at. Default: the images' own size, or their median short side, squared, rounded down
    to what the network can halve; at most 32 x 32 (64 x 64 on a GPU with preset small; autoencoders: 128 x 128). The
    chosen size is printed before training begins."""
    channels: int | None = None
    """1 grey, 2 grey + alpha, 3 RGB, 4 RGBA. Default: 1 when every image is grey, else 3."""
    fit: Literal["crop", "pad", "squash"] = "crop"
    """How an image of another aspect ratio is fitted: crop cuts its sides, pad adds margins, squash distorts it."""
    background: str = "white"
    """Colour behind transparent images and around padded ones: a CSS name or #80c0ff. Usual: white, black."""
    flip: Literal["auto", "yes", "no"] = "auto"
    """Random horizontal flips with probability 1/2. auto: yes, except for digits and mnist."""
    split: str = "train"
    """The split to use if the source has several: train, val, test or all."""
    strict: bool = False
    """Refuse a source with unreadable images instead of leaving them out."""

    def __post_init__(self) -> None:
        check_choice("--flip", self.flip, ("auto", "yes", "no"))
        check_choice("--fit", self.fit, ("crop", "pad", "squash"))
        if self.size is not None:
            for name, side in zip(("height", "width"), self.size, strict=True):
                check_range(f"--size {name}", side, 1, 4096)
        if self.channels is not None:
            check_range("--channels", self.channels, 1, 4)
