"""One process training one run: the steps, and what happens between them (the log, checkpoints, grids of samples)."""

import math
import sys
import time
from contextlib import suppress
from pathlib import Path
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
from ..runs.checkpoint import STEMS, check_fit, list_checkpoints, read_state, read_tensors
from ..runs.directory import Run
from ..runs.files import DamagedError, write_json
from ..runs.writer import Writer
from ..signals import Stop, StoppedError
from ..train.distributed import CPU, World
from ..train.loop import Batch, StepResult, TrainState, total_steps, train_steps
from ..train.saving import ShardWriter, find_parts, take_parts
from .sample import draw_pictures, draw_together


class TrainingError(RuntimeError):
    """Training cannot go on; the run is intact up to its last checkpoint."""


class Trainer:
    """The state of one run and the work around each of its steps."""

    def __init__(self, run: Run, packed: Packed, world: World):
        self.run, self.config, self.world, self.device = run, run.config.train, world, world.device
        check_range("--batch on that many processes", self.config.batch, world.size)
        flip = run.config.data.flip == "yes"
        batch, seed = self.config.batch, self.config.seed
        self.batches = Batches(packed.images, packed.labels, batch, seed, flip, self.device, world.rows(batch))
        process, classes = build_process(run.config), len(run.classes)
        times = build_times(run.config, self.device)
        self.draw = build_draw(run.config, process, self.batches, classes, times)
        self.loss = build_loss(run.config, process, PixelCodec(), self.device, times)
        home = CPU if world.sharded else self.device  # which may not hold all of it
        network = build_network(run.config, run.shape, classes, home)
        self.state = TrainState.fresh(network, self.config, times, world)
        self.saved_step = world.decide(lambda: load_latest(run, self.state))
        if world.sharded:
            take_parts(run.checkpoints, run.id, self.state, self.saved_step)
        else:
            self.state.share()
        where = run.checkpoints, run.id, self.config.keep
        self.writer = ShardWriter(world, *where) if world.sharded else Writer(*where)
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
        with Progress("train", steps * self.config.batch, "images", self.images) as progress, self.writer:
            logged, saved, asked = began, began, 0
            for result in train_steps(self.state, self.take, self.loss, self.config):
                self.unread.append(result)
                progress.count(self.images)
                self.writer.check()
                now = time.monotonic()
                due = now - logged >= self.config.log_seconds, now - saved >= 60 * self.config.checkpoint_minutes
                log_due, save_due, asked = self.world.agree(*(self.leads and d for d in due), stop.signal)
                if log_due:
                    self.read(progress)
                    logged = now
                if result.step < steps:  # the last line comes when all is read and saved
                    progress.show(self.note)
                if save_due:
                    self.save(progress)
                    saved = time.monotonic()
                if asked:  # to stop, here or in another process
                    break
                if self.preview_due(result.step):
                    self.save(progress)  # a preview takes a while, and may fail: nothing is lost by it
                    self.writer.finish()
                    with suppress(StoppedError):  # the loop ends after the next step
                        self.preview(progress, stop)
            self.save(progress)
            self.writer.finish()
            progress.show(self.note)
        if self.board is not None:
            self.board.close()
        if asked and self.state.step < steps:
            print(f"stopped at {self.images:,} images; saved. The same command goes on from there.", file=sys.stderr)
            return 128 + asked
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
        """Have a checkpoint written, after making sure that the steps it would hold were finite."""
        self.read(progress)
        if self.state.step != self.saved_step:
            if self.leads or self.world.sharded:
                self.writer.submit(self.state.step, self.images, self.state.tensors())
            self.saved_step = self.state.step
            progress.pause()

    def preview_due(self, step: int) -> bool:
        """Whether this step completes one of the budget's equal parts."""
        parts, total = self.config.previews, total_steps(self.config)
        return step * parts // total > (step - 1) * parts // total

    def preview(self, progress: Progress, stop: Stop) -> None:
        """A grid of samples: raw weights on the left, their average on the right, from the same noise."""
        raw, average = (grid(self.drawn(network, stop)) for network in (self.state.model, self.state.ema))
        path = self.run.samples / f"images-{self.images:09d}.png"
        if self.leads:
            save_png(beside(raw, average), path)
        progress.say(f"samples at {self.images:,} images (raw weights left, their average right): {path}")
        progress.pause()

    def drawn(self, network: nn.Module, stop: Stop) -> Tensor:
        """The preview's pictures, uint8 [B, C, H, W]: every process draws its share. One alone stops when asked to."""
        watch = stop.watch if self.world.size == 1 else lambda step, x: None

        def draw(seeds: range) -> Tensor:
            return draw_pictures(network, self.run, self.run.config.sample, seeds, self.device, watch=watch)

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
    for checkpoint in reversed(known):
        try:
            _load(run, checkpoint, state)
            break
        except DamagedError as error:
            print(f"warning: {error}; looking for an older one", file=sys.stderr)
    else:
        if known:
            raise InputError(
                f"none of the {len(known)} checkpoints in {run.checkpoints} is whole; choose another --run"
            )
    if lost := run.trim_log(state.step):
        print(f"note: {run.path / 'log.jsonl'} had {lost} lines that cannot be read; they are gone", file=sys.stderr)
    return state.step if known else None


def _load(run: Run, checkpoint: Path, state: TrainState) -> None:
    """Take over one checkpoint; DamagedError when it is not one of this run's, whole."""
    if state.world.sharded:
        find_parts(checkpoint, run.id, state)
        return
    saved = read_state(checkpoint, run.id)
    tensors = {stem: read_tensors(checkpoint, stem, saved) for stem in STEMS}
    for stem in ("model", "ema"):
        check_fit(checkpoint, tensors[stem], state.model.state_dict())
    try:
        state.load(saved["step"], tensors)
    except KeyError as error:
        raise DamagedError(f"{checkpoint} is of another optimizer than the run's config.json") from error


def _tensorboard(run: Run, images: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError("--tensorboard needs a package: pip install 'bytepixels[tensorboard]'") from error
    return SummaryWriter(str(run.path / "tensorboard"), purge_step=images)
