"""The verb compare: samplers x step counts on one checkpoint, by quality, network evaluations and seconds."""

import math
from typing import Any

from torch import Tensor

from .. import events
from ..config.sampling import SampleConfig
from ..distributed.process_group import join
from ..metrics.distances import kernel_distance
from ..metrics.feature_cache import features_of
from ..metrics.features import title
from ..metrics.frechet import Moments, frechet_distance, frechet_without, merged, split_rows, too_few
from ..metrics.open_features import chosen_features
from ..metrics.sample_metrics import PAIRS, PARTS
from ..requests.evaluate import STEPS, Compare
from ..runs.run_directory import make_folder, provenance
from ..sampling.conditioning import text_rows
from ..sampling.load_weights import open_model
from ..sampling.settings import chosen_settings
from ..sampling.trained_model import TrainedModel
from ..wording import many
from .compare_rows import Row, plot, table
from .sample_quality import MatchedSampler
from .yardstick import ReferenceSet, open_reference_set


def compare(request: Compare) -> dict[str, Any]:
    """Draw with every sampler and number of steps, measure, print the table, and keep the results even if interrupted;
    returns the record ({} except on rank 0)."""
    run = open_model(request.run)
    most = run.config.process.timesteps if run.config.process.diffusion == "ddpm" else max(STEPS)
    steps = sorted(request.steps or [n for n in STEPS if n <= most] or [most])
    pairs = [{"sampler": sampler, "spacing": spacing} for sampler in request.samplers for spacing in request.spacings]
    plan = [chosen_settings(run, {**pair, "steps": n}) for pair in pairs for n in steps]
    model = TrainedModel.open(run, request.checkpoint, request.weights, request.device)
    rows: list[Row] = []
    record: dict[str, Any] = {}
    with join(model.device) as world:
        yardstick = open_reference_set(run, chosen_features(request.features), request.source, request.reference, world)
        told = yardstick.own.labels, text_rows(run, yardstick.own.packed, model.device)
        painter = MatchedSampler(model, world, *told)
        others, what = yardstick.others(request.n, request.seed)
        floor = measured_row(others, yardstick, SampleConfig(), 0.0)
        try:
            for k, settings in enumerate(plan):
                name = f"{k + 1} of {len(plan)}: {settings.sampler} {settings.steps}"
                seeds = range(request.seed, request.seed + request.n)
                images, took = painter.draw(settings, seeds, request.batch, math.inf, name)
                rows.append(measured_row(images, yardstick, settings, took / request.n))
        except KeyboardInterrupt as error:
            if rows:
                error.add_note(
                    f"{len(rows)} of {many(len(plan), 'row')} kept, which bytepixels report {run.path} shows"
                )
            raise
        finally:
            if rows and world.rank == 0:
                record = keep(request, painter, yardstick, rows, floor, what)
    events.say(*table(rows, floor, what, title(yardstick.features.name), request.n))
    if warning := too_few(request.n, len(yardstick.moments.mean)):
        events.say(f"warning: {warning}")
    if world.rank == 0:
        make_folder(run.path / "evaluate", "RUN")
        path = run.path / "evaluate" / "compare.png"
        plot(rows, floor, what, title(yardstick.features.name), f"{run.path.name}, n = {request.n}", path)
        events.say(path)
    return record


def measured_row(images: Tensor, yardstick: ReferenceSet, settings: SampleConfig, seconds: float) -> Row:
    """Measure both distances of images uint8 [n, C, H, W]."""
    vectors = features_of(yardstick.features, images).features
    parts = [Moments.of(vectors[rows]) for rows in split_rows(len(vectors), PARTS)]
    kernel = kernel_distance(vectors, yardstick.reference.features[:PAIRS])
    value = frechet_distance(merged(parts), yardstick.moments)
    return Row(settings, value, frechet_without(parts, yardstick.moments), kernel, seconds)


def keep(
    request: Compare, painter: MatchedSampler, yardstick: ReferenceSet, rows: list[Row], floor: Row, what: str
) -> dict[str, Any]:
    """Append one line to eval.jsonl."""
    features, reference = yardstick.features, yardstick.reference
    values = floor.record()
    record = {
        "kind": "compare",
        "rows": [row.record() for row in rows],
        "floor": {"of": what, "frechet": values["frechet"], "kernel": values["kernel"]},
        "n": request.n,
        "features": {"name": features.name, "sha256": features.hash, "resize": features.resize},
        "reference": {"n": len(reference), "sha256": reference.hash, **yardstick.own.record()},
        "seed": request.seed,
        "checkpoint": painter.model.checkpoint_name,
        "weights": request.weights,
        "made_by": provenance(),
    }
    painter.model.run.note_evaluation(record)
    return record
