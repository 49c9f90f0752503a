"""sample RUN: new pictures from a trained run, by its own settings unless told otherwise."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import events
from ..build import build_network, build_process
from ..codec.codec import Codec
from ..config.run import SampleConfig, check_steps
from ..core.losses import evaluating, pure_noise
from ..core.samplers import trajectory
from ..distributed.process_group import World, join, own_device
from ..errors import InputError
from ..events import Work
from ..files import write_json
from ..hardware import best_device
from ..images import grid, save_extra, save_gif, save_png, save_pngs
from ..randomness import SeededNoise
from ..requests.sample import SampleRequest
from ..runs.labels import find_label as label_of
from ..runs.run_directory import Run, make_folder, provenance
from ..wording import many
from .compiled import Compiled, choose_network
from .conditioning import Text, prompt_name, prompts_of, text_of
from .first_stage import codec_of
from .settings import build_denoiser, build_sampling, resolved_sampling
from .trained_model import find_checkpoint as find_checkpoint
from .trained_model import load_checkpoint, load_weights, open_model

Watch = Callable[[int, Tensor], None]  # (step, x_t): every state on the way

GIF_FRAMES, GIF_PICTURES, GIF_PIXELS = 60, 25, 1 << 21
OTHER_FILES = (".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic")
GRID_CLASSES = 20  # most classes, drawn in turn, that get a column each in grid.png
GRID_MOST = 400  # pictures in grid.png; the rest are in their own files
NOISE = ("diffusion", "timesteps", "schedule", "zero_terminal_snr")  # settings that decide the noise at every t
GUIDING = ("guidance_interval", "guidance_rescale")  # settings that say how to guide, and nothing without --guidance


def sample_run(path: Path, overrides: Mapping[str, Any], request: SampleRequest) -> Path:
    """Draw request.n pictures into a folder and return it: seed-K.png each, grid.png, manifest.json.

    overrides: fields of SampleConfig that replace the run's own. Pictures are written batch by batch; an interruption
    leaves those that are done, with their grid and manifest.
    """
    run = open_model(path)
    settings = chosen_settings(run, overrides, weak=request.weak is not None)
    label, device = find_label(run, request.label), best_device(own_device(request.device))
    text_of(run, [], request.prompt, device)  # refuses it before anything is written
    network, checkpoint = open_network(run, request.checkpoint, request.weights, device)
    weak = None if request.weak is None else load_weak(run, request.weak, device)
    out = request.out or run.samples / _folder_name(settings, request)
    make_folder(out, "--out")
    steps = f"{many(settings.steps, 'step')}, {settings.spacing} spacing"
    events.say(f"Sampling with {settings.sampler}, {steps}, {weights_name(request.weights, checkpoint)}")
    network, codec = choose_network(network, run, settings, request, device), codec_of(run, device)
    seeds = range(request.seed, request.seed + request.n)
    first, frames, done = list[Tensor](), list[Tensor](), 0  # what the grid and the animation show, of how many
    try:
        with join(device) as world, Work("sample", request.n * settings.steps, "image steps") as progress:
            for start in range(0, request.n, request.batch * world.size):
                part = seeds[start : start + request.batch * world.size]
                watch = _watcher(progress, start, part, request, settings.steps, frames, codec)

                def draw(own: range, watch: Watch = watch) -> Tensor:
                    text = text_of(run, own, request.prompt, device)
                    return draw_pictures(network, run, settings, own, device, label, watch, weak, text)

                images = draw_together(world, part, run.shape, draw)
                if world.rank == 0:
                    save_pngs(images, [out / f"seed-{seed}.png" for seed in part])
                    first += images[: max(0, GRID_MOST - done)]
                    done += len(part)
                    progress.kept = f"{done:,} of {many(request.n, 'image')} kept in {out}"
    finally:
        if done:
            manifest = _manifest(run, checkpoint, settings, request, seeds[:done], label)
            write_manifest(out, manifest | {"compiled": isinstance(network, Compiled)})
            in_turn = label is None and run.text is None and 1 < len(run.classes) <= min(len(first), GRID_CLASSES)
            columns = len(run.classes) if in_turn else None
            save_extra(out / "grid.png", lambda path: save_png(grid(torch.stack(first), columns), path))
            if frames:
                save_extra(out / "denoising.gif", lambda path: save_gif(frames, path))
    return out


def weights_name(weights: str, checkpoint: Path) -> str:
    """ "averaged (EMA) weights of step 582", for a person."""
    kind = "averaged (EMA)" if weights == "ema" else "raw"
    return f"{kind} weights of step {int(checkpoint.name.removeprefix('step-')):,}"


def png_of(out: Path | None) -> Path | None:
    """The file that --out names; None where it names a folder. InputError for a kind of file that is not written."""
    if out is None or out.is_dir() or out.suffix.lower() not in (".png", *OTHER_FILES):
        return None
    if out.suffix.lower() != ".png":
        raise InputError(f"--out {out}: images are written as .png; try --out {out.with_suffix('.png')}, or a folder")
    make_folder(out.parent, "--out")
    return out


def copy_to(png: Path, folder: Path) -> str:
    """Copy the only image of a folder, or the grid of several, and its manifest to where --out says. What was done."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    files = [one["file"] for one in manifest["pictures"]]
    shutil.copyfile(folder / (files[0] if len(files) == 1 else "grid.png"), png)
    beside = png.with_suffix(".manifest.json")
    write_json(beside, manifest | {"folder": str(folder)})
    what = "the image" if len(files) == 1 else f"a grid of the {len(files):,} images"
    return f"{png}: {what}; {beside}: how it was made; everything is in {folder}"


