"""Evaluate an autoencoder: the fidelity of its reconstructions, and their distance from the images."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from .. import events
from ..build import build_first_stage
from ..distributed.process_group import join, own_device
from ..errors import InputError
from ..events import Work
from ..hardware import best_device
from ..images import grid, save_png
from ..metrics.feature_cache import features_of
from ..metrics.features import title
from ..metrics.fidelity import fidelity, format_fidelity, reconstructed
from ..metrics.frechet import frechet_distance
from ..metrics.open_features import chosen_features
from ..metrics.sample_metrics import LADDER, frechet, ladder
from ..requests.evaluate import Quality
from ..runs.run_directory import Run, make_folder, provenance
from ..sampling.load_weights import load_checkpoint
from .summary import how_far, number
from .yardstick import ReferenceSet, open_reference_set

SHOWN = 16  # images in reconstructions.png


def evaluate_reconstruction(run: Run, request: Quality) -> dict[str, Any]:
    """Reconstruct, measure, print the card and record the numbers, which are returned ({} except on rank 0). InputError
    if that is impossible."""
    if request.sampling:
        flags = " and ".join(f"--{name}" for name in request.sampling)
        raise InputError(f"{run.path} is an autoencoder, which draws nothing: it has no use for {flags}")
    device = best_device(own_device(request.device))
    model = build_first_stage(run.config, run.shape, device)
    checkpoint = load_checkpoint(model, run, request.checkpoint, request.weights)
    with join(device) as world:
        yardstick = open_reference_set(run, chosen_features(request.features), request.source, request.reference, world)
        if world.rank > 0:
            return {}
        images, what = yardstick.others(request.n, request.seed)
        autoencoder = model.autoencoder.eval()
        with Work("reconstruct", len(images), "images") as progress:
            again = reconstructed(autoencoder, images, device, progress.update)
        found = fidelity(autoencoder, images, again, device)
        record = described(images, again, what, yardstick) | found
        record |= {"checkpoint": checkpoint.name, "weights": request.weights, "seed": request.seed}
        record |= {"asked_features": chosen_features(request.features), "made_by": provenance()}
        run.note_evaluation(record)
    make_folder(run.path / "evaluate", "RUN")
    shown = torch.cat([images[:SHOWN], again[:SHOWN]])
    save_png(grid(shown, len(shown) // 2), run.path / "evaluate" / "reconstructions.png")
    events.say(*card(record, found))
    return record


def described(images: Tensor, again: Tensor, what: str, yardstick: ReferenceSet) -> dict[str, Any]:
    """Distances of reconstructions uint8 [n, C, H, W] and, as their floor, of the images themselves."""
    features = yardstick.features

    def distance(shown: Tensor) -> dict[str, float]:
        value, interval = frechet(features_of(features, shown).features, yardstick.moments)
        return {"value": value, "interval": interval}

    rungs = dict[str, float]()
    with Work("measure", 2 + LADDER, "distances") as progress:
        own = distance(again)
        progress.update(1)
        floor = distance(images)
        for name, worse in ladder(images):
            progress.update(2 + len(rungs), name)
            rungs[name] = frechet_distance(features_of(features, worse).moments, yardstick.moments)
        progress.update(progress.total)
    return {
        "kind": "reconstruction",
        "frechet_distance": own["value"],
        "measures": {"frechet": own},
        "n": len(images),
        "of": what,
        "floor": {"of": what, "measures": {"frechet": floor}},
        "ladder": rungs,
        "features": {"name": features.name, "sha256": features.hash, "resize": features.resize},
        "reference": {"n": len(yardstick.reference), "sha256": yardstick.reference.hash, **yardstick.own.record()},
    }


def card(record: dict[str, Any], found: dict[str, float]) -> Iterator[str]:
    """Format the results as lines."""
    name, floor = title(record["features"]["name"]), record["floor"]["measures"]["frechet"]
    yield f"{format_fidelity(found, record['of'])}."
    yield f"{name}: reconstructions {number(record['measures']['frechet'])}, the images themselves {number(floor)}"
    yield how_far(record)
    yield "The scale: " + ", ".join(f"{name} {value:.3g}" for name, value in record["ladder"].items())
    yield f"{record['checkpoint']} ({record['weights']}); no model on its latents comes nearer than they do."
