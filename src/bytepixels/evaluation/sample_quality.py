"""Evaluate samples of a run beside its training and held-out images: a card, and a line of RUN/eval.jsonl."""

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import events
from ..build import build_process
from ..config.sampling import SampleConfig
from ..config.units import seconds_of
from ..distributed.process_group import ProcessGroup, join
from ..events import Work
from ..metrics.drift import Drift, drift, image_statistics
from ..metrics.feature_cache import FeatureSet, features_of
from ..metrics.frechet import frechet_distance, too_few
from ..metrics.open_features import chosen_features
from ..metrics.sample_metrics import LEAST, Measures, frechet, inception_measures, ladder, measure
from ..randomness import LABELS, seeded
from ..registries import sampler_facts
from ..requests.evaluate import Quality
from ..runs.run_directory import Run, provenance
from ..sampling.conditioning import text_rows
from ..sampling.draw import draw_together
from ..sampling.load_weights import open_model
from ..sampling.settings import chosen_settings
from ..sampling.trained_model import TrainedModel
from ..text import TextRows
from .copying import CopyReport, draw_neighbours, look_for_copies
from .summary import card
from .yardstick import ReferenceSet, open_reference_set


@dataclass(frozen=True)
class MatchedSampler:
    """Draws samples with classes and captions in the proportions of the training images."""

    model: TrainedModel
    world: ProcessGroup
    labels: Tensor | None  # of the training images: samples have classes as often as those
    texts: TextRows | None = None  # of the training images: samples have captions like theirs

    def draw(
        self, settings: SampleConfig, seeds: range, batch: int, budget: float, what: str = "sample"
    ) -> tuple[Tensor, float]:
        """Draw images uint8 [n, C, H, W] of all seeds, or as many as there is time for; and the seconds spent."""
        began, drawn, steps = time.monotonic(), [], settings.steps
        rows = self._rows(len(seeds), seeds.start)
        labels = None if self.labels is None else self.labels[rows].tolist()
        with Work(what, len(seeds) * steps, "steps") as progress:
            for start in range(0, len(seeds), batch * self.world.size):
                part = seeds[start : start + batch * self.world.size]

                def draw(own: range, first: int = seeds.start) -> Tensor:
                    which = slice(own.start - first, own.stop - first)
                    label = None if labels is None else labels[which]
                    text = None if self.texts is None else self.texts(rows[which].numpy())
                    return self.model.draw(settings, own, label, text)

                drawn.append(draw_together(self.world, part, self.model.run.shape, draw))
                done = start + len(part)
                progress.update(done * steps, f"{done:,} images")
                if self.world.all_max(int(done >= LEAST and time.monotonic() - began > budget))[0]:
                    break
        return torch.cat(drawn), time.monotonic() - began

    def _rows(self, count: int, seed: int) -> Tensor:
        """Positions of the training images that give the samples their labels and captions."""
        return torch.randint(self.model.run.data["count"], (count,), generator=seeded(seed, LABELS))


def evaluate_quality(request: Quality) -> dict[str, Any]:
    """Draw, measure, print the card and record the numbers, which are returned ({} except on rank 0). InputError if
    that is impossible."""
    run = open_model(request.run)
    settings = chosen_settings(run, request.sampling)
    model = TrainedModel.open(run, request.checkpoint, request.weights, request.device)
    device = model.device
    with join(device) as world:
        yardstick = open_reference_set(run, chosen_features(request.features), request.source, request.reference, world)
        told = yardstick.own.labels, text_rows(run, yardstick.own.packed, device)
        painter = MatchedSampler(model, world, *told)
        seeds = range(request.seed, request.seed + request.n)
        images, took = painter.draw(settings, seeds, request.batch, seconds_of(request.budget))
        if world.rank > 0:
            return {}
        if len(images) < request.n:
            events.say(f"note: --budget {request.budget} was used up after {len(images):,} of {request.n:,} samples")
        found = judge(images, yardstick, run, request, device)
        if "first_stage" in run.data:
            found["first_stage"] = through_first_stage(yardstick, model, len(images), request.seed)
        record = {**found, **made_with(settings, painter, request), "seconds": round(took, 2)}
        run.note_evaluation(record)
    events.say(*card(record))
    return record


