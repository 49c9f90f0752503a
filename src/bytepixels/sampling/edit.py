"""The verb edit: change one's own images by a trained run, and write the results beside the inputs."""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from .. import events
from ..config.sampling import SampleConfig
from ..core.denoiser import Denoise
from ..core.levels import Level
from ..errors import InputError
from ..events import Work
from ..images import beside, grid, save_extra, save_png, save_pngs
from ..requests.edit import EditFlags, Inpaint, Interpolate, Invert, Restore, Vary
from ..runs.run_directory import Run, make_folder, provenance
from ..wording import many
from .conditioning import find_label, prompt_name, text_of
from .edit_plans import Editing, EditJob, plan_inpaint, plan_interpolate, plan_invert, plan_vary
from .load_weights import open_model
from .output import copy_to, png_of, write_manifest
from .restore import plan_restore, residual_sentence
from .settings import chosen_settings
from .trained_model import TrainedModel


class Edited(NamedTuple):
    """The result of an edit."""

    out: Path  # the folder: images, grid.png with the inputs at the left, manifest.json; or the .png that was asked for
    images: Tensor  # uint8 [n, C, H, W]


def edit(flags: EditFlags) -> Edited:
    """Perform one edit, and print its path and how near the result is to the input."""
    png = png_of(flags.out)
    if png:
        flags = replace(flags, out=None)
    editing = open_editing(flags)
    plan = make_plan(editing, flags)
    out = flags.out or editing.run.samples / _folder_name(flags, editing, plan)
    make_folder(out, "--out")
    results: list[Tensor] = []  # uint8 [C, H, W] each
    fidelity: dict[str, dict[str, float | None]] = {}
    try:
        with Work(f"edit {_kind(flags)}", plan.work, "network evaluations") as progress:
            for batch in _carry_out(plan, out, progress):
                results += batch
                progress.kept = f"{len(results):,} of {many(len(plan.files), 'image')} kept in {out}"
    finally:  # an interruption leaves those that are done, with their grid and manifest
        if results:
            done = {k: image for k, image in plan.compare.items() if k < len(results)}
            fidelity = {plan.files[k]: fidelity_of(results[k], image) for k, image in done.items()}
            if plan.residual:
                fidelity = dict(zip(plan.files, map(plan.residual, results), strict=False))
            write_manifest(out, _manifest(flags, editing, plan, len(results), fidelity))
            whole = torch.stack(results)
            save_extra(out / "grid.png", lambda path: save_png(sheet(list(plan.shown), whole, plan.columns), path))
    invert = plan.facts.get("evaluations_to_invert")
    more = f", {invert} to invert each end" if invert else ""
    events.say(f"{many(plan.facts['evaluations'], 'evaluation')} of the network for each image{more}")
    if plan.residual:
        events.say(residual_sentence(fidelity.values()))
    else:
        events.say(*(_sentence(file, facts) for file, facts in fidelity.items()))
    events.say(copy_to(png, out) if png else f"images, grid.png and manifest.json: {out}")
    return Edited(png or out, torch.stack(results))


def open_editing(flags: EditFlags) -> Editing:
    """Open the run's network with its settings and the requested ones; InputError for settings that conflict."""
    run = open_model(flags.run)
    label = find_label(run, flags.label)
    if label is None and flags.prompt is None and flags.guidance not in (None, 1):
        told = "--label or --prompt" if run.text else "--label"
        raise InputError(f"--guidance {flags.guidance:g} needs a {told} to guide towards")
    if label is None and run.classes and run.config.train.label_dropout == 0:
        raise InputError(
            f"{run.path} was trained with --label-dropout 0, so every edit needs a --label: none is unknown"
        )
    if flags.prompt is None and run.text and run.config.train.label_dropout == 0:
        raise InputError(f"{run.path} was trained with --label-dropout 0, so every edit needs a --prompt")
    settings = settings_for(run, flags)
    model = TrainedModel.open(run, flags.checkpoint, flags.weights, flags.device)
    text = None if flags.prompt is None else text_of(run, [0], flags.prompt, model.device)
    return Editing(model, settings, model.levels(settings), label, text)


def settings_for(run: Run, flags: EditFlags) -> SampleConfig:
    """The run's sampler settings, with those requested and those that the kind of edit needs."""
    names = ("steps", "spacing", "guidance", "clip", "sampler", "eta")
    asked = {name: getattr(flags, name, None) for name in names}
    asked = {name: value for name, value in asked.items() if value is not None}
    if flags.label is None and flags.prompt is None:
        asked["guidance"] = 1.0
    if isinstance(flags, Inpaint):
        asked = {"sampler": "ddim" if asked.get("eta") else "ddpm"} | asked
        if asked["sampler"] == "ddpm":  # the variance of the forward chain, given the image
            asked["reverse_variance"] = "small"
    elif isinstance(flags, Restore):
        asked = {"sampler": "ddim" if asked.get("eta") else "dpmpp_sde_2m"} | asked
    elif not isinstance(flags, Vary):  # the step that inversion undoes, and no noise
        asked |= {"sampler": "ddim", "eta": 0.0, "churn": 0.0}
    return chosen_settings(run, asked)


