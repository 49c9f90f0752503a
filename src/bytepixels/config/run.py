"""One config for a run: frozen dataclasses, checked when they are made. The command line's flags are these fields.

Sizes in pixels (height, width); budgets, warm-up and half-lives in images (training pictures seen), not steps.
"""

import math
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from types import UnionType
from typing import Annotated, Any, Literal, get_args, get_type_hints

from tyro.conf import FlagConversionOff, Suppress, arg

from ..choices import LEAST_SAMPLES, MAX_CHURN, OBJECTIVES, PREDICTIONS, SAMPLERS, SCHEDULES, SPACINGS, WEIGHTINGS
from ..errors import InputError, check_choice, check_range
from .autoencoder import AutoencoderConfig
from .units import Images, Length, seconds_of

Precision = Literal["auto", "float32", "bf16"]
MAX_GUIDANCE = 1000.0
MOST_IMAGES = 10**12
MOST_STEPS = 10_000  # where a process has no timesteps to be the limit
BACKBONES = {  # and the settings that only they have
    "unet": ("multipliers", "blocks", "attention", "stem"),
    "dit": ("patch", "depth", "positions", "registers"),
}
TIMES = {"ddpm": ("uniform", "importance"), "edm": ("log_normal",), "flow": ("uniform", "logit_normal")}


@dataclass(frozen=True)
class DataConfig:
    """Images: their size, and how they are made to fit it."""

    size: tuple[int, int] | None = None
    """Height and width to train at. Default: the images' own size, or their median short side, squared, rounded down
    to what the network can halve; at most 32 x 32 (64 x 64 on a GPU with preset small; autoencoders: 128 x 128). The
    size is said before training begins."""
    channels: int | None = None
    """1 grey, 2 grey + alpha, 3 RGB, 4 RGBA. Default: 1 when every picture is grey, else 3."""
    fit: Literal["crop", "pad", "squash"] = "crop"
    """How an image of another shape is made to fit: crop cuts its sides, pad adds margins, squash distorts it."""
    background: str = "white"
    """The colour under transparent images and around padded ones: a CSS name or #80c0ff. Usual: white, black."""
    flip: Literal["auto", "yes", "no"] = "auto"
    """Mirror images left to right at random, half of the time. auto: yes, except for digits and mnist."""
    split: str = "train"
    """Which split to take where the source has several: train, val, test or all."""
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


