"""One process training one run: the steps, and what happens between them (the log, checkpoints, grids of samples)."""

import math
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from ..build import build_draw, build_loss, build_network, build_process, build_times
from ..codec import PixelCodec
from ..data import Packed
from ..data.batches import Batches
from ..errors import InputError, check_range
from ..images import beside, grid, save_png
from ..progress import Progress, duration
from ..runs.checkpoint import STEMS, DamagedError, list_checkpoints, read_state, read_tensors, save_checkpoint
from ..runs.directory import Run, write_json
from ..train.distributed import World, under_torchrun
from ..train.loop import Batch, StepResult, TrainState, total_steps, train_steps
from .sample import draw_pictures, draw_together


class TrainingError(RuntimeError):
    """Training cannot go on; the run is intact up to its last checkpoint."""


class Stop:
    """Remembers that the user pressed Ctrl-C or the system asked the process to end. A second time ends it at once."""

    signal: int = 0  # none yet

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.signal and not under_torchrun():  # torchrun may pass on what was sent to all
            raise KeyboardInterrupt
        self.signal = number


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """SIGINT and SIGTERM are remembered instead of ending the process."""
    stop = Stop()
    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class Trainer:
    """The state of one run and the work around each of its steps."""

    def __init__(self, run: Run, packed: Packed, world: World):
        self.run, self.config, self.world, self.device = run, run.config.train, world, world.device
        check_range("--batch on that many processes", self.config.batch, world.size)
        flip = run.config.data.flip == "yes"
        self.batches = Batches(packed.images, packed.labels, self.config.batch, self.config.seed, flip, self.device)
        process, classes = build_process(run.config), len(run.classes)
        times = build_times(run.config, self.device)
        self.draw = build_draw(run.config, process, self.batches, classes, times, world)
        self.loss = build_loss(run.config, process, PixelCodec(), self.device, times)
        network = build_network(run.config, run.shape, classes, self.device)
        self.state = TrainState.fresh(network, self.config, times, world)
        self.saved_step = world.decide(lambda: load_latest(run, self.state))
        self.state.share()
        self.unread: list[StepResult] = []
        self.times: dict[int, Tensor | None] = {}  # of the steps in hand: those by importance cannot be drawn again
        self.note = ""
        self.board = _tensorboard(run, self.images) if self.config.tensorboard and self.leads else None

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes the run."""
        return self.world.rank == 0

    @property
    def images(self) -> int:
        """Pictures seen so far."""
        return self.state.step * self.config.batch

    def take(self, step: int) -> Batch:
        """The batch of one step; its times are kept until its loss has been read."""
        batch = self.draw(step)
        self.times[step] = batch[2]
        return batch

    def fit(self, stop: Stop) -> int:
        """Train to the end of the budget or until asked to stop, save, and return the exit code."""
        began, steps = time.monotonic(), total_steps(self.config)
        self._greet()
        with Progress("train", steps * self.config.batch, "images", self.images) as progress:
            logged = saved = began
            for result in train_steps(self.state, self.take, self.loss, self.config):
                self.unread.append(result)
                progress.count(self.images)
                now = time.monotonic()
                due = now - logged >= self.config.log_seconds, now - saved >= 60 * self.config.checkpoint_minutes
                log_due, save_due, stop.signal = self.world.agree(*(self.leads and d for d in due), stop.signal)
                if log_due:
                    self.read(progress)
                    logged = now
                if result.step < steps:  # the last line comes when all is read and saved
                    progress.show(self.note)
                if save_due:
                    self.save(progress)
                    saved = time.monotonic()
                if stop.signal:
                    break
                if self.preview_due(result.step):
                    self.save(progress)  # a preview takes a while, and may fail: nothing is lost by it
                    self.preview(progress)
            self.save(progress)
            progress.show(self.note)
        if self.board is not None:
            self.board.close()
        if stop.signal and self.state.step < steps:
            print(f"stopped at {self.images:,} images; saved. The same command goes on from there.", file=sys.stderr)
            return 128 + stop.signal
        print(f"done in {duration(time.monotonic() - began)}: {self.run.path}")
        print(f"draw pictures with: bytepixels sample {self.run.path}")
        return 0

    def read(self, progress: Progress) -> None:
        """Fetch the figures of the steps since the last time: one read from the device, one line of log.jsonl."""
        results, self.unread = self.unread, []
        if not results:
            return
        means = self.world.sum(torch.stack([r.losses.sum() for r in results])) / self.config.batch
        figures = torch.stack([means, torch.stack([r.grad_norm for r in results])], dim=1).cpu()  # [steps, 2]
        for result, finite in zip(results, figures.isfinite().all(dim=1).tolist(), strict=True):
            if not finite:
                self.fail(result)
        self.times.clear()
        loss, grad_norm = figures.double().mean(dim=0).tolist()
        record = {"step": results[-1].step, "images": self.images, "loss": loss, "grad_norm": grad_norm}
        record |= {"lr": results[-1].lr, "images_per_second": round(progress.rate, 2)}
        if self.leads:
            self.run.log(record | {"time": round(time.time(), 2)})
        if self.board is not None:
            for name in ("loss", "grad_norm", "lr", "images_per_second"):
                self.board.add_scalar(name, record[name], self.images)
        self.note = f"loss {loss:.4f}  grad {grad_norm:.3f}"

    def fail(self, result: StepResult) -> None:
        """Stop at a loss or gradient that is not finite, and leave what it takes to repeat that step."""
        step, batch = result.step - 1, self.config.batch
        losses, t = self.world.gather(result.losses, batch).tolist(), self.times[step]
        pictures, times = self.batches.indices(step).tolist(), [] if t is None else self.world.gather(t, batch).tolist()
        where: dict[str, Any] = {"step": step, "seed": self.config.seed, "grad_norm": str(result.grad_norm.item())}
        each = [{"picture": p, "t": t, "loss": str(v)} for p, t, v in zip(pictures, times, losses, strict=True)]
        if self.leads:
            write_json(self.run.path / "nonfinite.json", where | {"batch": each})
        bad = [one for one in each if not math.isfinite(float(one["loss"]))]
        what = f"picture {bad[0]['picture']}, t {bad[0]['t']}, loss {bad[0]['loss']}" if bad else "losses finite"
        raise TrainingError(
            f"the loss or its gradient is not finite at step {step} with seed {self.config.seed} ({what}, gradient "
            f"{where['grad_norm']}); the batch and its times are in {self.run.path / 'nonfinite.json'}, the last "
            f"checkpoint is whole. Begin another --run with a smaller --lr"
        )

    def save(self, progress: Progress) -> None:
        """Write a checkpoint, after making sure that the steps it would hold were finite."""
        self.read(progress)
        if self.state.step != self.saved_step:
            if self.leads:
                tensors, keep = self.state.tensors(), self.config.keep
                save_checkpoint(self.run.checkpoints, self.state.step, self.images, tensors, keep)
            self.saved_step = self.state.step
            progress.pause()

    def preview_due(self, step: int) -> bool:
        """Whether this step completes one of the budget's equal parts."""
        parts, total = self.config.previews, total_steps(self.config)
        return step * parts // total > (step - 1) * parts // total

    def preview(self, progress: Progress) -> None:
        """A grid of samples: raw weights on the left, their average on the right, from the same noise."""
        raw, average = (grid(self.drawn(network)) for network in (self.state.model, self.state.ema))
        path = self.run.samples / f"images-{self.images:09d}.png"
        if self.leads:
            save_png(beside(raw, average), path)
        progress.say(f"samples at {self.images:,} images (raw weights left, their average right): {path}")
        progress.pause()

    def drawn(self, network: nn.Module) -> Tensor:
        """The preview's pictures, uint8 [B, C, H, W]: every process draws its share."""

        def draw(seeds: range) -> Tensor:
            return draw_pictures(network, self.run, self.run.config.sample, seeds, self.device)

        return draw_together(self.world, range(self.config.preview_pictures), self.run.shape, draw)

    def _greet(self) -> None:
        size = sum(p.numel() for p in self.state.model.parameters())
        pictures, budget = self.run.data["count"], total_steps(self.config) * self.config.batch
        print(f"{self.run.path}: {size:,} weights, {self.config.precision} on {self.device}", end="; ")
        print(f"{budget:,} images to see ({budget / pictures:.1f} epochs)")
        (channels, height, width), flip = self.run.shape, self.run.config.data.flip
        print(f"{pictures:,} pictures, {height} x {width}, channels {channels}", end="; ")
        print("half of them mirrored" if flip == "yes" else "not mirrored", end="; ")
        print(f"{len(self.run.classes)} classes" if self.run.classes else "no classes")
        if self.state.step:
            print(f"going on from {self.images:,} images")


def load_latest(run: Run, state: TrainState) -> int | None:
    """Take over the newest checkpoint that is whole, saying when a newer one is not. Returns its step; None at first.

    Raises InputError when there are checkpoints and none is whole: beginning anew would overwrite the run.
    """
    known = list_checkpoints(run.checkpoints)
    if not known:
        run.trim_log(0)
    for checkpoint in reversed(known):
        try:
            step = read_state(checkpoint)["step"]
            state.load(step, {stem: read_tensors(checkpoint, stem) for stem in STEMS})
            run.trim_log(step)
            return step
        except DamagedError as error:
            print(f"warning: {error}; looking for an older one", file=sys.stderr)
    if known:
        raise InputError(f"none of the {len(known)} checkpoints in {run.checkpoints} is whole; choose another --run")
    return None


def _tensorboard(run: Run, images: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError("--tensorboard needs a package: pip install 'bytepixels[tensorboard]'") from error
    return SummaryWriter(str(run.path / "tensorboard"), purge_step=images)
