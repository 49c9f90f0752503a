"""edit restore: what was measured of an image, and the job that draws images which measure the same."""

import hashlib
from collections import deque
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..codec.codec import PixelCodec
from ..core.inverse_problems import GREY_LEVEL, ROUNDING, consistent, measured
from ..core.linear_operators import LinearOperator, blur, check_transpose, downscale, grayscale, masked
from ..core.samplers import trajectory
from ..errors import InputError
from ..randomness import SeededNoise
from ..requests.edit import Restore
from ..runs.run_directory import Run
from .edit_images import load_image, load_mask, without
from .edit_plans import Counted, Editing, EditJob, drawing_job

PIXELS = PixelCodec()


class Measurement(NamedTuple):
    """What was measured of an image x0 in [-1, 1]."""

    operator: LinearOperator
    y: Tensor  # [1, ...]
    shown: list[Tensor]  # uint8 [C, H, W] each, of the run's size
    name: list[str]  # for the folder


def plan_restore(editing: Editing, flags: Restore) -> EditJob:
    """Samples of what was measured, each estimate of x0 corrected by it; without noise, the last to the grey level."""
    run, device = editing.run, editing.model.device
    if run.x0_shape != run.shape:
        raise InputError(
            f"{run.path} draws latents, and what was measured are pixels: restore takes a run without them"
        )
    operator, y, shown, name = measurement_of(run, flags)
    y = y.to(device)
    noise_std = max(flags.noise * GREY_LEVEL, ROUNDING)

    def draw(part: Sequence[int], counted: Counted) -> Tensor:
        denoise, step = editing.sampling(len(part), counted)
        noise = SeededNoise([flags.seed + k for k in part])
        states = trajectory(
            editing.pure_noise(noise), editing.levels, measured(denoise, operator, y, noise_std), step, noise
        )
        (x,) = deque(states, maxlen=1)
        return editing.model.codec.to_images(x if flags.noise else consistent(x, operator, y)).cpu()

    def residual(image: Tensor) -> dict[str, float | None]:
        away = (operator.apply(PIXELS.to_model(image[None]).to(device)) - y).abs() / GREY_LEVEL
        return {"residual_mean": away.mean().item(), "residual_max": away.max().item()}

    facts: dict[str, Any] = {"picture": str(flags.image), "task": flags.task, "noise": flags.noise}
    facts |= {"blur_std": flags.blur_std} if flags.blur_std else {}
    facts |= {"mask": str(flags.mask)} if flags.mask else {}
    name += [f"noise-{flags.noise:g}"] if flags.noise else []
    return drawing_job(editing, flags, name, shown, editing.levels, draw, facts, residual)


def measurement_of(run: Run, flags: Restore) -> Measurement:
    """The operator of a task, and what it measured, from the files; InputError where they do not fit the run."""
    size, path, name = run.shape[1:], flags.image, [flags.image.stem, flags.task]
    if flags.measurement is not None:
        operator, y = flags.measurement
        return _of_operator(run, operator, y)
    if flags.task == "upscale":
        return _small(run, path, name)
    if flags.task == "colour":
        if run.shape[0] != 3:
            raise InputError(f"--task colour takes a run of 3 channels, {run.path} has {run.shape[0]}")
        image = load_image(run, path, channels=1)
        return Measurement(grayscale(), PIXELS.to_model(image[None]), [image.expand(3, -1, -1)], name)
    image = load_image(run, path)
    x0 = PIXELS.to_model(image[None])
    if flags.mask is None:
        assert flags.blur_std is not None
        return Measurement(blur(size, flags.blur_std), x0, [image], [*name, f"{flags.blur_std:g}"])
    anew = load_mask(run, flags.mask, path)
    keep = (~anew).float()
    return Measurement(masked(keep), keep * x0, [image, without(image, anew)], [*name, flags.mask.stem])


def _small(run: Run, path: Path, name: list[str]) -> Measurement:
    """An image smaller by a whole factor; shown enlarged pixel by pixel, and bicubic."""
    height, width = run.shape[1:]
    image = load_image(run, path, own_size=True)
    rows, columns = image.shape[1:]
    factor = height // rows
    if factor < 2 or (rows * factor, columns * factor) != (height, width):
        wanted = f"the run's {height} x {width} divided by one whole number, 2 or more"
        raise InputError(f"--task upscale takes an image of {wanted}; {path} is {rows} x {columns}")
    near = image.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    smooth = F.interpolate(image[None].float(), (height, width), mode="bicubic")[0]
    shown = [near, smooth.round().clamp(0, 255).to(torch.uint8)]
    return Measurement(downscale((height, width), factor), PIXELS.to_model(image[None]), shown, name)


def _of_operator(run: Run, operator: LinearOperator, y: Tensor) -> Measurement:
    """One measurement by an operator from Python, with or without a batch of one before it."""
    like = torch.zeros(1, *run.shape)
    check_transpose(operator, like)
    again = operator.apply(like)
    if y.numel() != again.numel() or not y.is_floating_point():
        wanted = f"a float tensor {list(again.shape[1:])}, which the operator makes of an image"
        raise InputError(f"restore needs {wanted}; got {y.dtype} {list(y.shape)}")
    y = y.float().reshape(again.shape)
    return Measurement(operator, y, [], ["operator", hashlib.sha256(y.cpu().numpy().tobytes()).hexdigest()[:6]])


def residual_sentence(residuals: Collection[dict[str, Any]]) -> str:
    """How far the results are from what was measured."""
    mean = sum(one["residual_mean"] for one in residuals) / len(residuals)
    most = max(one["residual_max"] for one in residuals)
    return f"measured again, they are {mean:.2g} grey levels of 255 from what was given, {most:.2g} at most"
