"""The record: how near samples are to the data after so much processor time, ours beside the peers'.

    pip install --no-deps denoising-diffusion-pytorch einops && pip install diffusers
    OMP_NUM_THREADS=1 python -m bench.record emoji.zip --budget 10m --seeds 0 1 2
    python -m bench.record --table                              of what has been measured

Every contender trains in a process of its own and one thread for the same processor time, start-up counted, from images
that are packed already. Ours is `bytepixels train SOURCE --budget TIME` with its defaults (--flags adds to them),
except that its clock is the process' own. lucidrains is the loop of `Trainer` with the sizes of its documentation
(64 wide, batches of 32, two of them a step); diffusers is that of its unconditional training example. "same size" is a
network of as many weights as our `small` had at first, batches of 32, channels_last, fused optimisers, and bf16
where it is faster here. Samples: the average's weights, the same number, each by its own sampler in --steps steps
(several: a record for each). Distances: features of ImageNet (bytepixels[features]).
"""

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from bench.machine import machine
from bench.peers import Setting, _diffusers_network, _import_lucidrains, config_of
from bench.speedrun import spread
from bytepixels.config.units import seconds_of
from bytepixels.data import pack
from bytepixels.data.batches import Batches
from bytepixels.images import grid, save_png
from bytepixels.metrics.distances import kernel_distance
from bytepixels.metrics.feature_cache import MOST, features_of, reference_of
from bytepixels.metrics.imagenet import ImageNetFeatures
from bytepixels.metrics.sample_metrics import PAIRS, frechet
from bytepixels.runs.overview import read_log
from bytepixels.runs.run_directory import provenance
from bytepixels.training.ema import update_ema

CPU = torch.device("cpu")
WARMUP = 500  # steps, of diffusers' example


@dataclass
class Trained:
    """What a contender came to."""

    images: int  # seen
    weights: int
    seconds: float  # of the processor
    draw: Callable[[int, int], Tensor]  # number, steps -> uint8 [n, C, H, W]


@dataclass
class Peer:
    """A training step and a sampler of another library."""

    network: nn.Module
    batch: int  # images in a step
    loss: Callable[[Tensor], Tensor]  # of images in 0..1
    optimizer: torch.optim.Optimizer
    decay: Callable[[int], float]  # of the average, by the step
    every: int  # steps between two updates of the average
    draw: Callable[[nn.Module, int, int], Tensor]  # the average, number, steps -> in 0..1
    parts: int = 1  # batches in a step
    rate: Callable[[int, float], float] = lambda step, share: 1.0  # of the learning rate, by step and share of the time


def lucidrains(same: bool, size: int, bf16: bool) -> Peer:
    """Its network, loss, and the settings of its `Trainer`."""
    package = _import_lucidrains()
    widths: dict[str, Any] = {"dim": 32, "dim_mults": (1, 2, 4)} if same else {"dim": 64, "dim_mults": (1, 2, 4, 8)}
    network = package.Unet(**widths)
    diffusion = package.GaussianDiffusion(network, image_size=size, timesteps=1000)
    optimizer = torch.optim.Adam(network.parameters(), lr=8e-5, betas=(0.9, 0.99), fused=same)

    def draw(average: nn.Module, n: int, steps: int) -> Tensor:
        diffusion.model, diffusion.sampling_timesteps = average, steps
        return diffusion.ddim_sample((n, 3, size, size))

    def decay(step: int) -> float:  # ema_pytorch's default, from 100 updates on
        return 0.0 if step < 100 else min(0.995, 1 - (1 + step - 100) ** (-2 / 3))

    return Peer(network, 32, _cast(diffusion, bf16), optimizer, decay, 10, draw, parts=2)


