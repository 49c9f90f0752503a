"""A trial training on a few images with the real step: its speed, its memory, and whether it learns."""

import math
import os
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from ...build import build_network, build_process
from ...codec.codec import Codec, PixelCodec
from ...config.run import Config
from ...config.training import MOST_IMAGES
from ...core.flow_map import ratio_at
from ...data import Packed
from ...data.batches import Batches, free_memory
from ...sampling.first_stage import EncodedImages
from ...sampling.settings import is_flow_map
from ..diffusion_task import build_draw, build_loss, build_times
from ..loop import Batch, DrawBatch, Loss, TrainState, train_step
from ..micro_batch import CROP, MEMORY_SHARE, step_memory

MEASURE_SECONDS, MEASURE_STEPS = 20.0, 10  # of measuring: about so long, or so many steps
OVERFIT_IMAGES, OVERFIT_BYTES = 4, 40e6  # in the batch: so many, or as many as keep so much for the backward pass
OVERFIT_STEPS = 200  # at most
OVERFIT_DONE = 0.1  # of the loss of predicting nothing: as good as learnt
OVERFIT_GOOD = 0.5  # the most that is as it should be
OVERFIT_TELLING = 30  # steps, below which nothing is concluded


@dataclass
class TrainingTrial:
    """A training that writes nothing; `step` is the real one."""

    config: Config  # resolved
    state: TrainState
    draw: DrawBatch
    loss: Loss

    def step(self, batch: Batch) -> Tensor:
        """One optimiser step: losses [B]."""
        return train_step(self.state, batch, self.loss, self.config.train).losses


def start_trial(
    config: Config, sample: Packed, device: torch.device, latents: EncodedImages | None = None
) -> TrainingTrial:
    """A run at its beginning, on the images of `sample` only, or on some of the latents that stand in their place."""
    codec: Codec = PixelCodec()
    if latents is not None:
        sample = replace(sample, images=latents.means(slice(len(sample))))
        codec = latents.codec(config, device)
    process, times = build_process(config), build_times(config, device)
    classes = len(sample.classes) if config.network.labels else 0
    flip, train = config.data.flip == "yes", config.train
    batches = Batches(sample.images, sample.labels, train.batch, train.seed, flip, device)
    _, channels, height, width = sample.images.shape
    network = build_network(config, (channels, height, width), classes, device)
    ratio = (lambda step: ratio_at(1.0)) if is_flow_map(config) else None  # when a flow map's steps cost most
    draw = build_draw(config, process, batches, classes, times, ratio=ratio)
    loss = build_loss(config, process, codec, device, times)
    return TrainingTrial(config, TrainState.fresh(network, train, times), draw, loss)


def with_batch(config: Config, batch: int, compiled: bool | None = None) -> Config:
    """The same run with another batch, and compiled or not where that is given."""
    compiles = config.train.compile if compiled is None else "yes" if compiled else "no"
    micro = min(config.train.micro_batch, batch)
    return replace(config, train=replace(config.train, batch=batch, micro_batch=micro, compile=compiles))


@dataclass(frozen=True)
class StepEstimate:
    """Memory and time of a training step, estimated from a small one."""

    weights: int  # of the network
    checkpoint_bytes: int  # of the weights, their average and two moments
    at_a_time: int  # images: the largest part of the batch (its half, a quarter, ...) whose step fits in memory
    bytes_per_image: int
    bytes: int  # of a step of so many
    free_bytes: int
    seconds_per_image: float
    can_be_tried: bool  # there is memory for it, and one image does not take too long


@dataclass(frozen=True)
class StepMeasurement:
    """Time and memory that training steps took, scaled to the whole batch where only a part of it was measured."""

    measured_batch: int
    seconds: list[float]  # of each step
    images_per_second: float  # of the median step
    peak_memory_bytes: int | None
    threads: int
    load: float | None  # of the machine


@dataclass(frozen=True)
class OverfitCheck:
    """How far the loss of one batch fell when it was trained on repeatedly."""

    images: int
    steps: int
    seconds: float
    limit_seconds: float
    loss_share: float | None  # of the loss of predicting nothing; None when it is not finite
    learns: bool | None  # None when there were too few steps to tell


