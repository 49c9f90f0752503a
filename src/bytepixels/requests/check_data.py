"""The flags of data doctor."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from ..choices import SPLITS
from ..config.data import DataConfig
from ..config.presets import PRESETS
from ..errors import check_choice


@dataclass(frozen=True)
class Doctor:
    """Check every image of SOURCE before training on it, on one page. The source is not changed, and nothing is packed.

    Says what there is (sizes, kinds, damaged files, copies, classes, colours), what train would do with it, which
    preset, size and budget suit it, and, by training on a few of its images, how long that takes here, how much
    memory it needs, and whether it learns at all. The exit code is 0 whatever it finds.
    """

    source: Positional[Annotated[str, arg(metavar="SOURCE")]]
    """The images, as for train."""
    size: tuple[int, int] | None = None
    """Height and width to train at. Default: what is suggested."""
    channels: int | None = None
    """1 grey, 2 grey + alpha, 3 RGB, 4 RGBA. Default: 1 when every image is grey, else 3."""
    fit: Literal["crop", "pad", "squash"] = "crop"
    """How an image of another shape is made to fit: cut its sides, add margins, or distort it."""
    background: str = "white"
    """The colour under transparent images and around padded ones."""
    split: str = "train"
    """The split to check if the source has several; the others are only searched for duplicates of its images."""
    preset: str | None = None
    """small, digits or cifar10. Default: what is suggested."""
    device: str = "auto"
    """Where to compute: cpu, cuda, mps; auto takes the fastest there is."""
    quick: bool = False
    """Skip the measurement of time and memory, and shorten the check that training learns."""
    json: Path | None = None
    """A JSON file for all numbers and file names."""

    def __post_init__(self) -> None:
        check_choice("--split", self.split, SPLITS)
        if self.preset is not None:
            check_choice("--preset", self.preset, PRESETS)
        self.data  # noqa: B018  (its own checks)

    @property
    def data(self) -> DataConfig:
        """The settings of the images."""
        return DataConfig(self.size, self.channels, self.fit, self.background, split=self.split)
