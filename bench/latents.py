"""Does diffusion cost less on latents? The same images, network and seconds, on pixels and on latents of f 2, 4, 8.

    python -m bench.latents IMAGES --sizes 64 --arms pixel f2 f4 f8 --seconds 1000 --seeds 0 1
    python -m bench.latents                the tables, of what has been measured

Every arm has the same budget: processor seconds, those of its first stage and of encoding included; so use one thread
(OMP_NUM_THREADS=1). On a card, seconds by the clock, with nothing else running. As many images as fit are reckoned from
a measured step. The learning rate is the best of --lrs in short runs, for each arm, which count for none. The averages'
samples (the same seeds everywhere) are measured at equal parts of the training against all training images: Frechet
and kernel distance, random features. The floor of an arm is the distance of real images (held-out ones where SOURCE
has some) that went through its autoencoder; of pixels, that of the images alone.

Each arm has a file, written after every piece; the same command goes on, and several processes may take several arms.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median
from tempfile import TemporaryDirectory
from typing import Any

import torch

from bench.machine import count_flops, machine
from bench.speedrun import compared, spread, trained
from bytepixels.build import at_precision, build_first_stage, build_network
from bytepixels.codec.codec import encoder_of
from bytepixels.codec.latent_cache import store_latents
from bytepixels.config.autoencoder import AutoencoderConfig
from bytepixels.config.data import DataConfig
from bytepixels.config.presets import autoencoder_config, small
from bytepixels.config.run import Config
from bytepixels.config.sampling import SampleConfig
from bytepixels.core.samplers import best_sampler
from bytepixels.distributed.process_group import SINGLE_PROCESS
from bytepixels.errors import InputError
from bytepixels.evaluation.sample_quality import MatchedSampler
from bytepixels.evaluation.yardstick import ReferenceSet, open_reference_set
from bytepixels.hardware import best_device, wait_for
from bytepixels.metrics.fidelity import fidelity, reconstructed
from bytepixels.runs.checkpoints import list_checkpoints
from bytepixels.runs.overview import read_log
from bytepixels.runs.packing import pack_with_progress
from bytepixels.runs.run_directory import Run, provenance
from bytepixels.sampling.first_stage import encode, find_first_stage
from bytepixels.sampling.trained_model import TrainedModel
from bytepixels.training.autotune.precision import choose_precision
from bytepixels.training.optimizers import adam

ARMS = {"pixel": 1, "f2": 2, "f4": 4, "f8": 8}
ASKED = ("seconds", "first_images", "tune_seconds", "lrs", "width", "points", "n", "steps")  # one arm has one of each
Record = dict[str, Any]


class Arm:
    """One arm at one size: what it is made of, and the file of what is known of it."""

    def __init__(self, name: str, size: int, options: argparse.Namespace):
        self.name, self.factor, self.options = name, ARMS[name], options
        self.device = best_device(options.device)
        on_cpu = self.device.type == "cpu"
        self.clock = time.process_time if on_cpu else time.perf_counter
        self.precision = "float32" if on_cpu else choose_precision("auto", self.device)[0]
        self.runs = options.runs / f"{size}-{name}"
        self.file = options.found / f"latents-{size}-{name}.json"
        self.data = DataConfig(size=(size, size), channels=3, flip="no")
        asked = {flag: getattr(options, flag) for flag in ASKED} | {"source": Path(options.source).name}
        whole = {"asked": asked, "machine": machine(self.device)}  # seconds of two machines have no place in one file
        fresh: Record = {"arm": name, "size": size, **whole, "tuning": [], "runs": []}
        self.known: Record = json.loads(self.file.read_text()) if self.file.exists() else fresh
        before = {key: self.known[key] for key in whole}
        if before != whole:
            raise InputError(f"{self.file} was measured with {before}; take another --found")

    def keep(self) -> None:
        self.known["made_by"] = provenance()
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text(json.dumps(self.known, indent=1) + "\n")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of what the network sees."""
        side = self.known["size"] // self.factor
        return (3 if self.factor == 1 else 4), side, side

    def config(self, images: int, lr: float, seed: int, points: int) -> Config:
        """Of a diffusion run."""
        base = small()
        train = replace(base.train, images=images, batch=32, lr=lr, seed=seed)
        train = replace(train, warmup=images // 20, ema_half_life=images // 20)
        train = replace(train, **self.watched(points))
        first = None if self.factor == 1 else str(self.runs / "autoencoder")
        network = replace(base.network, width=self.options.width)
        return replace(base, data=self.data, network=network, train=train, first_stage=first)

    def first_config(self) -> Config:
        """Of the autoencoder."""
        images = self.options.first_images
        train = replace(autoencoder_config().train, images=images, batch=8, lr=1e-3, warmup=images // 20)
        train = replace(train, ema_half_life=images // 20, **self.watched(1))
        stage = AutoencoderConfig(factor=self.factor, width=16, blocks=1, attention=False)
        return replace(autoencoder_config(), data=self.data, autoencoder=stage, train=train)

    def watched(self, points: int) -> Record:
        """Train settings: a checkpoint at every point, and next to nothing else."""
        few: Record = {"precision": self.precision, "compile": "no", "keep": points, "previews": points}
        return few | {
            "preview_images": 1,
            "checkpoint_minutes": 600.0,
            "log_seconds": 1.0,
            "device": str(self.device),
        }

    def train(self, source: str, config: Config, name: str) -> tuple[Run, float]:
        """The finished run, and the seconds of its training. InputError where it was begun before."""
        run, took = trained(source, config, self.runs / name)
        if took is None:
            raise InputError(f"{run.path} was begun before: its seconds are not known; remove it")
        return run, took if self.device.type == "cpu" else list(read_log(run.path))[-1]["seconds"]

    def yardstick(self, run: Run) -> ReferenceSet:
        return open_reference_set(run, "random", None, 50_000, replace(SINGLE_PROCESS, device=self.device))


def step_cost(
    make: Callable[[], torch.Tensor], weights: list[torch.nn.Parameter], batch: int, clock: Callable[[], float]
) -> tuple[float, float]:
    """Seconds and operations per image of a step: forward, backward, Adam."""
    optimizer, seconds = adam(weights, 1e-4, 0.0), []
    for _ in range(6):
        began = clock()
        make().backward()
        optimizer.step()
        optimizer.zero_grad()
        wait_for(weights[0].device)
        seconds.append(clock() - began)
    return median(seconds[2:]) / batch, count_flops(lambda: make().backward()) / batch


def network_cost(arm: Arm) -> Record:
    """What one image costs the diffusion model."""
    config = arm.config(1000, 1e-3, 0, 1)
    network = build_network(config, arm.shape, 0, arm.device)
    call = at_precision(network, config, arm.device)
    x = torch.randn(config.train.batch, *arm.shape, device=arm.device)
    t, weights = torch.full((len(x),), 500.0, device=arm.device), list(network.parameters())
    seconds, flops = step_cost(lambda: call(x, t).square().mean(), weights, len(x), arm.clock)
    return {"weights": sum(p.numel() for p in weights), "seconds": seconds, "flops": flops}


def first_stage(arm: Arm, source: str) -> Record:
    """Train the autoencoder and encode all images: what both cost, and what is left of the images."""
    config = arm.first_config()
    run, trained_in = arm.train(source, config, "autoencoder")
    autoencoder, packed = find_first_stage(run.path, arm.device), pack_with_progress(source, arm.data)
    with TemporaryDirectory() as empty:  # in the cache they may lie already
        began = arm.clock()
        store_latents(packed, encoder_of(autoencoder, arm.device), "timed", False, cache=Path(empty))
        cost = {"images": config.train.images, "seconds": trained_in, "encode_seconds": round(arm.clock() - began, 1)}
    encode(packed, autoencoder, False, arm.device)
    model, x = build_first_stage(config, run.shape, arm.device), torch.randn(8, *run.shape, device=arm.device)
    flops = count_flops(lambda: model.autoencoder(x).square().mean().backward()) / len(x)
    cost["flops"] = flops * (config.train.images + len(packed) / 6)  # the encoder alone, forward
    yardstick = arm.yardstick(run)
    images = yardstick.others(arm.options.n, 0)[0]
    again = reconstructed(autoencoder, images, arm.device)
    left = fidelity(autoencoder, images, again, arm.device)
    return {**cost, **left, **compared(again, yardstick)}


def measured(arm: Arm, run: Run, checkpoint: str, yardstick: ReferenceSet) -> Record:
    """Distances of n samples of a checkpoint, and the seconds of each, decoding included."""
    options = arm.options
    model = TrainedModel.open(run, checkpoint, device=arm.device)
    painter = MatchedSampler(model, SINGLE_PROCESS, yardstick.own.labels)
    settings = replace(SampleConfig(), sampler=best_sampler(options.steps)[0], steps=options.steps)
    began = arm.clock()
    images, _ = painter.draw(settings, range(options.n), 64, float("inf"))
    drawn = (arm.clock() - began) / options.n
    return {"seconds_per_sample": drawn, **compared(images, yardstick)}


def tuned(arm: Arm, source: str) -> float:
    """The learning rate whose short run came nearest."""
    images = steps_for(arm.options.tune_seconds / arm.known["cost"]["seconds"])
    for lr in arm.options.lrs:
        if lr not in [one["lr"] for one in arm.known["tuning"]]:
            run, _ = trained(source, arm.config(images, lr, 0, 1), arm.runs / f"lr-{lr:g}")
            found = measured(arm, run, list_checkpoints(run.checkpoints)[-1].name, arm.yardstick(run))
            arm.known["tuning"].append({"lr": lr, "images": images, **found})
            arm.keep()
    return min(arm.known["tuning"], key=lambda one: one["frechet"][0])["lr"]


def steps_for(images: float) -> int:
    """Whole batches of 32, two at least."""
    return max(2, math.floor(images / 32)) * 32


def full_run(arm: Arm, source: str, lr: float, seed: int) -> None:
    """Train with what the first stage left of the budget, and measure at every point."""
    options, cost, first = arm.options, arm.known["cost"], arm.known.get("first", {})
    spent = first.get("seconds", 0.0) + first.get("encode_seconds", 0.0)
    if spent >= options.seconds:
        raise InputError(f"--seconds {options.seconds:g} is less than the first stage of {arm.name} took, {spent:.0f}")
    images = steps_for((options.seconds - spent) / cost["seconds"])
    run, took = arm.train(source, arm.config(images, lr, seed, options.points), f"seed-{seed}")
    yardstick, points = arm.yardstick(run), list[Record]()
    for checkpoint in list_checkpoints(run.checkpoints):
        seen = int(checkpoint.name.removeprefix("step-")) * run.config.train.batch
        own = {"images": seen, "seconds": round(spent + took * seen / images, 1)}
        points.append(own | measured(arm, run, checkpoint.name, yardstick))
    if arm.factor == 1:
        arm.known["floor"] = compared(yardstick.others(options.n, 0)[0], yardstick)
    arm.known["runs"].append({"seed": seed, "lr": lr, "training_seconds": took, "points": points})
    arm.keep()


def work(arm: Arm, source: str) -> None:
    """Every piece of an arm that is missing."""
    if "cost" not in arm.known:
        arm.known["cost"] = network_cost(arm)
        arm.keep()
    if arm.factor > 1 and "first" not in arm.known:
        arm.known["first"] = first_stage(arm, source)
        arm.keep()
    lr = tuned(arm, source)
    for seed in arm.options.seeds:
        if seed not in [run["seed"] for run in arm.known["runs"]]:
            full_run(arm, source, lr, seed)


def table(arms: list[Record]) -> Iterator[str]:
    """Markdown, one line per arm of a size. TFLOP: of a whole run, its first stage and encoding included."""
    yield "| arm | first stage, floor | lr | GFLOP / image | images | TFLOP | s: Frechet | kernel | s / sample |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for arm in arms:
        if not arm["runs"]:
            continue
        first, last = arm.get("first"), [run["points"][-1] for run in arm["runs"]]
        floor = (first or arm["floor"])["frechet"][0]
        spent = "" if first is None else f"{first['seconds'] + first['encode_seconds']:.0f} s, {first['psnr']:.1f} dB, "
        ways = [f"{seconds:.0f}: {spread(values)}" for seconds, values in curve(arm)]
        kernel, drawn = (spread([p["kernel"][0] for p in last]), fmean(p["seconds_per_sample"] for p in last))
        columns = [arm["arm"], f"{spent}{floor:.3g}", f"{arm['runs'][0]['lr']:g}", f"{arm['cost']['flops'] / 1e9:.2f}"]
        operations = arm["cost"]["flops"] * last[0]["images"] + (first or {"flops": 0})["flops"]
        columns += [f"{last[0]['images']:,}", f"{operations / 1e12:.1f}", "; ".join(ways), kernel, f"{drawn:.3f}"]
        yield f"| {' | '.join(columns)} |"


def curve(arm: Record) -> list[tuple[float, list[float]]]:
    """Of every point: mean seconds, and the seeds' Frechet distances."""
    columns = zip(*(run["points"] for run in arm["runs"]), strict=True)
    return [(fmean(p["seconds"] for p in c), [p["frechet"][0] for p in c]) for c in columns]


def reached(arm: Record, target: float) -> float | None:
    """Seconds to a distance, along a straight line in the logarithm between points; None where it is not reached."""
    before: tuple[float, float] | None = None
    for seconds, values in curve(arm):
        here = fmean(values)
        if here <= target:
            if before is None:
                return seconds
            share = math.log(before[1] / target) / math.log(before[1] / here)
            return before[0] + share * (seconds - before[0])
        before = seconds, here
    return None


def pays(pixel: Record, arm: Record) -> str:
    """When an arm comes to where pixels ended, and how many runs share its first stage until it costs less."""
    end, values = curve(pixel)[-1]
    when, first = reached(arm, fmean(values)), arm["first"]
    own = first["seconds"] + first["encode_seconds"]
    where = f"{arm['arm']}: pixels' {fmean(values):.3g} of {end:.0f} s"
    if when is None:
        return f"{where} is not reached in {curve(arm)[-1][0]:.0f} s"
    alone = when - own
    runs = f"pays from run {max(1, math.ceil(own / (end - alone)))} on" if alone < end else "never pays"
    return f"{where} after {when:.0f} s, {alone:.0f} s of them its own training: {runs}"


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", help="none: show what has been measured")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seconds", type=float, default=1000, help="of every run, first stage and encoding included")
    parser.add_argument("--first-images", type=int, default=8000, help="that the autoencoder sees")
    parser.add_argument("--tune-seconds", type=float, default=100, help="of every short run")
    parser.add_argument("--lrs", type=float, nargs="+", default=[5e-4, 1e-3, 2e-3])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--width", type=int, default=16, help="of the U-Net: small's otherwise")
    parser.add_argument("--points", type=int, default=3, help="where each run is measured, the end included")
    parser.add_argument("-n", type=int, default=500, help="samples at every point")
    parser.add_argument("--steps", type=int, default=10, help="of the sampler that is best for so many")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--runs", type=Path, default=Path("runs/latents"))
    parser.add_argument("--found", type=Path, default=Path("bench"), help="the folder of the arms' files")
    return parser.parse_args()


def main() -> None:
    options = parsed()
    if options.source is not None:
        for size, name in ((size, name) for size in options.sizes for name in options.arms):
            work(Arm(name, size, options), options.source)
    known = [json.loads(path.read_text()) for path in sorted(options.found.glob("latents-*.json"))]
    for size in sorted({arm["size"] for arm in known}):
        own = sorted((arm for arm in known if arm["size"] == size), key=lambda arm: ARMS[arm["arm"]])
        print(f"\n{size} x {size}\n", *table(own), "", sep="\n")
        finished = [arm for arm in own if arm["runs"]]
        if finished and finished[0]["arm"] == "pixel":
            print(*(pays(finished[0], arm) for arm in finished[1:]), sep="\n")


if __name__ == "__main__":
    main()
