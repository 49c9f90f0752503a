"""The flags of train and encode."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional, arg

from ..config.autoencoder import AutoencoderConfig
from ..config.data import DataConfig
from ..config.run import Config
from ..config.training import TrainConfig
from ..errors import InputError


@dataclass(frozen=True)
class Train:
    """Train a model on the images of SOURCE, or continue a run that was interrupted (repeat the same command)."""

    source: Positional[Annotated[str, arg(metavar="SOURCE")]]
    """A folder (one subfolder per class, or flat), a .zip or .tar of one, WebDataset shards (a folder of them, or a
    quoted pattern: 'train-{000000..000127}.tar'), an .npz or .npy, tables (.parquet, .arrow), or a name: digits,
    cifar10, mnist, fashion-mnist."""
    run: Path | None = None
    """The folder of the run. Default: runs/SOURCE-PRESET, or runs/SOURCE-PRESET-dit."""
    origin: Annotated[Path | None, arg(name="from", metavar="RUN")] = None
    """Begin a new run with the averaged (EMA) weights of another: a run, or one of its checkpoints
    (RUN/checkpoints/step-...). Its network and settings are the new run's; images, size, classes (matched by name) and
    budget may be others."""
    profile: int = 0
    """Number of first steps to profile: prints the time of each phase, writes RUN/trace.json. 0: none."""
    config: OmitArgPrefixes[Config] = field(default_factory=Config)


@dataclass(frozen=True)
class TrainAutoencoder:
    """Train an autoencoder, the first stage of latent diffusion, on the images of SOURCE.

    Then, on its latents: bytepixels train SOURCE --autoencoder RUN. The same command again goes on where it stopped.
    """

    source: Positional[Annotated[str, arg(metavar="SOURCE")]]
    """The images, as for train: a folder, .zip, .tar, shards, .npz, or digits, cifar10, mnist, fashion-mnist."""
    run: Path | None = None
    """The folder of the run. Default: runs/SOURCE-autoencoder."""
    profile: int = 0
    """Number of first steps to profile: prints the time of each phase, writes RUN/trace.json. 0: none."""
    autoencoder: OmitArgPrefixes[AutoencoderConfig] = field(default_factory=AutoencoderConfig)
    data: OmitArgPrefixes[DataConfig] = field(default_factory=DataConfig)
    train: OmitArgPrefixes[TrainConfig] = field(default_factory=TrainConfig)


@dataclass(frozen=True)
class TrainLatent:
    """Latent diffusion in one command: an autoencoder on the images of SOURCE, then a model on its latents.

    The budget (--images, --epochs or --budget) is split between the two. The same command again goes on where it
    stopped. The flags of the autoencoder begin with --stage; the others are the model's.
    """

    source: Positional[Annotated[str, arg(metavar="SOURCE")]]
    """The images, as for train: a folder, .zip, .tar, shards, .npz, or digits, cifar10, mnist, fashion-mnist."""
    run: Path | None = None
    """Where the model is kept; its autoencoder is beside it, RUN-autoencoder. Default: runs/SOURCE-latent."""
    share: float = 0.4
    """The autoencoder's share of the budget, between 0 and 1; the model gets the rest."""
    stage: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    config: OmitArgPrefixes[Config] = field(default_factory=Config)

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise InputError(f"--share must be between 0 and 1, got {self.share:g}")
        if self.config.first_stage is not None:
            raise InputError("train latent trains its own autoencoder; with one: bytepixels train SOURCE --autoencoder")


@dataclass(frozen=True)
class Encode:
    """Encode the images of SOURCE, store their latents in the cache, and print their statistics.

    train SOURCE --autoencoder STAGE finds them in the cache, and does the same where they are not there.
    """

    autoencoder: Positional[Annotated[Path, arg(metavar="STAGE")]]
    """A run of train autoencoder, a run on its latents, or a diffusers folder of an AutoencoderKL."""
    source: Positional[Annotated[str, arg(metavar="SOURCE")]]
    """The images, as for train: a folder, .zip, .tar, shards, .npz, or digits, cifar10, mnist, fashion-mnist."""
    data: OmitArgPrefixes[DataConfig] = field(default_factory=DataConfig)
    device: str = "auto"
    """Where to compute: cpu, cuda, mps; auto takes the fastest there is."""
