"""sample RUN: new pictures from a trained run, by its own settings unless told otherwise."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..build import best_device, build_denoiser, build_network, build_process, build_sampler
from ..codec import PixelCodec
from ..errors import InputError, check_choice, check_range
from ..images import grid, save_gif, save_png, save_pngs
from ..progress import Progress
from ..randomness import MAX_SEED, SeededNoise
from ..runs.checkpoint import DamagedError, list_checkpoints, read_state, read_tensors
from ..runs.config import SampleConfig
from ..runs.directory import Run, make_folder, open_run, provenance, write_json
from ..samplers import trajectory
from ..training import evaluating, pure_noise

GIF_FRAMES, GIF_PICTURES = 60, 25
GRID_MOST = 400  # pictures in grid.png; the rest are in their own files


@dataclass(frozen=True)
class SampleRequest:
    """What to draw: everything that is not a setting of the sampler."""

    n: int = 16
    seed: int = 0
    label: str | None = None
    out: Path | None = None
    batch: int = 64
    gif: bool = False
    weights: Literal["ema", "model"] = "ema"
    checkpoint: str | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        check_range("-n", self.n, 1)
        check_range("--seed", self.seed, 0, MAX_SEED - self.n + 1)
        check_range("--batch", self.batch, 1)
        check_choice("--weights", self.weights, ("ema", "model"))


def sample_run(path: Path, overrides: Mapping[str, Any], request: SampleRequest) -> Path:
    """Draw request.n pictures into a folder and return it: seed-K.png each, grid.png, manifest.json.

    overrides: fields of SampleConfig that replace the run's own. Pictures are written batch by batch; an interruption
    leaves those that are done, with their grid and manifest.
    """
    run = open_run(path)
    settings, label = chosen_settings(run, overrides), find_label(run, request.label)
    device, checkpoint = best_device(request.device), find_checkpoint(run, request.checkpoint)
    network = load_network(run, checkpoint, request.weights, device)
    out = request.out or run.samples / _folder_name(settings, request)
    make_folder(out, "--out")
    seeds = range(request.seed, request.seed + request.n)
    first: list[Tensor] = []  # what the grid shows
    frames: list[Tensor] = []
    done = 0
    try:
        with Progress("sample", request.n * settings.steps, "steps") as progress:
            for start in range(0, request.n, request.batch):
                part = seeds[start : start + request.batch]
                watch = _watcher(progress, start, len(part), settings.steps, frames if request.gif else None)
                images = draw_pictures(network, run, settings, part, device, label, watch)
                save_pngs(images, [out / f"seed-{seed}.png" for seed in part])
                first += images[: max(0, GRID_MOST - done)]
                done += len(part)
    finally:
        if done:
            save_png(grid(torch.stack(first)), out / "grid.png")
            if frames:
                save_gif(frames, out / "denoising.gif")
            write_json(out / "manifest.json", _manifest(run, checkpoint, settings, request, seeds[:done], label))
    return out


def _folder_name(settings: SampleConfig, request: SampleRequest) -> str:
    """Says all that makes these pictures others than their neighbours."""
    parts = [settings.sampler, str(settings.steps)]
    parts += [settings.spacing] if settings.spacing != "trailing" else []
    parts += [f"eta-{settings.eta:g}"] if settings.eta else []
    parts += [f"guidance-{settings.guidance:g}"] if settings.guidance != 1 else []
    parts += [] if settings.clip else ["unclipped"]
    parts += [part for part in (request.label, request.checkpoint) if part]
    parts += [request.weights] if request.weights != "ema" else []
    return "-".join([*parts, "seed", str(request.seed)]).replace("/", "-")


def _watcher(
    progress: Progress, start: int, size: int, steps: int, frames: list[Tensor] | None
) -> Callable[[int, Tensor], None]:
    """Called with every state of one batch: moves the progress on, and keeps frames of the first batch."""
    every = max(1, steps // GIF_FRAMES)

    def watch(step: int, x: Tensor) -> None:
        if frames is not None and start == 0 and (step % every == 0 or step == steps):
            frames.append(grid(PixelCodec().to_images(x[:GIF_PICTURES]).cpu()))
        progress.update(start * steps + step * size, f"{start + size * (step == steps):,} pictures done")

    return watch


def _manifest(
    run: Run, checkpoint: Path, settings: SampleConfig, request: SampleRequest, seeds: Sequence[int], label: int | None
) -> dict[str, Any]:
    """How each picture was made."""
    labels = labels_of(run, seeds, label)
    pictures = [{"file": f"seed-{seed}.png", "seed": seed} for seed in seeds]
    return {
        "run": str(run.path),
        "checkpoint": checkpoint.name,
        "weights": request.weights,
        "settings": asdict(settings),
        "pictures": [p | ({"label": run.classes[labels[k]]} if labels else {}) for k, p in enumerate(pictures)],
        "made_by": provenance(),
    }


def chosen_settings(run: Run, overrides: Mapping[str, Any]) -> SampleConfig:
    """The run's own sampler settings with what was asked for instead. Another sampler drops the run's eta."""
    if "sampler" in overrides and overrides["sampler"] != run.config.sample.sampler:
        overrides = {"eta": 0.0, **overrides}
    settings = replace(run.config.sample, **overrides)
    check_range("--steps", settings.steps, 1, run.config.process.timesteps)
    if settings.guidance != 1 and not (run.classes and run.config.train.label_dropout > 0):
        raise InputError(f"--guidance {settings.guidance:g} needs class labels, and this run has none")
    return settings


def draw_pictures(
    network: nn.Module,
    run: Run,
    settings: SampleConfig,
    seeds: Sequence[int],
    device: torch.device,
    label: int | None = None,
    watch: Callable[[int, Tensor], None] = lambda step, x: None,
) -> Tensor:
    """uint8 [B, C, H, W], picture k a function of seeds[k] alone. watch(step, x_t) sees every state on the way."""
    process = build_process(run.config)
    levels = process.levels(settings.steps, settings.spacing)
    labels = labels_of(run, seeds, label)
    given = None if labels is None else torch.tensor(labels, device=device)
    denoise = build_denoiser(network, run.config, settings, process, given)
    noise = SeededNoise(seeds)
    x = pure_noise(torch.empty(len(seeds), *run.shape, device=device), levels[0], noise, process.sigma_data)
    with evaluating(network):
        watch(0, x)
        for step, state in enumerate(trajectory(x, levels, denoise, build_sampler(settings, process.T), noise), 1):
            x = state
            watch(step, x)
    return PixelCodec().to_images(x).cpu()


def find_checkpoint(run: Run, name: str | None) -> Path:
    """The named checkpoint, or the newest one that is whole."""
    known = list_checkpoints(run.checkpoints)
    if not known:
        raise InputError(f"{run.path} has no checkpoint yet: let it train for longer")
    if name is not None:
        path = run.checkpoints / check_choice("--checkpoint", name, [p.name for p in known])
        read_state(path)
        return path
    for path in reversed(known):
        try:
            read_state(path)
            return path
        except DamagedError as error:
            print(f"warning: {error}; looking for an older one", file=sys.stderr)
    raise InputError(f"none of the {len(known)} checkpoints in {run.checkpoints} is whole")


def load_network(run: Run, checkpoint: Path, weights: str, device: torch.device) -> nn.Module:
    """The run's network with the "ema" or "model" weights of a checkpoint."""
    network = build_network(run.config, run.shape, len(run.classes), device)
    network.load_state_dict(read_tensors(checkpoint, weights))
    return network.eval().requires_grad_(False)


def find_label(run: Run, label: str | None) -> int | None:
    """A class by name, or by number where no name is like it."""
    if label is None:
        return None
    if not run.classes:
        raise InputError(f"--label {label}: {run.path} was trained without labels")
    if label not in run.classes and label.isdecimal() and int(label) < len(run.classes):
        return int(label)
    return run.classes.index(check_choice("--label", label, run.classes))


def labels_of(run: Run, seeds: Sequence[int], label: int | None) -> list[int] | None:
    """The class of each picture: `label`, or the classes in turn (seed modulo their number); None without classes."""
    if not run.classes:
        return None
    return [seed % len(run.classes) if label is None else label for seed in seeds]
