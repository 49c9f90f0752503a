"""The flags of train, encode, sample, show and verify."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import OmitArgPrefixes, Positional, arg

from ..config.autoencoder import AutoencoderConfig
from ..config.run import Config, DataConfig, TrainConfig
from ..errors import InputError, check_range
from ..sampling.labels import Words


@dataclass(frozen=True)
class Train:
    """Train a model on the pictures of SOURCE, or go on with a run that was interrupted (same command again)."""

    source: Positional[Annotated[str, arg(metavar="SOURCE")]]
    """A folder (one subfolder per class, or flat), a .zip or .tar of one, WebDataset shards (a folder of them, or a
    quoted pattern: 'train-{000000..000127}.tar'), an .npz or .npy, or a name: digits, cifar10, mnist, fashion-mnist."""
    run: Path | None = None
    """The folder of the run. Default: runs/SOURCE-PRESET, or runs/SOURCE-PRESET-dit."""
    origin: Annotated[Path | None, arg(name="from", metavar="RUN")] = None
    """Begin a new run with the averaged (EMA) weights of another: a run, or one of its checkpoints
    (RUN/checkpoints/step-...). Its network and settings are the new run's; images, size, classes (matched by name) and
    budget may be others."""
    profile: int = 0
    """Profile that many of the first steps: a table of where their time goes, and RUN/trace.json. 0: none."""
    config: OmitArgPrefixes[Config] = field(default_factory=Config)


@dataclass(frozen=True)
class TrainAutoencoder:
    """Train an autoencoder, the first stage of latent diffusion, on the pictures of SOURCE.

    Then, on its latents: bytepixels train SOURCE --autoencoder RUN. The same command again goes on where it stopped.
    """

    source: Positional[Annotated[str, arg(metavar="SOURCE")]]
    """The images, as for train: a folder, .zip, .tar, shards, .npz, or digits, cifar10, mnist, fashion-mnist."""
    run: Path | None = None
    """The folder of the run. Default: runs/SOURCE-autoencoder."""
    profile: int = 0
    """Profile that many of the first steps: a table of where their time goes, and RUN/trace.json. 0: none."""
    autoencoder: OmitArgPrefixes[AutoencoderConfig] = field(default_factory=AutoencoderConfig)
    data: OmitArgPrefixes[DataConfig] = field(default_factory=DataConfig)
    train: OmitArgPrefixes[TrainConfig] = field(default_factory=TrainConfig)


@dataclass(frozen=True)
class TrainLatent:
    """Latent diffusion in one command: an autoencoder on the pictures of SOURCE, then a model on its latents.

    The budget (--images, --epochs or --budget) is split between the two. The same command again goes on where it
    stopped. The flags of the autoencoder begin with --stage; the others are the model's.
    """

    source: Positional[Annotated[str, arg(metavar="SOURCE")]]
    """The images, as for train: a folder, .zip, .tar, shards, .npz, or digits, cifar10, mnist, fashion-mnist."""
    run: Path | None = None
    """Where the model is kept; its autoencoder is beside it, RUN-autoencoder. Default: runs/SOURCE-latent."""
    share: float = 0.4
    """Share of the budget that the autoencoder gets, between 0 and 1; the model gets the rest."""
    stage: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    config: OmitArgPrefixes[Config] = field(default_factory=Config)

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise InputError(f"--share must be between 0 and 1, got {self.share:g}")
        if self.config.first_stage is not None:
            raise InputError("train latent trains its own autoencoder; with one: bytepixels train SOURCE --autoencoder")


@dataclass(frozen=True)
class Encode:
    """Store the latents of the pictures of SOURCE, and say what they are like.

    train SOURCE --autoencoder STAGE finds them in the cache, and does the same where they are not there.
    """

    autoencoder: Positional[Annotated[Path, arg(metavar="STAGE")]]
    """A run of train autoencoder, a run on its latents, or a diffusers folder of an AutoencoderKL."""
    source: Positional[Annotated[str, arg(metavar="SOURCE")]]
    """The images, as for train: a folder, .zip, .tar, shards, .npz, or digits, cifar10, mnist, fashion-mnist."""
    data: OmitArgPrefixes[DataConfig] = field(default_factory=DataConfig)
    device: str = "auto"
    """Where to compute: cpu, cuda, mps; auto takes the fastest there is."""


@dataclass(frozen=True)
class Sample:
    """Draw new pictures from a trained run: seed-K.png each, grid.png and manifest.json."""

    run: Positional[Annotated[Path, arg(metavar="RUN")]]
    """The folder of a run, or a model that comes along: digits, cifar10, emoji."""
    n: Annotated[int, arg(aliases=["-n"])] = 16
    """How many images."""
    seed: int = 0
    """Seed of the first image; the next have the seeds that follow. An image depends on its seed alone."""
    sampler: str | None = None
    """auto (the best measured for that many steps), ddpm, ddim, euler, heun, dpmpp_2s, dpmpp_2m, dpmpp_3m,
    dpmpp_sde_2m, unipc_2, unipc_3, ipndm or deis. Default: the run's own, like all that follow."""
    steps: int | None = None
    """Steps from noise to image: more is better and slower. Usual: 10 to 50."""
    spacing: str | None = None
    """trailing, leading, linspace, quadratic, log_snr or karras; auto takes the sampler's best."""
    eta: float | None = None
    """Fresh noise in each step of ddim: 0 (none, deterministic) to 1 (as much as ddpm)."""
    churn: float | None = None
    """Fresh noise in heun, euler and ddim: edm's S_churn, which each step divides by --steps. 0 is none."""
    reverse_variance: str | None = None
    """Variance of ddpm's steps: small, large, learned, or auto."""
    guidance: float | None = None
    """How strongly images follow the label or prompt (or, with --weak, the better model). 1: no guidance; usual: 1.5 to
    4."""
    guidance_interval: tuple[float, float] | None = None
    """Guide only at noise levels with sigma / alpha between these two."""
    guidance_rescale: float | None = None
    """How much of the contrast that guidance adds is taken back, 0 to 1."""
    weak: Path | None = None
    """Autoguidance: a weaker run of the same kind, or one checkpoint (RUN/checkpoints/step-...), to guide away from."""
    clip: bool | None = None
    """Clip each estimate of the clean image to the range of pixels on the way."""
    label: Words = None
    """A class by its name or, where no class is named by a number, by its number from 0.
    Default: the classes in turn."""
    prompt: Words = None
    """What the pictures show, in words: of a run with --text; "" is no text at all (unconditional). Default: captions
    of its training pictures in turn."""
    out: Path | None = None
    """The folder for the images. Default: RUN/samples/SAMPLER-STEPS-seed-SEED."""
    batch: int = 64
    """Images at a time: it changes the speed and the memory, not the images."""
    gif: bool = False
    """Also write denoising.gif, the way from noise to the images."""
    weights: Literal["ema", "model"] = "ema"
    """Which weights: ema (the moving average, usually better) or model (those of the last step)."""
    checkpoint: str | None = None
    """A checkpoint's name. Default: the newest."""
    device: str = "auto"
    """Where to compute: cpu, cuda, mps; auto takes the fastest there is."""
    compile: Literal["auto", "yes", "no"] = "auto"
    """Compile the network, or take the compiled one that an earlier call left in the cache. auto: in a long job, where
    it measures to be faster. Pictures of a compiled network differ in the rounding."""