def make_plan(editing: Editing, flags: EditFlags) -> EditJob:
    match flags:
        case Inpaint():
            return plan_inpaint(editing, flags)
        case Vary():
            return plan_vary(editing, flags)
        case Interpolate():
            return plan_interpolate(editing, flags)
        case Invert():
            return plan_invert(editing, flags)
        case Restore():
            return plan_restore(editing, flags)
    raise AssertionError(flags)


def _carry_out(plan: EditJob, out: Path, progress: Work) -> Iterator[Tensor]:
    """Yield the results, uint8 [B, C, H, W], batch by batch, each written when it is done."""
    done = 0

    def counted(denoise: Denoise) -> Denoise:
        def count(x: Tensor, level: Level, *nxt: Level) -> Tensor:
            nonlocal done
            x0 = denoise(x, level, *nxt)
            done += len(x)
            progress.update(done)
            return x0

        return count

    n = len(plan.files)
    for start in range(0, n, plan.batch or n):
        part = range(n)[start : start + (plan.batch or n)]
        images = plan.draw(part, counted)
        save_pngs(images, [out / plan.files[k] for k in part])
        yield images


def sheet(inputs: list[Tensor], results: Tensor, columns: int | None) -> Tensor:
    """Lay out the inputs in a column with the results to their right: one image [C, H, W]."""
    right = grid(results, columns)
    if not inputs:
        return right
    left = grid(torch.stack(inputs), 1)
    height = max(left.shape[1], right.shape[1])
    left, right = (pad(part, (0, 0, 0, height - part.shape[1]), value=255) for part in (left, right))
    return beside(left, right)


def fidelity_of(result: Tensor, image: Tensor) -> dict[str, float | None]:
    """Compare a result with an image, both uint8: "rmse" in grey levels of 255, "psnr" in dB (None if equal)."""
    rmse = (result.double() - image.double()).square().mean().sqrt().item()
    return {"rmse": rmse, "psnr": 20 * math.log10(255 / rmse) if rmse > 0 else None}


def _sentence(file: str, fidelity: dict[str, float | None]) -> str:
    rmse, psnr = fidelity["rmse"], fidelity["psnr"]
    near = "equal, pixel for pixel" if psnr is None else f"RMSE {rmse:.3g} grey levels of 255, PSNR {psnr:.1f} dB"
    return f"{file} against the input: {near}"


def _kind(flags: EditFlags) -> str:
    return type(flags).__name__.lower()


def _folder_name(flags: EditFlags, editing: Editing, plan: EditJob) -> str:
    """Folder name that encodes every setting that changes the images, and a digest of the inputs."""
    settings = editing.settings
    parts = [_kind(flags), *plan.subject, settings.sampler, str(settings.steps), settings.spacing]
    parts += [f"{name}-{value:g}" for name, value in {"eta": settings.eta, "churn": settings.churn}.items() if value]
    parts += [f"{name}-{plan.facts[name]}" for name in ("jump", "repeats", "refine") if name in plan.facts]
    parts += [] if settings.clip else ["unclipped"]
    parts += [f"guidance-{settings.guidance:g}"] if settings.guidance != 1 else []
    parts += [part for part in (flags.label, prompt_name(flags.prompt), flags.checkpoint) if part]
    parts += [flags.weights] if flags.weights != "ema" else []
    inputs = b"".join(image.numpy().tobytes() for image in plan.shown[:2])
    parts += [hashlib.sha256(inputs).hexdigest()[:6]] if inputs else []
    return "-".join(parts).replace("/", "-")


def _manifest(
    flags: EditFlags, editing: Editing, plan: EditJob, count: int, fidelity: dict[str, Any]
) -> dict[str, Any]:
    """Describe how each of the first `count` images was made."""
    images: list[dict[str, Any]] = [{"file": file} for file in plan.files[:count]]
    for k, seed in enumerate((plan.seeds or [])[:count]):
        images[k]["seed"] = seed
    return {
        "run": str(editing.run.path),
        "checkpoint": editing.model.checkpoint_name,
        "weights": flags.weights,
        "edit": _kind(flags),
        **plan.facts,
        "label": None if editing.label is None else editing.run.classes[editing.label],
        **({"prompt": flags.prompt} if editing.run.text else {}),
        "settings": asdict(editing.settings),
        "pictures": [one | fidelity.get(one["file"], {}) for one in images],
        "made_by": provenance(),
    }
