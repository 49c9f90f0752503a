"""The verbs evaluate bits and evaluate loss: bits per dimension, and the loss beside its optimum."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from .. import events
from ..core.denoiser import Denoiser, clipped
from ..core.gaussian_diffusion import GaussianDiffusion
from ..core.levels import Level
from ..core.losses import evaluating
from ..distributed.process_group import ProcessGroup, join
from ..errors import InputError, check_range
from ..events import Work
from ..metrics import bits_per_dim as bits_of
from ..metrics import loss_analysis as loss_of
from ..metrics import loss_report
from ..metrics.averages import rows_of
from ..metrics.optimal_denoiser import OptimalDenoiser, WienerDenoiser
from ..requests.evaluate import Evaluate
from ..runs.image_sets import ImageSet, held_out_set, other_set, source_of, training_set
from ..runs.origin import absolute
from ..runs.run_directory import Run, make_folder, provenance
from ..sampling.load_weights import open_model
from ..sampling.trained_model import TrainedModel
from .loss_data import drawn_x0, known_of

LEVELS = 24  # noise levels of --loss


@dataclass(frozen=True)
class Measurement:
    """One checkpoint of a run, opened for measurement in float32, whatever its training precision."""

    model: TrainedModel
    request: Evaluate
    denoiser: Denoiser  # without labels
    world: ProcessGroup  # its processes measure their shares of the images

    def share(self, n: int) -> tuple[slice, Callable[[Tensor], Tensor]]:
        """The share of n images that this rank measures, and a function that gathers [..., share] to [..., n]."""
        check_range("-n on that many processes", n, self.world.size)
        return self.world.local_rows(n), lambda part: self.world.gather(part.movedim(-1, 0), n).movedim(0, -1)

    @property
    def run(self) -> Run:
        """The run of the model."""
        return self.model.run

    @property
    def checkpoint(self) -> str | None:
        """The name of the checkpoint."""
        return self.model.checkpoint_name

    def record(self, kind: str, values: dict[str, Any]) -> dict[str, Any]:
        """Append one line to RUN/eval.jsonl and return it; {} except on rank 0."""
        if self.world.rank > 0:
            return {}
        made = {"checkpoint": self.checkpoint, "weights": self.request.weights, "seed": self.request.seed}
        record = {"kind": kind, **values, **made, "precision": "float32", "made_by": provenance()}
        self.run.note_evaluation(record)
        return record

    def file(self, name: str) -> Path:
        """A path in RUN/evaluate."""
        make_folder(self.run.path / "evaluate", "RUN")
        return self.run.path / "evaluate" / name

    @property
    def title(self) -> str:
        return f"{self.run.path.name}, {self.checkpoint}, {self.request.weights} weights"


def evaluate(request: Evaluate) -> list[dict[str, Any]]:
    """Measure a run, print the results and return the records. InputError if that is impossible."""
    run = open_model(request.run)
    if request.bits and "first_stage" in run.data:
        raise InputError(f"--bits are of pixels, and {run.path} models latents; --loss is of both")
    model = TrainedModel.open(run, request.checkpoint, request.weights, request.device)
    with join(model.device) as world, evaluating(model.network):
        subject = Measurement(model, request, model.denoiser(exact=True), world)
        found = [evaluate_bits(subject, run_set(run, request))] if request.bits else []
        return [*found, evaluate_loss(subject)] if request.loss else found


def run_set(run: Run, request: Evaluate) -> ImageSet:
    """The requested images; by default the test split of the run's own source, else its training images."""
    source = request.source or source_of(run)
    if request.split is not None:
        return other_set(run, source, request.split)
    if request.source is not None and absolute(request.source) != run.data["source"]:
        return held_out_set(run, source) or other_set(run, source, run.config.data.split)
    return held_out_set(run) or training_set(run)


def evaluate_bits(subject: Measurement, images: ImageSet) -> dict[str, Any]:
    """Measure, print and record the bits per dimension of `images`."""
    request, plan = subject.request, bits_plan(subject)
    x0, label = images.choose(request.n or 64, request.seed, subject.model.device)
    seeds = range(request.seed, request.seed + len(x0))
    events.say(f"{len(x0)} images of {images.name}{'' if label is None else ', each with its label'}")
    with Work("bits", len(x0) * plan.evaluations, "evaluations") as progress:
        own, gather = subject.share(len(x0))
        count = counter(progress, subject.world.size)
        part = bits_of.measure_bits(subject.denoiser, plan, x0[own], rows_of(label, own), seeds[own], count)
    bits = bits_of.gathered(part, gather)
    found = bits_of.numbers(bits)
    events.say(*bits_of.table(found))
    chain = f"chain of {len(plan.levels) - 1} steps{', x0 clipped' if plan.clip else ''}" if plan.levels else ""
    ode = f"ODE of {plan.ode_steps} RK4 steps, {plan.probes} probes, dequantised by {plan.dequantisation}"
    how = "; ".join(part for part in (chain, ode if plan.ode_steps else "") if part)
    events.say(f"{subject.title}; {how}; {plan.evaluations:,} evaluations an image")
    settings: dict[str, Any] = {
        "steps": len(plan.levels) - 1 if plan.levels else None,
        "clip": plan.clip,
        "ode_steps": plan.ode_steps,
    }
    settings |= {"probes": plan.probes, "dequantisation": plan.dequantisation, "evaluations": plan.evaluations}
    record = subject.record("bits", {"bits_per_dimension": found, "n": len(x0), "data": images.record(), **settings})
    if bits.bounds and subject.world.rank == 0:
        bits_of.plot_terms(bits, plan.levels, subject.title, subject.file("bits.png"))
        events.say(subject.file("bits.png"))
    return record