def judge(images: Tensor, yardstick: ReferenceSet, run: Run, request: Quality, device: torch.device) -> dict[str, Any]:
    """Compute the full record of samples uint8 [n, C, H, W], as eval.jsonl holds it."""
    features, others = yardstick.features, yardstick.others(len(images), request.seed)
    with Work("measure", 4, "parts") as progress:
        progress.update(0, "distances")
        samples, floor = features_of(features, images), features_of(features, others[0])
        measures = measured(samples, yardstick)
        best = measured(floor, yardstick)
        progress.update(1, "the ladder")
        rungs = {
            name: frechet_distance(features_of(features, worse).moments, yardstick.moments)
            for name, worse in ladder(others[0])
        }
        progress.update(2, "copies")
        process, flip = build_process(run.config), run.config.data.flip == "yes"
        copying = look_for_copies(images, yardstick, process, flip, device, request.seed)
        progress.update(3, "drift")
        known = samples.probabilities is not None and features.name != "inception"
        data = (samples.probabilities, floor.probabilities) if known else (None, None)
        drifts = drift(image_statistics(images, data[0]), image_statistics(others[0], data[1]), request.seed)
        progress.update(4)
    draw_neighbours(images, copying, yardstick, run)
    return described(measures, best, others[1], rungs, copying, drifts, yardstick, len(images), samples)


def through_first_stage(yardstick: ReferenceSet, model: TrainedModel, n: int, seed: int) -> dict[str, float]:
    """The Frechet distance of the floor's images after the run's autoencoder, and half its 95% interval: the best that
    its samples could reach."""
    codec, (images, _) = model.codec, yardstick.others(n, seed)
    again = codec.to_images(codec.to_model(images.to(model.device))).cpu()
    value, interval = frechet(features_of(yardstick.features, again).features, yardstick.moments)
    return {"value": value, "interval": interval}


def measured(samples: FeatureSet, yardstick: ReferenceSet) -> Measures:
    """Compute every distance of a set from the reference, and its Inception score if it has one."""
    found = measure(samples, yardstick.reference, yardstick.moments)
    return found | inception_measures(samples) if yardstick.features.name == "inception" else found


def described(
    measures: Measures,
    floor: Measures,
    what: str,
    rungs: dict[str, float],
    copying: CopyReport,
    drifts: list[Drift],
    yardstick: ReferenceSet,
    n: int,
    samples: FeatureSet,
) -> dict[str, Any]:
    """Assemble the results as one record."""
    features = yardstick.features
    return {
        "kind": "quality",
        "frechet_distance": measures["frechet"]["value"],
        "measures": measures,
        "n": n,
        "floor": {"of": what, "measures": floor},
        "ladder": rungs,
        "warning": too_few(*samples.features.shape),
        "features": {"name": features.name, "sha256": features.hash, "resize": features.resize},
        "reference": {"n": len(yardstick.reference), "sha256": yardstick.reference.hash, **yardstick.own.record()},
        "copies": copying.record(),
        "drift": [
            {"name": d.name, "samples": d.samples, "data": d.data, "half": d.half, "outside": d.outside} for d in drifts
        ],
    }


def made_with(settings: SampleConfig, painter: MatchedSampler, request: Quality) -> dict[str, Any]:
    """Record how the samples were drawn."""
    return {
        "sampler": settings.sampler,
        "spacing": settings.spacing,
        "steps": settings.steps,
        "guidance": settings.guidance,
        "evaluations": evaluations(settings),
        "seed": request.seed,
        "asked_features": chosen_features(request.features),
        "checkpoint": painter.model.checkpoint_name,
        "weights": request.weights,
        "made_by": provenance(),
    }


def evaluations(settings: SampleConfig) -> int:
    """Network evaluations per image."""
    once = 2 * settings.steps - 1 if sampler_facts(settings.sampler).evaluations == 2 else settings.steps
    return once * (2 if settings.guidance != 1 else 1)
