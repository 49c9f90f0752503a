"""The flags of import."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from ..errors import check_range


@dataclass(frozen=True, kw_only=True)
class Import:
    """Make a run of a model that another program trained: draw from it, measure it, or train it further.

    FOLDER is what diffusers saved: a DDPMPipeline or DDIMPipeline, or a UNet2DModel alone. diffusers need not be
    installed. An AutoencoderKL's folder needs no import: train SOURCE --autoencoder FOLDER takes it as it is.
    """

    folder: Positional[Annotated[Path, arg(metavar="FOLDER")]]
    """The folder that save_pretrained wrote."""
    run: Path | None = None
    """The folder of the new run. Default: runs/NAME, as the folder is named."""
    source: str | None = None
    """The images that it was trained on, as for train, which evaluate, compare and report measure it against, and which
    give its classes their names. Default: none, and those verbs say so."""
    size: tuple[int, int] | None = None
    """Height and width of the images that it draws. Default: what the folder says."""
    null_class: int | None = None
    """Which row of its class embeddings means "no class", for guidance. Default: the one that the names of the classes
    leave over; without names none, and guidance is of no use."""

    def __post_init__(self) -> None:
        for side in self.size or ():
            check_range("--size", side, 1)
        if self.null_class is not None:
            check_range("--null-class", self.null_class, 0)