def diffusers(same: bool, size: int, bf16: bool) -> Peer:
    """The network, loss and settings of its unconditional training example."""
    from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel

    if same:
        network = _diffusers_network(config_of(Setting("diffusers", "small", 32)))
    else:
        plain = ["DownBlock2D", "UpBlock2D"]
        network = UNet2DModel(
            sample_size=size,
            layers_per_block=2,
            block_out_channels=(128, 128, 256, 256, 512, 512),
            down_block_types=[plain[0]] * 4 + ["AttnDownBlock2D", plain[0]],
            up_block_types=[plain[1], "AttnUpBlock2D"] + [plain[1]] * 4,
        )
    scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear")
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8, fused=same
    )

    def loss(images: Tensor) -> Tensor:
        x0 = images * 2 - 1
        noise, t = torch.randn_like(x0), torch.randint(1000, (len(x0),))
        return nn.functional.mse_loss(network(scheduler.add_noise(x0, noise, t), t).sample.float(), noise)

    def draw(average: nn.Module, n: int, steps: int) -> Tensor:
        sampler, x = DDIMScheduler(num_train_timesteps=1000, beta_schedule="linear"), torch.randn(n, 3, size, size)
        sampler.set_timesteps(steps)
        for t in sampler.timesteps:
            x = sampler.step(average(x, t).sample, t, x).prev_sample
        return (x + 1) / 2

    def rate(step: int, share: float) -> float:
        return min(1.0, (step + 1) / WARMUP) * (1 + math.cos(math.pi * min(1.0, share))) / 2

    def decay(step: int) -> float:
        return min(0.9999, 1 - (1 + step) ** -0.75)

    return Peer(network, 32 if same else 16, _cast(loss, bf16), optimizer, decay, 1, draw, rate=rate)


