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
    """The budget: training images to see in all, repeats counted; 5M and 500k are numbers too. The learning rate's
    decay ends with the budget. A run that is done goes on with a larger one."""
    epochs: float | None = None
    """The budget in passes over the images, instead of --images."""
    budget: str | None = None
    """The budget in time, instead of --images: 2h, 90m, 1h30m, from the start of the command to its end, packing and
    previews included. As many images as fit, reckoned from the measured rate again and again."""
    batch: int = 128
    """Images per optimiser step. 0: 32, or 64 where the training is long enough. Usual: 64 to 512 on a GPU."""
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
    preview_images: int = 16
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
            raise InputError("--optimizer muon does not go with --shard: no process has a whole matrix")
        if self.shard and self.compile == "yes":
            raise InputError("--compile yes does not go with --shard")
        check_choice("--precision", self.precision, ("auto", "float32", "bf16"))
