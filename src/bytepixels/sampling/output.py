"""The verb sample: draw new images from a trained run and write them."""

import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import events
from ..config.sampling import SampleConfig
from ..distributed.process_group import join
from ..errors import InputError
from ..files import write_json
from ..images import grid, save_extra, save_gif, save_png, save_pngs
from ..requests.sample import Sample
from ..runs.run_directory import make_folder, provenance
from ..wording import many
from .conditioning import labels_of, prompt_name, prompts_of
from .draw import Drawing

OTHER_FILES = (".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic")
GRID_CLASSES = 20  # most classes, drawn in turn, that get a column each in grid.png
GRID_MOST = 400  # images in grid.png; the rest are in their own files


def sample(request: Sample) -> Path:
    """Draw images and print the path of the folder, or of the .png that was asked for."""
    return write_samples(Drawing.prepared(request))


def write_samples(drawing: Drawing, each: Callable[[Tensor], object] = lambda images: None) -> Path:
    """Draw request.n images into a folder: seed-K.png each, grid.png, manifest.json. Returns it, or the .png asked for.

    Images are written batch by batch, and `each` is given those of a batch, uint8 [B, C, H, W]; an interruption leaves
    those that are done, with their grid and manifest.
    """
    run, settings, request = drawing.model.run, drawing.settings, drawing.request
    png = png_of(request.out)
    out = run.samples / _folder_name(settings, request) if png or request.out is None else request.out
    make_folder(out, "--out")
    events.say(drawing.title)
    drawing = drawing.chosen()
    first, frames, done = list[Tensor](), list[Tensor](), 0  # what the grid and the animation show, of how many
    try:
        with join(drawing.model.device) as world, closing(drawing.batches(world, frames)) as batches:
            for part, images in batches:
                if world.rank == 0:
                    save_pngs(images, [out / f"seed-{seed}.png" for seed in part])
                    first += images[: max(0, GRID_MOST - done)]
                    done += len(part)
                each(images)
    except KeyboardInterrupt as interrupted:
        if done:
            interrupted.add_note(f"{done:,} of {many(request.n, 'image')} kept in {out}")
        raise
    finally:
        if done:
            write_manifest(out, _manifest(drawing, range(request.seed, request.seed + done)))
            in_turn = drawing.label is None and run.text is None and len(run.classes) > 1
            columns = len(run.classes) if in_turn and len(run.classes) <= min(len(first), GRID_CLASSES) else None
            save_extra(out / "grid.png", lambda path: save_png(grid(torch.stack(first), columns), path))
            if frames:
                save_extra(out / "denoising.gif", lambda path: save_gif(frames, path))
    if world.rank == 0:
        events.say(copy_to(png, out) if png else f"{many(request.n, 'image')}, grid.png and manifest.json: {out}")
    return png or out


def png_of(out: Path | None) -> Path | None:
    """The file that --out names; None if it names a folder. InputError for a file type that cannot be written."""
    if out is None or out.is_dir() or out.suffix.lower() not in (".png", *OTHER_FILES):
        return None
    if out.suffix.lower() != ".png":
        raise InputError(f"--out {out}: images are written as .png; try --out {out.with_suffix('.png')}, or a folder")
    make_folder(out.parent, "--out")
    return out


def copy_to(png: Path, folder: Path) -> str:
    """Copy the only image, or the grid of several, with its manifest to --out; returns a sentence about it."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    files = [one["file"] for one in manifest["pictures"]]
    shutil.copyfile(folder / (files[0] if len(files) == 1 else "grid.png"), png)
    beside = png.with_suffix(".manifest.json")
    write_json(beside, manifest | {"folder": str(folder)})
    what = "the image" if len(files) == 1 else f"a grid of the {len(files):,} images"
    return f"{png}: {what}; {beside}: how it was made; everything is in {folder}"


def weak_name(weak: Path) -> str:
    """The name of a weaker run, or of a run and its checkpoint."""
    return f"{weak.parent.parent.name}-{weak.name}" if weak.parent.name == "checkpoints" else weak.name


def _folder_name(settings: SampleConfig, request: Sample) -> str:
    """Folder name that encodes every setting that changes the images."""
    parts = [settings.sampler, str(settings.steps)]
    parts += [settings.spacing] if settings.spacing != "trailing" else []
    parts += [settings.reverse_variance] if settings.reverse_variance != "auto" else []
    numbers = {"eta": settings.eta, "churn": settings.churn, "rescale": settings.guidance_rescale}
    parts += [f"{name}-{value:g}" for name, value in numbers.items() if value]
    parts += [f"parallel-{settings.guidance_parallel:g}"] if settings.guidance_parallel != 1 else []
    parts += [f"guidance-{settings.guidance:g}"] if settings.guidance != 1 else []
    parts += ["in-{:g}-{:g}".format(*settings.guidance_interval)] if settings.guidance_interval else []
    parts += [f"weak-{weak_name(request.weak)}"] if request.weak else []
    parts += [] if settings.clip else ["unclipped"]
    parts += [part for part in (request.label, prompt_name(request.prompt), request.checkpoint) if part]
    parts += [request.weights] if request.weights != "ema" else []
    return "-".join([*parts, "seed", str(request.seed)]).replace("/", "-")


def write_manifest(out: Path, manifest: dict[str, Any]) -> None:
    """Write manifest.json: how each image was made and, under "earlier", how the images of earlier calls in that folder
    were made."""
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


def _manifest(drawing: Drawing, seeds: Sequence[int]) -> dict[str, Any]:
    """Describe how each image was made."""
    run, request, model = drawing.model.run, drawing.request, drawing.model
    labels, prompts = labels_of(run, seeds, drawing.label), prompts_of(run, seeds, request.prompt)
    told = [{"label": run.classes[one]} for one in labels] if labels else [{} for _ in seeds]
    told = [one | {"prompt": prompts[k]} for k, one in enumerate(told)] if prompts else told
    images = [{"file": f"seed-{seed}.png", "seed": seed} | one for seed, one in zip(seeds, told, strict=True)]
    return {
        "run": str(run.path),
        "checkpoint": model.checkpoint_name,
        "weights": model.weights,
        "weak": None if request.weak is None else str(request.weak),
        "settings": asdict(drawing.settings),
        "compiled": drawing.compiled,
        "pictures": images,
        "made_by": provenance(),
    }
