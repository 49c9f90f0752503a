"""Train one run: the steps, and the log, checkpoints and sample grids between them."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import torch
from torch import Tensor

from .. import events
from ..config.training import TrainConfig
from ..config.units import seconds_of
from ..distributed.process_group import CPU, ProcessGroup
from ..errors import check_range
from ..events import Work, duration
from ..images import save_png
from ..runs.checkpoint_writer import Writer
from ..runs.checkpoints import list_checkpoints
from ..runs.overview import read_log
from ..runs.packing import used_up
from ..runs.run_directory import Run
from ..stopping import Stop, StoppedError
from ..wording import many
from .diffusion_task import Task
from .forecast import SOON, forecast
from .loggers import numbers_of, open_loggers
from .loop import Batch, StepResult, TrainState, total_steps, train_steps
from .micro_batch import largest_micro_batch
from .nonfinite import MOST_SKIPPED, NonfiniteBatch, nonfinite_error
from .pretrained import take_weights
from .previews import Preview, Previews
from .resume import load_latest
from .sharded_checkpoints import ShardWriter, take_parts
from .time_budget import GOOD_STEPS, LEAST_STEPS, TimeBudget, extended


class Trainer:
    """The state of one run and the work around each of its steps."""

    def __init__(
        self,
        run: Run,
        task: Task,
        world: ProcessGroup,
        began: float | None = None,
        resumes: Callable[[], bool] = lambda: True,
    ):
        """began: start of the command, by time.monotonic(), from which a time budget counts. resumes: whether process 0
        holds the run, and may go on with what lies there; else another process may be beginning it just now."""
        self.run, self.config, self.world, self.device = run, run.config.train, world, world.device
        check_range("--batch on that many processes", self.config.batch, world.size)
        self.task = task
        home = CPU if world.sharded else self.device  # which may not hold all of it
        network = task.network(home)
        if "from" in run.data and not list_checkpoints(run.checkpoints):
            take_weights(network, run)
        self.state = TrainState.fresh(network, self.config, task.memory, world)
        self.saved_step = world.broadcast_from_rank0(lambda: load_latest(run, self.state) if resumes() else None)
        if world.sharded:
            take_parts(run.checkpoints, run.id, self.state, self.saved_step)
        else:
            self.state.share()
        where = run.checkpoints, run.id, self.config.keep
        self.writer = ShardWriter(world, *where) if world.sharded else Writer(*where)
        self.unread: list[StepResult] = []
        self.prefetched: dict[int, Batch] = {}  # drawn before its step
        self.times: dict[int, Tensor | None] = {}  # of the steps in hand: those by importance cannot be drawn again
        self.skipped = self.skipped_in_a_row = 0
        self.note, self.warned, self.forecast_said = "", False, False
        self.loggers = open_loggers(run, self.config, self.images) if self.leads else []
        self.spent, rate = world.broadcast_from_rank0(lambda: _spent(run))
        self.began = time.monotonic() if began is None else began
        self.limit = None if self.config.budget is None else seconds_of(self.config.budget)  # seconds
        self.budget: TimeBudget | None = None
        if self.limit is not None:
            self._begin_budget(self.limit, rate)
        previews, images = self.config.previews, self.config.preview_images
        self.previews = Previews(previews, images, task.steps, task.passes, self.share)
        if not self.done:
            self._fit_memory()

    def _begin_budget(self, limit: float, rate: float) -> None:
        """Start the time budget; when resuming with a larger one, add the images that fit into the extra time."""
        budget = TimeBudget(limit, self.spent, self.images, self.began)
        if not self.saved_step and self.world.all_max(int(budget.left <= 0))[0]:
            raise used_up(str(self.config.budget), limit - budget.left)
        self.budget = budget if self.leads else None
        if self.done and self.saved_step:
            images = extended(limit, self.spent, self.images, rate)
            self._replace_config(replace(self.config, images=max(self.images, images)))

    def _fit_memory(self) -> None:
        """Choose smaller micro-batches where a batch does not fit in memory; the batch stays what it is."""
        most = -(-self.config.batch // self.world.size)
        micro = min(self.config.micro_batch or most, most)
        batch = self.prefetched[self.state.step] = self.task.draw(self.state.step)
        fits = largest_micro_batch(self.state, self.task.trial, batch, micro) if micro > 1 else 1
        fits = -self.world.all_max(-fits)[0]  # the least of all processes
        if fits < micro:
            self._replace_config(replace(self.config, micro_batch=fits))
            events.say(
                f"note: a batch of {micro} does not fit in memory; using micro-batches of {fits} (--micro-batch)"
            )

    def _replace_config(self, config: TrainConfig) -> None:
        """Replace the run's training settings by some that turned out along the way."""
        self.config, self.task.budget = config, config.images
        self.run = replace(self.run, config=replace(self.run.config, train=self.config))

    @property
    def leads(self) -> bool:
        """True in the process that writes the run."""
        return self.world.rank == 0

    @property
    def images(self) -> int:
        """Images seen so far."""
        return self.state.step * self.config.batch

    @property
    def total(self) -> int:
        """Images seen at the end of the budget, whose last batch may go a little over it."""
        return total_steps(self.config) * self.config.batch

    @property
    def share(self) -> float:
        """The share of the budget that is used up, 0 to 1."""
        return min(1.0, self.images / self.total)

    @property
    def done(self) -> bool:
        """True when the budget is used up."""
        return self.images >= self.total

    def seconds(self, rate: float) -> float:
        """Seconds that this session takes in all, from its beginning to its end; `rate`: training images per second."""
        if self.limit is not None:
            return self.limit - self.spent
        return time.monotonic() - self.began + ((self.total - self.images) / rate if rate else 0.0)

    def take(self, step: int) -> Batch:
        """Draw the batch of one step; its times are kept until its loss has been read."""
        batch = self.prefetched.pop(step) if step in self.prefetched else self.task.draw(step)
        self.times[step] = self.task.times(batch)
        return batch

    def fit(self, stop: Stop) -> int:
        """Train to the end of the budget or until asked to stop, and save. Returns 0 or the signal's number."""
        logged = saved = time.monotonic()
        asked = 0
        self._greet()
        limit = None if self.limit is None else (self.began - self.spent, self.limit)
        with Work("train", self.total, "images", self.images, limit=limit) as progress, self.writer:
            for result in train_steps(self.state, self.take, self.task.loss, lambda: self.config):
                self.unread.append(result)
                progress.count(self.images)
                self.say_forecast(progress)
                self.writer.check()
                now = time.monotonic()
                due = now - logged >= self.config.log_seconds, now - saved >= self.pause_between_checkpoints(progress)
                images = self.new_budget(progress)
                due_preview = self.due_preview(images or self.config.images, progress)
                log_due, save_due, asked, images, *preview = self.world.all_max(
                    *(self.leads and d for d in due), stop.signal, images, *due_preview
                )
                if images:
                    self._replace_budget(images, progress)
                if log_due:
                    self.read(progress)
                    logged = now
                if not self.done:  # the last line comes when all is read and saved
                    progress.show(self.note)
                if save_due:
                    self.save(progress)
                    saved = time.monotonic()
                if asked:  # to stop, here or in another process
                    break
                if any(preview):
                    with suppress(StoppedError):  # the loop ends after the next step
                        self.preview(Preview(*preview), progress, stop)
            self.save(progress)
            self.writer.finish()
            progress.show(self.note)
        return self.end(asked)

    def end(self, asked: int) -> int:
        """Print how the training ended; returns 0 or the number of the signal that stopped it."""
        for logger in self.loggers:
            logger.close()
        if self.skipped:
            events.note(f"{many(self.skipped, 'step')} skipped: the loss or its gradient was not finite")
        if asked and not self.done:
            events.note(f"stopped at {self.images:,} images; saved. Repeat the command to resume.")
            return asked
        events.say(f"done in {duration(time.monotonic() - self.began)}: {self.run.path}")
        events.say(self.task.then)
        return 0

    def say_forecast(self, progress: Work) -> None:
        """Print once, after the first seconds, how long the training will take, unless the budget is a time."""
        if self.forecast_said or self.limit is not None or self.done:
            return
        if progress.recent[-1][0] - progress.recent[0][0] >= SOON and len(progress.recent) > 2:
            self.forecast_said = True
            events.note(forecast(self.total - self.images, progress.rate, self.device))

    def new_budget(self, progress: Work) -> int:
        """The updated budget in images under a time budget, or 0 if no update is due."""
        if self.budget is None:
            return 0
        reserved = self.previews.rest(self.share, self.seconds(progress.rate), progress.rate)
        return self.budget.images(self.images, reserved)

    def pause_between_checkpoints(self, progress: Work) -> float:
        """Seconds from one checkpoint to the next."""
        if self.config.checkpoint_minutes is not None:
            return 60 * self.config.checkpoint_minutes
        return min(600.0, max(15.0, self.seconds(progress.rate) / 10))

    def _replace_budget(self, images: int, progress: Work) -> None:
        """Set the budget in images to what fits into the time, in the run's settings too."""
        self._replace_config(replace(self.config, images=images))
        if self.leads:
            self.run.save()
        progress.total = self.total
        settled = self.budget is not None and self.budget.looks > 1  # the first steps are slow ones
        if settled and self.limit and not self.warned and (steps := total_steps(self.config)) < LEAST_STEPS:
            self.warned = True
            needed = duration(GOOD_STEPS / steps * self.limit)
            what = f"note: --budget {self.config.budget} is time for {many(steps, 'step')} of {self.config.batch}"
            events.note(f"{what} images here, too few to learn from; about {GOOD_STEPS:,} show shapes, so {needed}")

    def read(self, progress: Work) -> None:
        """Read the results of the steps since the last time: one read from the device, one line of log.jsonl."""
        results, self.unread = self.unread, []
        if not results:
            return
        means = self.world.sum(torch.stack([r.losses.sum() for r in results])) / self.config.batch
        figures = torch.stack([means, torch.stack([r.grad_norm for r in results])], dim=1).cpu()  # [steps, 2]
        finite = figures.isfinite().all(dim=1)
        self._check_finite(results, finite.tolist())
        self.times.clear()
        record = {"step": results[-1].step, "images": self.images, "lr": results[-1].lr}
        record |= {"images_per_second": round(progress.rate, 2)}
        if finite.any():
            loss, grad_norm = figures[finite].double().mean(dim=0).tolist()
            record |= {"loss": loss, "grad_norm": grad_norm}
            self.note = f"loss {loss:.4f}  grad {grad_norm:.3f}"
        if skipped := len(results) - int(finite.sum()):
            record["skipped"] = skipped
        for logger in self.loggers:
            logger.numbers(numbers_of(record), self.images)
        now = {"time": round(time.time(), 2), "seconds": round(self.spent + time.monotonic() - self.began, 2)}
        if self.leads:
            self.run.log(record | now)

    def _check_finite(self, results: list[StepResult], finite: list[bool]) -> None:
        """Count the steps whose loss was not finite; raise at one that may not be left out, or at too many in a row."""
        for result, good in zip(results, finite, strict=True):
            self.skipped_in_a_row = 0 if good else self.skipped_in_a_row + 1
            self.skipped += not good
            if not good and (self.config.on_nonfinite == "stop" or self.skipped_in_a_row == MOST_SKIPPED):
                step = result.step - 1
                culprits = NonfiniteBatch(self.task.indices(step).tolist(), self.times[step], self.config.seed)
                raise nonfinite_error(self.run.path, self.world, result, culprits)

    def save(self, progress: Work) -> None:
        """Submit a checkpoint, after checking that the steps in it were finite."""
        self.read(progress)
        if self.state.step != self.saved_step:
            if self.leads or self.world.sharded:
                self.writer.submit(self.state.step, self.images, self.state.tensors())
            self.saved_step = self.state.step
            progress.pause()

    def due_preview(self, budget: int, progress: Work) -> Preview:
        """The grid to draw now, with 0 images if none is due; `budget` in images."""
        steps = total_steps(replace(self.config, images=budget))
        before, done = (min(1.0, step / steps) for step in (self.state.step - 1, self.state.step))
        preview = self.previews.due(before, done, self.seconds(progress.rate), progress.rate) if self.leads else None
        return preview or Preview(0, 0)

    def preview(self, preview: Preview, progress: Work, stop: Stop) -> None:
        """Draw a preview grid and measure it if asked. Saves first, since this takes time and may fail."""
        before = time.monotonic()
        self.save(progress)
        self.writer.finish()
        began = time.monotonic()
        shown = self.task.preview(self.state, stop, preview.images, preview.steps)
        self.previews.note(preview, self.share, time.monotonic() - began)
        path = self.run.samples / f"images-{self.images:09d}.png"
        if self.leads:
            save_png(shown, path)
            for logger in self.loggers:
                logger.grid(shown, self.images)
        events.note(f"{self.task.what} at {self.images:,} images ({self.task.which}): {path}")
        if self.config.measure:
            found, said = self.task.measure(self.state, stop, self.config.measure)
            if self.leads:
                checkpoint = f"step-{self.state.step:08d}"
                self.run.note_evaluation(found | {"images": self.images, "checkpoint": checkpoint, "weights": "ema"})
                events.note(f"at {self.images:,} images: {said}")
                for logger in self.loggers:
                    logger.numbers(numbers_of(found), self.images)
        if self.budget is not None:
            self.budget.aside += time.monotonic() - before
        progress.pause()

    def _greet(self) -> None:
        size = sum(p.numel() for p in self.state.model.parameters())
        images, passes = self.run.data["count"], self.total / self.run.data["count"]
        one = ", one step" if self.total == self.config.batch else ""  # --images may ask for less
        length = f"training on {self.total:,} images{one} ({passes:,.{0 if passes >= 10 else 1}f} passes over the data)"
        if self.limit is not None:
            length = f"training for {duration(self.limit)}"
        events.say(f"{self.run.path}: {size:,} weights, {self.config.precision} on {self.device}; {length}")
        if (begun := self.run.data.get("from")) and not self.state.step:
            events.say(f"starting from the EMA weights of {begun['run']}, {begun['checkpoint']}")
        (channels, height, width), flip = self.run.shape, self.run.config.data.flip
        data = [f"{many(images, 'image')} of {height} x {width}, {many(channels, 'channel')}"]
        if (x0 := self.run.x0_shape) != self.run.shape:
            data.append(f"latents of {x0[1]} x {x0[2]}, {many(x0[0], 'channel')}")
        data.append(f"random horizontal flips {'on' if flip == 'yes' else 'off'}")
        told = [many(len(self.run.classes), "class", "classes")] if self.run.classes else []
        told += ["captions"] if self.run.text else []
        events.say("; ".join([*data, " and ".join(told) or "unconditional"]))
        if self.state.step:
            events.say(f"resuming at {self.images:,} images")


def _spent(run: Run) -> tuple[float, float]:
    """Seconds that earlier sessions trained, and images per second at the end of the last one."""
    *_, last = {}, *read_log(run.path, tail=1 << 16)
    return float(last.get("seconds", 0.0)), float(last.get("images_per_second", 0.0))