def estimate_step(config: Config, sample: Packed, device: torch.device) -> StepEstimate:
    """Estimate memory and time of a step from steps on small corners of the images."""
    corner = replace(sample, images=sample.images[..., :CROP, :CROP])
    ratio = sample.images[0].size / corner.images[0].size
    seconds = ratio * timed_steps(with_batch(config, 1), corner, device, 2)[-1]
    trial = start_trial(with_batch(config, 2), sample, device)
    memory, free = step_memory(trial.state.model, trial.loss, trial.draw(0)), free_memory(device)
    at_a_time = memory.at_a_time(config.train.batch, free)
    needed, weights = memory.of(at_a_time), trial.state.model.state_dict().values()
    count, checkpoint_bytes = sum(w.numel() for w in weights), 4 * sum(w.nbytes for w in weights)
    can_be_tried = needed <= MEMORY_SHARE * free and seconds <= MEASURE_SECONDS
    each = int(memory.each)
    return StepEstimate(count, checkpoint_bytes, at_a_time, each, int(needed), int(free), seconds, can_be_tried)


def measure_step(config: Config, sample: Packed, device: torch.device, seconds_per_image: float) -> StepMeasurement:
    """Measure time and memory of the real step at the config's batch size.

    Where a step would take too long to be repeated, a smaller batch is measured and scaled. (A part of a step takes the
    same time for any batch, Muon's above all: so a batch that was faster than reckoned is followed by a larger one.)
    """
    reset_peak(device)
    batch, each = config.train.batch, MEASURE_SECONDS / 3
    part = min(batch, max(1, int(each / seconds_per_image)))
    while part < batch:
        took = timed_steps(with_batch(config, part), sample, device, 2)[-1]
        larger = min(batch, int(part * each / took))
        if larger < min(batch, 2 * part):
            break
        part = larger
    _, *seconds = timed_steps(with_batch(config, part), sample, device, MEASURE_STEPS)  # the first one warms up
    scaled = [one * batch / part for one in seconds]
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    rate, threads = batch / median(scaled), torch.get_num_threads()
    return StepMeasurement(part, scaled, rate, peak_bytes(device), threads, load)


def timed_steps(
    config: Config, sample: Packed, device: torch.device, most: int, latents: EncodedImages | None = None
) -> list[float]:
    """Seconds of each of up to `most` steps, two at least; the first one warms up, or compiles."""
    some = slice(4 * config.train.batch)
    labels = None if sample.labels is None else sample.labels[some]
    trial = start_trial(config, replace(sample, images=sample.images[some], labels=labels), device, latents)
    seconds = list[float]()
    while len(seconds) < 2 or (len(seconds) < most and sum(seconds[1:]) < MEASURE_SECONDS):
        start = time.perf_counter()
        trial.step(trial.draw(len(seconds))).sum().item()  # which waits for the device
        seconds.append(time.perf_counter() - start)
    return seconds


def overfit(config: Config, sample: Packed, device: torch.device, limit: float, bytes_per_image: int) -> OverfitCheck:
    """Train on one batch with fixed noise, and return how far the loss falls. `limit` in seconds."""
    train = replace(config.train, images=MOST_IMAGES, warmup=0, lr_decay="none")
    images = max(1, min(OVERFIT_IMAGES, int(OVERFIT_BYTES / bytes_per_image), len(sample)))
    trial = start_trial(with_batch(replace(config, train=train), images), sample, device)
    batch, share = trial.draw(0), 1.0
    nothing = trial.loss(predict_nothing, *batch).mean().item()
    began = time.perf_counter()
    for _ in range(OVERFIT_STEPS):
        share = trial.step(batch).mean().item() / nothing
        if not math.isfinite(share) or share <= OVERFIT_DONE or time.perf_counter() - began > limit:
            break
    steps, finite, seconds = trial.state.step, math.isfinite(share), time.perf_counter() - began
    good = finite and share <= OVERFIT_GOOD
    learns = good if good or steps >= OVERFIT_TELLING or not finite else None
    return OverfitCheck(images, steps, seconds, limit, share if finite else None, learns)


def predict_nothing(x: Tensor, t: Tensor, label: Tensor | None = None, destination: Tensor | None = None) -> Tensor:
    """A network that always returns 0."""
    return torch.zeros_like(x)


def reset_peak(device: torch.device) -> None:
    """Begin to measure the most memory anew: forget what looking at the images took."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):  # Linux alone has it
            Path("/proc/self/clear_refs").write_text("5")


def peak_bytes(device: torch.device) -> int | None:
    """Peak memory so far: of tensors on a GPU, else of this process. None if the system does not report it."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError, StopIteration), open("/proc/self/status", encoding="ascii") as file:
        return 1024 * next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