@dataclass(frozen=True)
class Show:
    """Draw the forward process x_0 .. x_T on your own pictures for every schedule, and the schedules' curves."""

    source: Positional[Annotated[str, arg(metavar="SOURCE")]]
    """The images, as for train: a folder, .zip, .tar, shards, .npz, or digits, cifar10, mnist, fashion-mnist."""
    out: Path = Path("show")
    """The folder for the images."""
    n: Annotated[int, arg(aliases=["-n"])] = 4
    """How many images."""
    columns: int = 11
    """Noise levels in a row, the clean image included. Many make each image smaller."""
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
    """Check the mathematics on this machine against exact laws: a table, verify.png, exit code 1 if a row falls short.

    Where the data is a Gaussian, a mixture or a known set of pictures, the best denoiser is known exactly, and so is
    what each method should make of it. Every deterministic sampler must converge with the order that its paper
    promises (1 for ddim, 4 for unipc_3: twice the steps, a sixteenth of the error), on all three kinds of process;
    those that draw noise must reach the data's mean and variance; the variational bound must be as tight as theory
    allows; and a picture must depend on its seed alone. Ten seconds to half a minute, no download, no network to train.
    """

    out: Path = Path("verify")
    """Where verify.png goes: error against the number of steps, and measured against promised order."""
