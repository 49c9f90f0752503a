"""The fewest images, and minutes, to a fixed distance: variants of a preset trained in turn and measured on the way.

    python -m bench.speedrun cifar10 --features FOLDER --size 16 16 --variants "as it is" muon --seeds 0 1

Every variant is trained with every seed, seed by seed, as `train` does it, and measured at equal parts of its budget:
Frechet and kernel distance of the average's samples (the same seeds everywhere) from the training images, with their
95% intervals, beside the floor, which is the distance of as many held-out images. What is in the JSON is kept; the
same command goes on. Seconds are those of the run's log: training, and the one image that it draws at each point.
"""

import argparse
import json
import re
import statistics
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bench.machine import machine
from bytepixels.config.presets import PRESETS
from bytepixels.config.run import Config, own_settings
from bytepixels.core.samplers import best_sampler
from bytepixels.distributed.process_group import SINGLE_PROCESS
from bytepixels.errors import InputError
from bytepixels.evaluation.sample_quality import MatchedSampler
from bytepixels.evaluation.yardstick import ReferenceSet, open_reference_set
from bytepixels.hardware import best_device
from bytepixels.metrics.distances import kernel_distance
from bytepixels.metrics.feature_cache import features_of
from bytepixels.metrics.sample_metrics import PAIRS, frechet
from bytepixels.runs.checkpoints import list_checkpoints
from bytepixels.runs.overview import read_log
from bytepixels.runs.packing import pack_with_progress
from bytepixels.runs.run_directory import Run, open_run, provenance
from bytepixels.sampling.settings import chosen_settings
from bytepixels.sampling.trained_model import TrainedModel
from bytepixels.training.session import train

Changes = Mapping[str, Mapping[str, Any]]  # part of the config -> setting -> value
FLOW, MUON = {"diffusion": "flow", "times": "logit_normal"}, {"optimizer": "muon", "lr": 3e-3}
VARIANTS: Mapping[str, Changes] = {  # learning rates beside small's and speedrun's 1e-3
    "as it is": {},
    "lr x 2": {"train": {"lr": 2e-3}},
    "lr / 2": {"train": {"lr": 5e-4}},
    "edm": {"process": {"diffusion": "edm"}},
    "flow": {"process": FLOW},
    "min_snr": {"process": {"weighting": "min_snr"}},
    "sigmoid": {"process": {"weighting": "sigmoid"}},
    "adam": {"train": {"optimizer": "adam"}},
    "muon": {"train": {"optimizer": "muon"}},
    "muon, lr x 3": {"train": MUON},
    "muon, flow": {"train": MUON, "process": FLOW},
    "muon, sigmoid": {"train": MUON, "process": {"weighting": "sigmoid"}},
}