def weak_name(weak: Path) -> str:
    """Of a run, or of a run and its checkpoint."""
    return f"{weak.parent.parent.name}-{weak.name}" if weak.parent.name == "checkpoints" else weak.name


def draw_together(world: World, seeds: range, shape: tuple[int, int, int], draw: Callable[[range], Tensor]) -> Tensor:
    """uint8 [B, C, H, W] of these seeds, everywhere; every process draws its share of them."""
    own = seeds[world.rows(len(seeds))]
    if own:
        drawn = draw(own)
    else:  # a sharded network needs everybody, all the same
        drawn = draw(seeds[:1])[:0] if world.sharded else torch.empty(0, *shape, dtype=torch.uint8)
    return world.gather(drawn, len(seeds))


def _folder_name(settings: SampleConfig, request: SampleRequest) -> str:
    """Says all that makes these pictures others than their neighbours."""
    parts = [settings.sampler, str(settings.steps)]
    parts += [settings.spacing] if settings.spacing != "trailing" else []
    parts += [settings.reverse_variance] if settings.reverse_variance != "auto" else []
    numbers = {"eta": settings.eta, "churn": settings.churn, "rescale": settings.guidance_rescale}
    parts += [f"{name}-{value:g}" for name, value in numbers.items() if value]
    parts += [f"guidance-{settings.guidance:g}"] if settings.guidance != 1 else []
    parts += ["in-{:g}-{:g}".format(*settings.guidance_interval)] if settings.guidance_interval else []
    parts += [f"weak-{weak_name(request.weak)}"] if request.weak else []
    parts += [] if settings.clip else ["unclipped"]
    parts += [part for part in (request.label, prompt_name(request.prompt), request.checkpoint) if part]
    parts += [request.weights] if request.weights != "ema" else []
    return "-".join([*parts, "seed", str(request.seed)]).replace("/", "-")


