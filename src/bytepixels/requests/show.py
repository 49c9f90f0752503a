"""The flags of show and verify."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from ..errors import check_range


@dataclass(frozen=True)
class Show:
    """Draw the forward process x_0 .. x_T on your own images for every schedule, and the schedules' curves."""

    source: Positional[Annotated[str, arg(metavar="SOURCE")]]
    """The images, as for train: a folder, .zip, .tar, shards, .npz, or digits, cifar10, mnist, fashion-mnist."""
    out: Path = Path("show")
    """The folder for the images."""
    n: Annotated[int, arg(aliases=["-n"])] = 4
    """How many images."""
    columns: int = 11
    """Columns: the clean image and this many less one noise levels. With many, images are drawn smaller."""
    timesteps: int = 1000
    """Noise levels T of the process."""
    size: tuple[int, int] | None = None
    """Height and width. Default: the data's own, and at most 256 pixels a side."""
    channels: int | None = None
    """1 grey, 3 RGB, 4 RGBA. Default: the data's own."""

    def __post_init__(self) -> None:
        check_range("-n", self.n, 1)
        check_range("--timesteps", self.timesteps, 1)
        check_range("--columns", self.columns, 2, self.timesteps + 1)


@dataclass(frozen=True)
class Verify:
    """Check the mathematics on this machine against exact results: a table, verify.png, exit code 1 on failure.

    Where the data is a Gaussian or a mixture of two, the best denoiser is known exactly, and so is what each method
    should make of it. Every deterministic sampler must converge with the order that its paper promises (1 for ddim, 4
    for unipc_3: twice the steps, a sixteenth of the error), on all three kinds of process; those that draw noise must
    reach the data's mean and variance; the variational bound must be as tight as theory allows; and an image must
    depend on its seed alone. Five to twenty seconds, no download, no network to train.
    """

    out: Path = Path("verify")
    """Where verify.png goes: error against the number of steps, and measured against promised order."""