def variant(base: Config, name: str, images: int, points: int, seed: int) -> Config:
    """The preset for a budget of that many images, a twentieth of it warm-up, with a checkpoint at every point."""
    values = base.to_dict()
    values["train"] |= {"images": images, "warmup": images // 20, "seed": seed, "keep": points, "previews": points}
    values["train"] |= {"preview_images": 1, "checkpoint_minutes": 600, "log_seconds": 1.0}
    for part, changes in VARIANTS[name].items():
        values[part] |= changes
    return Config.from_dict(values)


def distances(run: Run, checkpoint: str, yardstick: ReferenceSet, n: int, steps: int) -> dict[str, list[float]]:
    """Frechet and kernel distance of n samples, each with half its 95% interval."""
    device = best_device("auto")
    painter = MatchedSampler(TrainedModel.open(run, checkpoint, device=device), SINGLE_PROCESS, yardstick.own.labels)
    settings = chosen_settings(run, {"sampler": best_sampler(steps)[0], "steps": steps})
    images, _ = painter.draw(settings, range(n), 250, float("inf"))
    return compared(images, yardstick)


def compared(images: torch.Tensor, yardstick: ReferenceSet) -> dict[str, list[float]]:
    """Of images uint8 [n, C, H, W]."""
    own = features_of(yardstick.features, images).features
    kernel = kernel_distance(own, yardstick.reference.features[:PAIRS])
    return {"frechet": list(frechet(own, yardstick.moments)), "kernel": list(kernel)}


def trained(source: str, config: Config, path: Path) -> tuple[Run, float | None]:
    """The finished run, and the processor seconds of its training; None where it was begun before."""
    pack_with_progress(source, config.data)  # not a part of any run
    fresh, began = not path.exists(), time.process_time()
    if code := train(source, config, path):
        raise SystemExit(code)
    return open_run(path), round(time.process_time() - began, 1) if fresh else None


def measured(run: Run, options: argparse.Namespace) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A record for every point of a run, and the floor."""
    yardstick = open_reference_set(run, options.features, None, 50_000, SINGLE_PROCESS)
    log, points = list(read_log(run.path)), []
    for checkpoint in list_checkpoints(run.checkpoints):
        images = int(checkpoint.name.removeprefix("step-")) * run.config.train.batch
        seconds = next(line["seconds"] for line in log if line["images"] >= images)
        found = distances(run, checkpoint.name, yardstick, options.n, options.steps)
        points.append({"images": images, "seconds": seconds, **found})
    others, what = yardstick.others(options.n, 0)
    return points, {"of": what, **compared(others, yardstick)}


def table(runs: list[dict[str, Any]]) -> str:
    """Markdown: for every variant the mean over seeds at every point, its extremes where there are several."""
    lines = ["| variant | seeds | images: Frechet distance | kernel | images/s |", "|---|---|---|---|---|"]
    for name in dict.fromkeys(run["variant"] for run in runs):
        own = [run for run in runs if run["variant"] == name]
        columns = zip(*(run["points"] for run in own), strict=True)
        ways = [f"{c[0]['images']:,}: {spread([point['frechet'][0] for point in c])}" for c in columns]
        kernel = spread([run["points"][-1]["kernel"][0] for run in own])
        rate = spread([run["points"][-1]["images"] / run["points"][-1]["seconds"] for run in own])
        lines.append(f"| {name} | {len(own)} | {', '.join(ways)} | {kernel} | {rate} |")
    return "\n".join(lines)


def reached(run: dict[str, Any], target: float) -> str:
    """When one run's Frechet distance was first at or below the target, as far as it was measured."""
    first = next((point for point in run["points"] if point["frechet"][0] <= target), None)
    when = "not reached" if first is None else f"{first['images']:,} images, {first['seconds'] / 60:.1f} min"
    return f"{run['variant']}, seed {run['seed']}: Frechet distance {target:g}: {when}"


def spread(values: list[float]) -> str:
    """The mean, and the extremes of several."""
    mean = f"{statistics.fmean(values):.3g}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.3g} to {max(values):.3g})"


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("--features", default="random", help="as for evaluate: a folder of evaluate train-features")
    parser.add_argument("--preset", default="small", choices=PRESETS)
    parser.add_argument("--variants", nargs="+", default=["as it is"], choices=VARIANTS)
    parser.add_argument("--images", type=int, default=16_000)
    parser.add_argument("--size", type=int, nargs=2, help="height and width; default: the preset's")
    parser.add_argument("--points", type=int, default=2, help="where each run is measured, the end included")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("-n", type=int, default=1000, help="samples at every point")
    parser.add_argument("--steps", type=int, default=10, help="of the sampler that is best for so many")
    parser.add_argument("--target", type=float, help="a Frechet distance: say when each run came to it")
    parser.add_argument("--runs", type=Path, default=Path("runs/speedrun"))
    parser.add_argument("--json", type=Path, default=Path("bench/speedrun.json"))
    return parser.parse_args()


def main() -> None:
    options = parsed()
    base = PRESETS[options.preset]()
    if options.size:
        base = replace(base, data=replace(base.data, size=tuple(options.size)))
    names = "preset", "images", "size", "points", "n", "steps", "features"
    asked = {name: getattr(options, name) for name in names}
    old = json.loads(options.json.read_text()) if options.json.exists() else {**asked, "runs": []}
    if different := [name for name in names if old[name] != asked[name]]:
        raise InputError(f"{options.json} was measured with another {', '.join(different)}; choose another --json")
    known, done = old["runs"], {(run["variant"], run["seed"]) for run in old["runs"]}
    for seed, name in ((seed, name) for seed in options.seeds for name in options.variants):
        if (name, seed) in done:
            continue
        config = variant(base, name, options.images, options.points, seed)
        run, cpu = trained(options.source, config, options.runs / f"{re.sub('[^a-z0-9]+', '-', name)}-{seed}")
        points, floor = measured(run, options)
        known.append({"variant": name, "seed": seed, "settings": own_settings(run.config, PRESETS[options.preset]())})
        known[-1] |= {"cpu_seconds": cpu, "points": points, "made_by": provenance()}
        record = asked | {"machine": machine(best_device("auto")), "floor": floor, "runs": known}
        options.json.write_text(json.dumps(record, indent=1) + "\n")
        print(table(known), flush=True)
    print(table(known))
    if options.target is not None:
        print(*(reached(run, options.target) for run in known), sep="\n")


if __name__ == "__main__":
    main()