def _watcher(
    progress: Work, start: int, part: range, request: SampleRequest, steps: int, frames: list[Tensor], codec: Codec
) -> Watch:
    """Called with every state of one batch: moves the progress on, and keeps frames of the first batch for a GIF."""
    every = max(1, steps // GIF_FRAMES)
    which = f"image {start + 1:,}" if len(part) == 1 else f"images {start + 1:,}-{start + len(part):,}"

    def watch(step: int, x: Tensor) -> None:
        if request.gif and start == 0 and (step % every == 0 or step == steps):
            frames.append(grid(codec.to_images(x[:GIF_PICTURES]).cpu(), pixels=GIF_PIXELS))
        progress.update(start * steps + step * len(part), f"step {step}/{steps}, {which} of {request.n:,}")

    return watch


def write_manifest(out: Path, manifest: dict[str, Any]) -> None:
    """manifest.json: how each picture was made, and below "earlier" how those were that an earlier call left there,
    which is said."""
    made = {one["file"] for one in manifest["pictures"]}
    earlier = []
    try:
        old = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
        for call in [{**old, "earlier": []}, *old.get("earlier", [])]:
            left = [one for one in call["pictures"] if one["file"] not in made and (out / one["file"]).is_file()]
            earlier += [{**call, "pictures": left}] if left else []
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        earlier = []  # none, or nobody's
    for call in earlier:
        call.pop("earlier", None)
    write_json(out / "manifest.json", manifest | ({"earlier": earlier} if earlier else {}))
    if count := sum(len(call["pictures"]) for call in earlier):
        stay = f"{many(count, 'image')} of earlier calls {'stays' if count == 1 else 'stay'}"
        events.say(f'note: {stay} in {out}: manifest.json lists what is new, and below "earlier" what is not')


def _manifest(
    run: Run, checkpoint: Path, settings: SampleConfig, request: SampleRequest, seeds: Sequence[int], label: int | None
) -> dict[str, Any]:
    """How each picture was made."""
    labels, prompts = labels_of(run, seeds, label), prompts_of(run, seeds, request.prompt)
    told = [{"label": run.classes[one]} for one in labels] if labels else [{} for _ in seeds]
    told = [one | {"prompt": prompts[k]} for k, one in enumerate(told)] if prompts else told
    pictures = [{"file": f"seed-{seed}.png", "seed": seed} | one for seed, one in zip(seeds, told, strict=True)]
    return {
        "run": str(run.path),
        "checkpoint": checkpoint.name,
        "weights": request.weights,
        "weak": None if request.weak is None else str(request.weak),
        "settings": asdict(settings),
        "pictures": pictures,
        "made_by": provenance(),
    }


def chosen_settings(run: Run, overrides: Mapping[str, Any], weak: bool = False) -> SampleConfig:
    """The run's own sampler settings with what was asked for instead, every "auto" resolved.

    Another sampler drops what belonged to the run's own. `weak`: guidance is away from another model.
    """
    if "sampler" in overrides and overrides["sampler"] != run.config.sample.sampler:
        overrides = {"eta": 0.0, "churn": 0.0, "reverse_variance": "auto", "spacing": "auto", **overrides}
    settings = replace(run.config.sample, **overrides)
    check_steps(settings, run.config.process)
    asked = {"--weak": weak} | {f"--{name.replace('_', '-')}": overrides.get(name) for name in GUIDING}
    if settings.guidance == 1 and any(asked.values()):
        flag = next(flag for flag, value in asked.items() if value)
        raise InputError(f"{flag} needs a --guidance other than 1, which is no guidance")
    told = run.classes or run.text is not None
    if settings.guidance != 1 and not weak and not (told and run.config.train.label_dropout > 0):
        has = "was trained with --label-dropout 0" if told else "has none"
        raise InputError(f"--guidance {settings.guidance:g} needs class labels, and this run {has}")
    return resolved_sampling(settings, run.config, build_process(run.config))


def draw_pictures(
    network: nn.Module,
    run: Run,
    settings: SampleConfig,
    seeds: Sequence[int],
    device: torch.device,
    label: int | Sequence[int] | None = None,
    watch: Watch = lambda step, x: None,
    weak: tuple[Run, nn.Module] | None = None,
    text: Text | None = None,
) -> Tensor:
    """uint8 [B, C, H, W], picture k a function of seeds[k], its label and its text.

    watch(step, x_t) sees every state on the way.
    label: of all of them, or of each; None takes the classes in turn, or none where the run reads text.
    text: of each, as text_of has it; None takes the captions that the run remembers in turn.
    """
    process, codec = build_process(run.config), codec_of(run, device)
    settings = resolved_sampling(settings, run.config, process)
    levels = process.levels(settings.steps, settings.spacing)
    labels = labels_of(run, seeds, label) if label is None or isinstance(label, int) else list(label)
    given = None if labels is None else torch.tensor(labels, device=device)
    text, away = text_of(run, seeds, None, device) if text is None else text, None
    if weak is not None:
        weak_run, weak_network = weak
        known = given if weak_run.classes else None, text if weak_run.text else None
        away = build_denoiser(weak_network, weak_run.config, process, *known)
    denoise, step = build_sampling(network, run.config, settings, process, given, away, codec.bounds, text)
    noise = SeededNoise(seeds)
    x = pure_noise(torch.empty(len(seeds), *run.x0_shape, device=device), levels[0], noise, process.sigma_data)
    with evaluating(network):
        watch(0, x)
        for done, state in enumerate(trajectory(x, levels, denoise, step, noise), 1):
            x = state
            watch(done, x)
    return codec.to_images(x).cpu()


def load_network(run: Run, checkpoint: Path, weights: str, device: torch.device) -> nn.Module:
    """The run's network with the "ema" or "model" weights of a checkpoint."""
    network = build_network(run.config, run.x0_shape, len(run.classes), device)
    load_weights(network, run, checkpoint, weights)
    return network.eval().requires_grad_(False)


def open_network(
    run: Run, name: str | None, weights: str, device: torch.device, flag: str = "--checkpoint"
) -> tuple[nn.Module, Path]:
    """The run's network with the "ema" or "model" weights of the named checkpoint, or of the newest that is whole, and
    that checkpoint's folder."""
    network = build_network(run.config, run.x0_shape, len(run.classes), device)
    checkpoint = load_checkpoint(network, run, name, weights, flag)
    return network.eval().requires_grad_(False), checkpoint


def load_weak(run: Run, path: Path, device: torch.device) -> tuple[Run, nn.Module]:
    """The weaker model of autoguidance: a run, or one checkpoint's folder; InputError unless it is of the same kind."""
    is_checkpoint = path.parent.name == "checkpoints"
    weak = open_model(path.parent.parent if is_checkpoint else path)
    own, other = ({name: getattr(one.config.process, name) for name in NOISE} for one in (run, weak))
    own, other = own | {"pictures": run.x0_shape}, other | {"pictures": weak.x0_shape}
    for name, value in own.items():
        if other[name] != value:
            raise InputError(f"--weak {path} has {name.replace('_', '-')} {other[name]}, {run.path} has {value}")
    if weak.classes not in ([], run.classes):
        raise InputError(f"--weak {path} knows other classes than {run.path}")
    if weak.text and (run.text is None or weak.text["hash"] != run.text["hash"]):
        raise InputError(f"--weak {path} reads another text encoder than {run.path}")
    checkpoint = path.name if is_checkpoint else None
    return weak, open_network(weak, checkpoint, "ema", device, "the checkpoint of --weak")[0]


def find_label(run: Run, label: str | None) -> int | None:
    """A class of the run by its name or, where no class is named by a number, by its position from 0."""
    if label is None:
        return None
    if not run.classes:
        raise InputError(f"--label {label}: {run.path} was trained without labels")
    return label_of("--label", label, run.classes)


def labels_of(run: Run, seeds: Sequence[int], label: int | None) -> list[int] | None:
    """The class of each picture: `label`, or the classes in turn (seed modulo their number).

    None without classes, and without a label where the run reads text, which may say otherwise.
    """
    if not run.classes or (label is None and run.text is not None):
        return None
    return [seed % len(run.classes) if label is None else label for seed in seeds]
