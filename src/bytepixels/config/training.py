"""How a run is trained: budget, optimiser, precision, previews, checkpoints."""

import math
from dataclasses import dataclass
from typing import Literal

from ..choices import LEAST_SAMPLES
from ..errors import InputError, check_choice, check_range
from .units import Images, Length, seconds_of

Precision = Literal["auto", "float32", "bf16"]


MOST_IMAGES = 10**12


@dataclass(frozen=True)
class TrainConfig:
    """Training: how long, how fast, and how it is watched."""

    images: Images = 1_000_000
    """The budget: training images in all, repeats counted, such as 500k or 5M. The learning rate decays until the end
    of the budget. A finished run continues with a larger one."""
    epochs: float | None = None
    """The budget in passes over the images, instead of --images."""
    budget: str | None = None
    """The budget in time, instead of --images: 2h, 90m, 1h30m, from the start of the command to its end, packing and
    previews included. The number of images is updated from the measured speed."""
    batch: int = 128
    """Images per optimiser step. 0: 32, or 64 where the training is long enough. Usual: 64 to 512 on a GPU."""
    micro_batch: int = 0
    """Images per forward pass (gradient accumulation): less memory, same result. 0: the whole batch."""
    optimizer: Literal["adam", "muon"] = "adam"
    """The optimizer: adam, or muon (orthogonal steps for matrices and convolutions, Jordan et al. 2024; adam for the
    rest), which needs fewer images."""
    lr: float = 2e-4
    """Peak learning rate. Usual: 1e-4 to 2e-3; smaller networks take more."""
    warmup: Length = 0.05
    """Linear warm-up of the learning rate: a share of the budget, or images."""
    lr_decay: Literal["none", "cosine", "linear"] = "none"
    """Decay of the learning rate to zero at the end of the budget; none: constant after the warm-up."""
    weight_decay: float = 0.0
    """Decoupled weight decay (AdamW). Usual: 0 to 0.1."""
    clip_norm: float = 1.0
    """Gradient clipping: the largest gradient norm. 0: no clipping."""
    ema_half_life: Length = 0.05
    """Half-life of the exponential moving average of the weights (EMA): a share of the budget, or images; at most 5% of
    the images seen so far, so that it starts warm."""
    label_dropout: float = 0.1
    """Share of training images that are shown without their label or caption, which sample --guidance needs. Usual: 0.1
    to 0.2."""
    precision: Precision = "auto"
    """Precision of the network. auto: bf16 if it is measured at the start to be 1.2 times as fast or more, else
    float32."""
    compile: Literal["auto", "yes", "no"] = "auto"
    """Compile the network for training. auto: no on a CPU, else if measured to save time within the budget."""
    device: str = "auto"
    """Where to compute: cpu, cuda, cuda:1, mps; auto takes the fastest there is."""
    shard: bool = False
    """Split weights, EMA, gradients and optimizer state among torchrun's processes (FSDP): for a network too large for
    one of them."""
    seed: int = 0
    """Seed of the initial weights, the order of the data, the noise levels and the noise."""
    checkpoint_minutes: float | None = None
    """Minutes between checkpoints; one more is written at the end and on interruption. Default: a tenth of the
    training time, between 15 seconds and 10 minutes."""
    keep: int = 3
    """Checkpoints kept; older ones are removed."""
    previews: int | None = None
    """Sample grids during training, evenly over the budget; 0: none. Default: up to 10 within 5% of the time, the first
    one early, with fewer steps or images if time is short."""
    preview_images: int = 16
    """Images in each preview grid."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """On a loss or gradient that is not finite: stop the training, or skip that step and count it."""
    measure: int = 0
    """Samples to measure at each preview: their kernel distance (KID-like, lower is better) goes to eval.jsonl. 0:
    none; usual: 200."""
    log_seconds: float = 5.0
    """Seconds between lines of log.jsonl; each line synchronises with the device once."""
    tensorboard: bool = False
    """Write TensorBoard files to the run as well (needs the tensorboard extra)."""
    wandb: str | None = None
    """Send the log, grids and measurements to this project of Weights & Biases (needs the wandb extra; with
    WANDB_MODE=offline they only go to RUN/wandb)."""

    def __post_init__(self) -> None:
        check_range("--images", self.images, 1, MOST_IMAGES)
        for name in ("keep", "preview_images"):
            check_range(f"--{name.replace('_', '-')}", getattr(self, name), 1)
        for name in ("warmup", "weight_decay", "clip_norm", "ema_half_life", "checkpoint_minutes", "previews", "seed"):
            if (value := getattr(self, name)) is not None:
                check_range(f"--{name.replace('_', '-')}", value, 0)
        check_range("--batch", self.batch, 0)
        if self.batch:
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
            raise InputError("--shard needs --optimizer adam, got muon (maybe the default), which needs whole matrices")
        if self.shard and self.compile == "yes":
            raise InputError("--compile yes does not go with --shard")
        check_choice("--precision", self.precision, ("auto", "float32", "bf16"))