@dataclass(frozen=True)
class ProcessConfig:
    """Diffusion: how noise is added, and what the network learns to predict."""

    diffusion: Literal["ddpm", "edm", "flow"] = "ddpm"
    """The process. ddpm: T timesteps, variance-preserving (Ho et al. 2020); edm: noise of growing sigma is added
    (Karras et al. 2022); flow: straight lines from noise to image (rectified flow)."""
    timesteps: int = 1000
    """Noise levels T of ddpm. Usual: 1000."""
    schedule: str = "linear"
    """How ddpm's noise grows from level to level: linear (DDPM's paper), cosine (better for small images),
    scaled_linear (latent diffusion) or sigmoid."""
    zero_terminal_snr: bool = False
    """Rescale the schedule so that its last level is pure noise (needs --prediction v or x0)."""
    prediction: Literal["eps", "x0", "v"] = "eps"
    """What the network predicts: eps (the noise, as in DDPM's paper), x0 (the clean image), or v (a mix of both that
    is well scaled at every noise level)."""
    times: Literal["auto", "uniform", "log_normal", "logit_normal", "importance"] = "auto"
    """How the noise levels of a training batch are drawn. ddpm: uniform, or importance (more where the loss is large);
    edm: log_normal; flow: uniform or logit_normal. auto takes the first of them."""
    weighting: str = "none"
    """How much each noise level counts in the loss: eps, min_snr, p2, edm, velocity, uniform or sigmoid. none: plain
    squared error of what is predicted."""
    objective: Literal["simple", "hybrid", "vlb"] = "simple"
    """The loss. simple: squared error; vlb: the variational bound; hybrid: simple, with the bound for a learned
    variance (Nichol & Dhariwal 2021; the last two need ddpm)."""
    variance: Literal["fixed", "learned"] = "fixed"
    """Variance of ddpm's reverse steps: fixed, or learned by the network (needs --objective hybrid or vlb)."""

    def __post_init__(self) -> None:
        check_range("--timesteps", self.timesteps, 1, 100_000)
        check_choice("--schedule", self.schedule, SCHEDULES)
        check_choice("--prediction", self.prediction, PREDICTIONS)
        check_choice("--diffusion", self.diffusion, TIMES)
        check_choice("--objective", self.objective, OBJECTIVES)
        check_choice("--variance", self.variance, ("fixed", "learned"))
        check_choice("--weighting", self.weighting, ("none", *WEIGHTINGS))
        check_choice(f"--times with --diffusion {self.diffusion}", self.times, ("auto", *TIMES[self.diffusion]))
        if self.zero_terminal_snr and self.diffusion != "ddpm":
            raise InputError(f"--zero-terminal-snr rescales the schedule of ddpm, {self.diffusion} has none")
        if self.prediction == "eps" and (self.zero_terminal_snr or self.diffusion == "flow"):
            flag = "--diffusion flow" if self.diffusion == "flow" else "--zero-terminal-snr"
            raise InputError(f"{flag} needs --prediction v or x0, got eps: pure noise tells it nothing")
        self._check_objective()

    def _check_objective(self) -> None:
        """Refuse what does not go together, and say why."""
        if self.diffusion != "ddpm" and self.objective != "simple":
            raise InputError(f"--objective {self.objective} bounds a chain of T steps: it needs --diffusion ddpm")
        if self.variance == "learned" and self.objective == "simple":
            raise InputError("--variance learned needs --objective hybrid or vlb: simple never trains it")
        if self.variance == "fixed" and self.objective == "hybrid":
            raise InputError("--objective hybrid is for --variance learned: with a fixed one there is nothing to add")
        if self.objective == "vlb" and self.weighting != "none":
            raise InputError(f"--objective vlb has the bound's own weights, got --weighting {self.weighting}")
        if self.diffusion != "ddpm":
            return
        if self.weighting in ("uniform", "sigmoid") and (self.zero_terminal_snr or self.timesteps < 2):
            flag = "--zero-terminal-snr makes endless" if self.zero_terminal_snr else "--timesteps 1 has one value of"
            raise InputError(f"--weighting {self.weighting} is over log SNR, which {flag}")


@dataclass(frozen=True)
class NetworkConfig:
    """Network: a U-Net, or a transformer over patches. Flags that only the other one has are refused."""

    backbone: Literal["unet", "dit"] = "unet"
    """unet: convolutions at several resolutions; dit: attention between patches (Peebles & Xie 2023)."""
    width: int = 128
    """unet: channels of the first level; dit: channels of each patch. More learns more and is slower. Usual: 32 to 128
    (unet), 96 to 768 (dit)."""
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    """unet: channels of each level, as multiples of --width; every level after the first halves the resolution."""
    blocks: int = 2
    """unet: residual blocks per level. Usual: 1 to 3."""
    attention: tuple[int, ...] = (1,)
    """unet: levels with self-attention, 0 being the first (slow there); the middle block always has it."""
    patch: int = 2
    """dit: side of a patch in pixels; the image's sides must be multiples of it. Smaller is better and slower."""
    depth: int = 12
    """dit: number of transformer blocks. Usual: 6 to 28."""
    positions: Literal["rope", "sincos"] = "rope"
    """dit: how a patch knows its place. rope: rotary embedding of queries and keys; sincos: sines and cosines are
    added, as in the paper."""
    registers: int = 0
    """dit: learned register tokens beside the patches, dropped at the end. Usual: 0 or 4."""
    heads: int = 1
    """Attention heads; they must divide the channels. Usual: 1 to 16."""
    dropout: float = 0.1
    """Share of activations dropped in the blocks while training. Usual: 0, or 0.1 where images are few."""
    embedding: Literal["article", "ddpm"] = "article"
    """Order of the waves that stand for a timestep. article: cosines before sines; ddpm: sines before cosines, with the
    spacing of the code of DDPM's paper."""
    labels: bool = True
    """Learn the class labels, where the data has them, so that sample --label can ask for one."""
    text: str | None = None
    """Learn captions, so that sample --prompt can ask for one. The text encoder: wordllama, whose vectors of words are
    installed beside bytepixels, or the folder of a Hugging Face text encoder (pip install 'bytepixels[text]')."""
    text_dim: Suppress[int | None] = None
    """Numbers in a vector of that encoder."""
    stem: Literal["auto", "conv", "haar"] = "conv"
    """unet: what lies before the first level. conv: a convolution; haar: the Haar transform first, so that every level
    has half the sides and a quarter of the work. auto: haar for images (or latents) of 24 x 24 and more."""

    def __post_init__(self) -> None:
        check_choice("--backbone", self.backbone, BACKBONES)
        for name in settings_of_others(self.backbone):
            if getattr(self, name) != getattr(NetworkConfig, name):
                raise InputError(foreign_setting(name, self.backbone))
        check_choice("--stem", self.stem, ("auto", "conv", "haar"))
        check_range("--width", self.width, 4)
        for name in ("blocks", "heads", "patch", "depth"):
            check_range(f"--{name}", getattr(self, name), 1)
        check_range("--registers", self.registers, 0)
        check_choice("--positions", self.positions, ("rope", "sincos"))
        if not self.multipliers or min(self.multipliers) < 1:
            raise InputError(
                f"--multipliers must be one or more numbers of at least 1, got {_plain(self.multipliers)!r}"
            )
        for level in self.attention:
            check_range("--attention", level, 0, len(self.multipliers) - 1)
        if not 0 <= self.dropout < 1:
            raise InputError(f"--dropout must be at least 0 and below 1, got {self.dropout}")