def bits_plan(subject: Measurement) -> bits_of.BitsPlan:
    """The chain and the ODE to measure. Only DDPM has a chain; InputError if nothing is left."""
    request, process, config = subject.request, subject.model.process, subject.run.config
    learned = config.process.variance == "learned"
    if isinstance(process, GaussianDiffusion) and request.steps is not None:
        check_range("--steps", request.steps, 1, process.T)
    levels = process.levels(request.steps) if isinstance(process, GaussianDiffusion) else []
    if not levels:
        if request.steps is not None or request.ode_steps == 0:
            raise InputError(
                f"{config.process.diffusion} has no chain to bound: leave --steps out, --ode-steps above 0"
            )
        events.say(f"{config.process.diffusion} has no chain of steps to bound: by the ODE alone")
    return bits_of.BitsPlan(
        process,
        levels,
        ("learned",) if learned else ("small", "large"),
        request.ode_steps,
        request.probes,
        request.dequantisation,
        request.batch,
        config.sample.clip,
    )


def evaluate_loss(subject: Measurement) -> dict[str, Any]:
    """Measure, print and record where the run lies between the trivial guess and its training set's optimum."""
    request, run = subject.request, subject.run
    own = training_set(run, request.source)
    other = held_out_set(run, request.source) if request.split is None else other_set(run, own.source, request.split)
    if other is not None and other.trained_on:
        raise InputError(f"--loss compares with held-out images, but the run was trained on split {request.split}")
    sets = [one for one in (own, other) if one is not None]
    to_model = partial(drawn_x0, codec=subject.model.codec, seed=request.seed)
    chosen = [one.choose(request.n or 256, request.seed, subject.model.device, to_model) for one in sets]
    known = known_of(run, own, subject.model.codec, subject.world, subject.model.device)
    trivial, levels = WienerDenoiser(known, subject.model.device), loss_of.levels_of(subject.model.process, LEVELS)
    ideals = [OptimalDenoiser(known, trivial.mean), None]  # only for the images that it is the ideal of
    measured: list[loss_of.Errors] = []
    with Work("loss", sum(len(x0) for x0, _ in chosen) * len(levels), "evaluations") as progress:
        count, predict = counter(progress, subject.world.size), predictor(subject)
        for (x0, label), ideal in zip(chosen, ideals, strict=False):
            rows, gather = subject.share(len(x0))
            seeds, mine = range(request.seed, request.seed + len(x0))[rows], rows_of(label, rows)
            part = loss_of.measure_errors(predict, trivial, ideal, levels, x0[rows], mine, seeds, request.batch, count)
            measured.append(loss_of.gathered(part, gather))
    for one, (x0, _) in zip(sets, chosen, strict=True):
        events.say(f"{len(x0)} images of {one.name}")
    training, held_out = measured[0], measured[1] if other is not None else None
    verdict = loss_of.loss_verdict(training, held_out)
    events.say(*loss_report.sentences(levels, verdict, held_out is not None))
    found = loss_report.numbers(levels, training, held_out, verdict)
    data = [one.record() | {"n": len(x0)} for one, (x0, _) in zip(sets, chosen, strict=True)]
    record = subject.record("loss", {**found, "data": data, "clip": run.config.sample.clip})
    if subject.world.rank == 0:
        loss_report.plot_errors(found, subject.title, subject.file("loss.png"))
        events.say(subject.file("loss.png"))
    return record


def predictor(subject: Measurement) -> loss_of.Predict:
    """The run's estimate of x0, clipped if its sampler clips."""

    def predict(x: Tensor, level: Level, label: Tensor | None) -> Tensor:
        denoise = replace(subject.denoiser, label=label)
        return (clipped(denoise, *subject.model.codec.bounds) if subject.run.config.sample.clip else denoise)(x, level)

    return predict


def counter(progress: Work, processes: int) -> Callable[[int], None]:
    """Advance and show the progress, assuming that the other ranks are as far as this one."""
    done = 0

    def count(images: int) -> None:
        nonlocal done
        done += images * processes
        progress.update(done)

    return count