def _cast(loss: Callable[[Tensor], Tensor], bf16: bool) -> Callable[[Tensor], Tensor]:
    def call(images: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return loss(images)

    return call


PEERS = {"lucidrains": lucidrains, "diffusers": diffusers}


def train_peer(name: str, same: bool, options: argparse.Namespace) -> Trained:
    """Train it until its time is up."""
    limit, packed = seconds_of(options.budget), packed_images(options)
    torch.manual_seed(options.seed)
    peer = PEERS[name](same, options.size, same and faster_in_bf16())
    if same:
        peer.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = PEERS[name](same, options.size, False).network.eval().requires_grad_(False)
    average.load_state_dict(peer.network.state_dict())
    batches = Batches(packed.images, None, peer.batch, options.seed, True, CPU)
    base, step = peer.optimizer.param_groups[0]["lr"], 0
    while (spent := time.process_time()) < limit:
        peer.optimizer.param_groups[0]["lr"] = base * peer.rate(step, spent / limit)
        for part in range(peer.parts):
            (peer.loss(batches(step * peer.parts + part)[0].float() / 255) / peer.parts).backward()
        nn.utils.clip_grad_norm_(peer.network.parameters(), 1.0)
        peer.optimizer.step()
        peer.optimizer.zero_grad()
        step += 1
        if step % peer.every == 0:
            update_ema(average, peer.network, peer.decay(step // peer.every))
    seconds = time.process_time()

    @torch.no_grad()
    def draw(n: int, steps: int) -> Tensor:
        torch.manual_seed(options.seed)
        parts = [peer.draw(average, min(100, n - k), steps) for k in range(0, n, 100)]
        return (torch.cat(parts).clamp(0, 1) * 255).round().to(torch.uint8)

    weights = sum(p.numel() for p in peer.network.parameters())
    return Trained(step * peer.batch * peer.parts, weights, seconds, draw)


def train_ours(options: argparse.Namespace) -> Trained:
    """`bytepixels train`, by the processor's clock."""
    time.monotonic = time.process_time
    from bytepixels.cli.main import main

    path = options.runs / f"{Path(options.source).stem}-{options.arm}-{options.budget}-{options.seed}".replace(" ", "-")
    line = ["train", options.source, "--budget", options.budget, "--seed", str(options.seed), "--previews", "0"]
    size = [str(options.size)] * 2
    if code := main([*line, "--size", *size, "--no-labels", "--run", str(path), *options.flags.split()]):
        raise SystemExit(code)
    seconds = time.process_time()
    from bytepixels.sampling.trained_model import TrainedModel

    model = TrainedModel.open(path, device=CPU)

    def draw(n: int, steps: int) -> Tensor:
        settings = model.settings(sampler="auto", spacing="auto", steps=steps)
        return torch.cat([model.draw(settings, range(k, min(k + 100, n))) for k in range(0, n, 100)])

    *_, last = read_log(path)
    return Trained(last["images"], sum(p.numel() for p in model.network.parameters()), seconds, draw)


def faster_in_bf16() -> bool:
    from bytepixels.training.autotune.precision import choose_precision

    return choose_precision("auto", CPU)[0] == "bf16"


def packed_images(options: argparse.Namespace) -> Any:
    return pack(options.source, size=(options.size, options.size), channels=3)


def measure(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Train one contender with one seed, and draw and measure in each number of steps."""
    kind, _, same = options.arm.partition(", ")
    trained = train_peer(kind, bool(same), options) if kind in PEERS else train_ours(options)
    packed, features, folder = packed_images(options), ImageNetFeatures(), options.runs / "features"
    reference = reference_of(features, packed.images, packed.meta["sha256"]["images"], folder, min(MOST, PAIRS))
    for steps in options.steps:
        before = time.process_time()
        images = trained.draw(options.n, steps)
        drawn = time.process_time() - before
        own = features_of(features, images).features
        name = f"{Path(options.source).stem}-{options.arm}-{options.budget}-{options.seed}-{steps}.png"
        save_png(grid(images[:64]), options.runs / name.replace(" ", "-"))
        yield record_of(options, trained, steps, drawn / options.n, features) | {
            "kernel": list(kernel_distance(own, reference.features)),
            "frechet": list(frechet(own, reference.moments)),
        }


def record_of(
    options: argparse.Namespace, trained: Trained, steps: int, drawing: float, features: ImageNetFeatures
) -> dict[str, Any]:
    """All that a record says but the distances. drawing: seconds a sample."""
    return {
        "source": Path(options.source).name,
        "arm": options.arm,
        "flags": options.flags,
        "size": options.size,
        "budget": options.budget,
        "seed": options.seed,
        "seconds": round(trained.seconds, 1),
        "images": trained.images,
        "weights": trained.weights,
        "n": options.n,
        "steps": steps,
        "drawing": round(drawing, 4),
        "features": {"name": features.name, "sha256": features.hash, "resize": features.resize},
        "machine": machine(CPU),
        "made_by": provenance(),
    }


def table(records: list[dict[str, Any]]) -> str:
    """Markdown: one line for each source, budget, contender and number of steps, over its seeds."""
    head = "source | budget | contender | weights | seeds | images seen | steps | kernel distance | Frechet distance"
    lines = [f"| {head} | s per sample |", "|---" * 10 + "|"]
    names = ("source", "size", "budget", "arm", "steps")
    keys = dict.fromkeys(tuple(r[name] for name in names) for r in records)
    for source, size, budget, arm, steps in keys:
        own = [r for r in records if tuple(r[name] for name in names) == (source, size, budget, arm, steps)]
        kernel, apart = ([r[kind][0] for r in own] for kind in ("kernel", "frechet"))
        seen = fmean(r["images"] for r in own)
        row = [f"{source}, {size} x {size}", budget, arm, f"{own[0]['weights'] / 1e6:.1f}M", str(len(own))]
        row += [f"{seen:,.0f}", str(steps), spread(kernel), spread(apart), f"{fmean(r['drawing'] for r in own):.2g}"]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", default="")
    every = ["bytepixels", *(arm for peer in PEERS for arm in (peer, f"{peer}, same size"))]
    parser.add_argument("--arms", nargs="+", default=every, help="names; those that are no peers' are ours")
    parser.add_argument("--flags", default="", help="more flags for ours, in one word")
    parser.add_argument("--budget", default="10m")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("-n", type=int, default=1000, help="samples")
    parser.add_argument("--steps", type=int, nargs="+", default=[50])
    parser.add_argument("--runs", type=Path, default=Path("runs/record"))
    parser.add_argument("--found", type=Path, default=Path("bench/record.jsonl"))
    parser.add_argument("--table", action="store_true", help="print what has been measured")
    parser.add_argument("--arm", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    if options.arm is not None:  # the process of one contender
        for record in measure(options):
            with options.found.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        return
    if not options.table:
        packed_images(options)
        for seed in options.seeds:
            for arm in options.arms:
                own = [*sys.argv[1:], "--arm", arm, "--seed", str(seed)]
                subprocess.run(
                    [sys.executable, "-m", "bench.record", *own], check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
                )
    print(table([json.loads(line) for line in options.found.read_text(encoding="utf-8").splitlines()]))


if __name__ == "__main__":
    main()