def settings_of_others(backbone: str) -> list[str]:
    """The settings that this backbone does not have."""
    return [name for other, names in BACKBONES.items() if other != backbone for name in names]


def foreign_setting(name: str, backbone: str) -> str:
    """The sentence that refuses one of them."""
    owner = next(other for other, names in BACKBONES.items() if name in names)
    return f"--{name} belongs to --backbone {owner}, got --backbone {backbone}"


@dataclass(frozen=True)
class TrainConfig:
    """Training: how long, how fast, and how it is watched."""

    images: Images = 1_000_000
    """The budget: training pictures to see in all, repeats counted; 5M and 500k are numbers too. The learning rate's
    decay ends with the budget. A run that is done goes on with a larger one."""
    epochs: float | None = None
    """The budget in passes over the pictures, instead of --images."""
    budget: str | None = None
    """The budget in time, instead of --images: 2h, 90m, 1h30m, from the start of the command to its end, packing and
    previews included. As many images as fit, reckoned from the measured rate again and again."""
    batch: int = 128
    """Images per optimiser step. Usual: 32 on a CPU, 64 to 512 on a GPU."""
    micro_batch: int = 0
    """Images per forward pass, for less memory with the same result: gradients are averaged over the batch. 0: all of
    the batch."""
    optimizer: Literal["adam", "muon"] = "adam"
    """The optimizer: adam, or muon (orthogonal steps for matrices and convolutions, Jordan et al. 2024; adam for the
    rest), which needs fewer images."""
    lr: float = 2e-4
    """Peak learning rate. Usual: 1e-4 to 2e-3; smaller networks take more."""
    warmup: Length = 0.05
    """How long the learning rate rises to its peak: a share of the budget, or images."""
    lr_decay: Literal["none", "cosine", "linear"] = "none"
    """How the learning rate falls to zero towards the end of the budget; none keeps it at its peak."""
    weight_decay: float = 0.0
    """Decoupled weight decay (AdamW). Usual: 0 to 0.1."""
    clip_norm: float = 1.0
    """Gradients of a larger norm are scaled down to this; 0 leaves them as they are."""
    ema_half_life: Length = 0.05
    """Half-life of the weights' moving average (EMA): a share of the budget, or images. It is never more than 5% of the
    images seen so far, so that it starts warm."""
    label_dropout: float = 0.1
    """Share of training images that are shown without their label or caption, which sample --guidance needs. Usual: 0.1
    to 0.2."""
    precision: Precision = "auto"
    """Arithmetic of the network. auto: bf16 where a measurement at the start finds it 1.2 times as fast or more, else
    float32."""
    compile: Literal["auto", "yes", "no"] = "auto"
    """Compile the network for training. auto: no on a CPU, else where the budget pays for it by measured times."""
    device: str = "auto"
    """Where to compute: cpu, cuda, cuda:1, mps; auto takes the fastest there is."""
    shard: bool = False
    """Split weights, EMA, gradients and optimizer state among torchrun's processes (FSDP): for a network too large for
    one of them."""
    seed: int = 0
    """Seed of the initial weights, the order of the data, the noise levels and the noise."""
    checkpoint_minutes: float | None = None
    """Minutes between checkpoints; one more is written at the end and when the run is interrupted. Default: a tenth of
    the time that the training takes, between 15 seconds and 10 minutes."""
    keep: int = 3
    """Checkpoints kept; older ones are removed."""
    previews: int | None = None
    """Sample grids drawn along the way, evenly over the budget; 0 draws none. Default: up to 10 that take at most 5% of
    the time, the first of them early; with fewer steps, or fewer images, where the time is short."""
    preview_pictures: int = 16
    """Images in each of those grids."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """When a loss or gradient is not finite: stop, or skip that step and count it."""
    measure: int = 0
    """Samples to measure at each of those grids: their kernel distance to the data (lower is better) goes to
    eval.jsonl. 0 measures nothing; usual: 200."""
    log_seconds: float = 5.0
    """Seconds between lines of log.jsonl, each of which waits for the device once."""
    tensorboard: bool = False
    """Write TensorBoard files to the run as well (needs the tensorboard extra)."""

    def __post_init__(self) -> None:
        check_range("--images", self.images, 1, MOST_IMAGES)
        for name in ("batch", "keep", "preview_pictures"):
            check_range(f"--{name.replace('_', '-')}", getattr(self, name), 1)
        for name in ("warmup", "weight_decay", "clip_norm", "ema_half_life", "checkpoint_minutes", "previews", "seed"):
            if (value := getattr(self, name)) is not None:
                check_range(f"--{name.replace('_', '-')}", value, 0)
        check_range("--micro-batch", self.micro_batch, 0, self.batch)
        if self.measure:
            check_range("--measure", self.measure, LEAST_SAMPLES)
        check_range("--label-dropout", self.label_dropout, 0, 1)
        check_range("--seed", self.seed, 0, 2**63 - 1)
        check_range("--log-seconds", self.log_seconds, 0)
        if not 0 < self.lr < 1:
            raise InputError(f"--lr must be between 0 and 1, got {self.lr}")
        check_choice("--lr-decay", self.lr_decay, ("none", "cosine", "linear"))
        check_choice("--on-nonfinite", self.on_nonfinite, ("stop", "skip"))
        if self.epochs is not None and not 0 < self.epochs < math.inf:
            raise InputError(f"--epochs must be above 0 and finite, got {self.epochs}")
        if self.budget is not None:
            seconds_of(self.budget)
            if self.epochs is not None:
                raise InputError(f"--epochs {self.epochs:g} and --budget {self.budget} exclude each other")
        check_choice("--compile", self.compile, ("auto", "yes", "no"))
        check_choice("--optimizer", self.optimizer, ("adam", "muon"))
        if self.shard and self.optimizer == "muon":
            raise InputError("--optimizer muon does not go with --shard: no process has a whole matrix")
        if self.shard and self.compile == "yes":
            raise InputError("--compile yes does not go with --shard")
        check_choice("--precision", self.precision, ("auto", "float32", "bf16"))


@dataclass(frozen=True)
class SampleConfig:
    """Sampling: how sample and the previews draw images unless told otherwise."""

    sampler: str = "ddim"
    """ddpm (DDPM's paper: noisy, wants hundreds of steps), ddim, euler, heun, dpmpp_2s, dpmpp_2m, dpmpp_3m,
    dpmpp_sde_2m, unipc_2, unipc_3, ipndm, deis (10 to 50 steps), or auto: the best measured for that many steps."""
    steps: int = 50
    """Steps from noise to image, 1 to --timesteps: more is better and slower. heun evaluates the network twice a step,
    the others once. Usual: 10 to 50, ddpm up to 1000."""
    spacing: str = "auto"
    """Where the steps lie among the noise levels: trailing, leading, linspace, quadratic, log_snr or karras. auto: what
    suits the sampler."""
    eta: float = 0.0
    """Fresh noise in each step of ddim: 0 (none, deterministic) to 1 (as much as ddpm)."""
    churn: float = 0.0
    """Fresh noise in euler, ddim and heun: edm's S_churn, which each step divides by --steps. 0 is none."""
    reverse_variance: Literal["auto", "small", "large", "learned"] = "auto"
    """Variance of ddpm's steps. auto: learned where the run learned it, else large with all timesteps and small with
    fewer steps."""
    guidance: float = 1.0
    """Classifier-free guidance: how strongly images follow the label or caption. 1: no guidance; usual: 1.5 to 4."""
    guidance_interval: tuple[float, float] | None = None
    """Guide only at noise levels with sigma / alpha between these two. Default: at all."""
    guidance_rescale: float = 0.0
    """How much of the contrast that guidance adds is taken back: 0 (none) to 1 (all). Usual: 0 or 0.7."""
    clip: FlagConversionOff[bool] = True
    """Clip each estimate of the clean image to the range of pixels on the way."""

    def __post_init__(self) -> None:
        check_choice("--sampler", self.sampler, ("auto", *SAMPLERS))
        check_choice("--spacing", self.spacing, ("auto", *SPACINGS))
        check_choice("--reverse-variance", self.reverse_variance, ("auto", "small", "large", "learned"))
        check_range("--steps", self.steps, 1)
        check_range("--eta", self.eta, 0, 1)
        check_range("--guidance", self.guidance, 0)
        check_range("--guidance", self.guidance, 0, MAX_GUIDANCE)
        check_range("--guidance-rescale", self.guidance_rescale, 0, 1)
        low, high = self.guidance_interval or (0.0, 0.0)
        if not 0 <= low <= high:
            raise InputError(f"--guidance-interval must be two numbers, 0 <= LOW <= HIGH, got {low:g} {high:g}")
        check_range("--guidance-interval HIGH", high, 0)
        if self.churn > 0 and self.sampler not in ("euler", "ddim", "heun"):
            raise InputError(f"--churn needs --sampler heun, euler or ddim, which keep no memory, got {self.sampler}")
        if not 0 <= self.churn <= MAX_CHURN * self.steps:
            limit = math.floor(1000 * MAX_CHURN * self.steps) / 1000
            each = f"{MAX_CHURN:.3f} for each of {self.steps} steps"
            raise InputError(f"--churn must be in 0..{limit} ({each}), got {self.churn:g}")
        if self.reverse_variance != "auto" and self.sampler != "ddpm":
            raise InputError(f"--reverse-variance belongs to --sampler ddpm, got {self.sampler}")
        if self.eta > 0 and self.sampler != "ddim":
            raise InputError(f"--eta belongs to --sampler ddim, got --sampler {self.sampler} --eta {self.eta}")


@dataclass(frozen=True)
class Config:
    """All settings of a run."""

    preset: str = "small"
    """A recipe that sets all defaults: small (32 x 32, on a CPU), digits (the demo, 8 x 8), cifar10 or speedrun
    (GPU)."""
    data: DataConfig = field(default_factory=DataConfig)
    process: ProcessConfig = field(default_factory=ProcessConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
    first_stage: Annotated[str | None, arg(name="autoencoder", metavar="RUN")] = None
    """Train on the latents of an autoencoder: a run of train autoencoder, or a diffusers folder of an AutoencoderKL.
    Default: on pixels."""
    autoencoder: Suppress[AutoencoderConfig | None] = None
    """What is trained is an autoencoder; of the rest, --diffusion and the like, nothing is used."""

    def __post_init__(self) -> None:
        check_steps(self.sample, self.process)
        told = self.network.labels or self.network.text is not None
        if self.sample.guidance != 1 and not (told and self.train.label_dropout > 0):
            raise InputError(f"--guidance {self.sample.guidance:g} needs class labels and a --label-dropout above 0")

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dictionaries and lists, as config.json holds them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Config":
        """The inverse of to_dict. Unknown keys raise InputError with the nearest known one."""
        return read_config(cls, values, "config")


def check_steps(sample: SampleConfig, process: ProcessConfig) -> None:
    """Raise InputError for more steps than the process has levels, or a variance that no network learned."""
    check_range("--steps", sample.steps, 1, process.timesteps if process.diffusion == "ddpm" else MOST_STEPS)
    if sample.reverse_variance == "learned" and process.variance != "learned":
        raise InputError("--reverse-variance learned needs a run that was trained with --variance learned")


# What may change when a run goes on: its budget (which a decaying learning rate follows), its devices, how much of a
# batch they hold at a time and what is compiled for them, what becomes of a loss that is not finite, and how it is
# watched; where the text encoder lies, which is known by its hash. Nothing else, so that its curve is that of one
# experiment.
WATCHING = {"checkpoint_minutes", "keep", "previews", "preview_pictures", "measure", "log_seconds", "tensorboard"}
BUDGET = {"images", "epochs", "budget"}
PLACES = {"first_stage", "text"}
MUTABLE = BUDGET | PLACES | {"device", "shard", "compile", "micro_batch", "on_nonfinite", "strict"} | WATCHING


def changed_settings(old: Config, new: Config) -> list[str]:
    """The flags in which two configs of one run differ though a run cannot change them, as "--lr 0.0002 -> 0.001"."""
    return [
        f"{_flag(name)} {_plain(before)} -> {_plain(after)}"
        for name, (before, after) in _differences(old, new).items()
        if name not in MUTABLE and not name.startswith("sample.")
    ]


def own_settings(config: Config, preset: Config, data_as_asked: bool = False) -> list[str]:
    """The flags that make a run's config of its preset's, as "--lr 0.001", quoted for a shell.

    Left out is what the data and the machine decided where the preset says None or auto, and the images that a budget
    in epochs or in time came to. data_as_asked: the settings of the data are as they were given, so none is left out.
    """
    counted = config.train.epochs is not None or config.train.budget is not None
    decided = {"device", "precision", "compile", "perceptual", "stem", "text_dim"} | ({"images"} if counted else set())
    decided |= set() if data_as_asked else {"size", "channels", "flip"}
    return [
        _given(name, after)
        for name, (before, after) in _differences(preset, config).items()
        if after is not None and not (name in decided and (name == "images" or before in (None, "auto")))
    ]


def _given(name: str, value: Any) -> str:
    """A flag with its value, as the command line takes it."""
    flag = "--autoencoder" if name == "first_stage" else _flag(name)
    if name == "sample.clip":
        return f"{flag} {'yes' if value else 'no'}"
    if isinstance(value, bool):
        return flag if value else flag.replace("--", "--no-", 1)
    return (
        f"{flag} {shlex.join(_plain(value).split()) if isinstance(value, tuple) else shlex.quote(str(value))}".strip()
    )


def _differences(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    before, after = _flat(old.to_dict()), _flat(new.to_dict())
    return {name: (before[name], after[name]) for name in before if before[name] != after[name]}


def _flag(name: str) -> str:
    return f"--{name.removeprefix('sample.').replace('_', '-')}"


def _flat(nested: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            prefix = "sample." if key == "sample" else ""
            flat |= {prefix + name: inner for name, inner in value.items()}
        else:
            flat[key] = value
    return flat


def _plain(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def read_config(cls: Any, values: Mapping[str, Any], where: str) -> Any:
    """A dataclass of settings from plain dictionaries and lists; unknown keys raise with the nearest known one."""
    types = get_type_hints(cls)
    known = [f.name for f in fields(cls)]
    made = {}
    for key, value in values.items():
        check_choice(f"a key of {where}", key, known)
        kind = types[key]
        if isinstance(kind, UnionType):  # a part that may be missing
            kind = next((one for one in get_args(kind) if is_dataclass(one) and value is not None), kind)
        if is_dataclass(kind):
            value = read_config(kind, value, key)
        elif isinstance(value, list):
            value = tuple(value)
        made[key] = value
    return cls(**made)
