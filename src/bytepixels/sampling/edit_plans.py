"""Plans of each kind of edit with a trained run. The mathematics is in core/editing.py."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..config.sampling import SampleConfig
from ..core.denoiser import Denoise
from ..core.editing import inpainted, invert, noised_start, resampled_trajectory, resampling_path, slerp
from ..core.levels import Level
from ..core.samplers import Step, trajectory
from ..errors import InputError, check_range
from ..networks.text_conditioning import Text
from ..randomness import MAX_SEED, SeededNoise
from ..registries import sampler_facts, stochastic_samplers
from ..requests.edit import Drawing, Inpaint, Interpolate, Invert, Vary
from ..runs.run_directory import Run
from .edit_images import load_image, load_mask, noise_image, without
from .trained_model import TrainedModel

Counted = Callable[[Denoise], Denoise]


@dataclass(frozen=True)
class Editing:
    """A trained model, its settings, and the levels to edit along."""

    model: TrainedModel
    settings: SampleConfig
    levels: list[Level]
    label: int | None
    text: Text | None = None  # of one image

    @property
    def run(self) -> Run:
        """The run of the model."""
        return self.model.run

    def sampling(self, batch: int, counted: Counted) -> tuple[Denoise, Step]:
        """The denoiser and the sampler's step, for `batch` images."""
        label = None if self.label is None else torch.full((batch,), self.label, device=self.model.device)
        text = None
        if self.text is not None:
            vectors, mask = self.text
            text = vectors.expand(batch, -1, -1), mask.expand(batch, -1)
        denoise, step = self.model.sampling(self.settings, label, text)
        return counted(denoise), step

    def pure_noise(self, noise: SeededNoise) -> Tensor:
        """The initial noise of sampling, one [C, H, W] per seed."""
        return self.model.pure_noise(noise, self.levels[0])

    def to_model(self, *images: Tensor) -> Tensor:
        """Encode images, uint8 [C, H, W] each, to x0 [B, C, H, W]."""
        return self.model.codec.to_model(torch.stack(images).to(self.model.device))

    def last_image(self, states: Iterable[Tensor]) -> Tensor:
        """Decode the last state of a trajectory: uint8 [B, C, H, W]."""
        (x,) = deque(states, maxlen=1)
        return self.model.codec.to_images(x).cpu()

    def evaluations(self, path: Sequence[Level]) -> int:
        """Network evaluations along a path of levels."""
        down = [(now, nxt) for now, nxt in pairwise(path) if nxt.half_log_snr > now.half_log_snr]
        more = sampler_facts(self.settings.sampler).evaluations - 1
        return len(down) + more * sum(now.alpha > 0 and nxt.sigma > 0 for now, nxt in down)


@dataclass(frozen=True)
class EditJob:
    """A checked edit, ready to run."""

    subject: Sequence[str]  # what the folder is named for
    files: Sequence[str]  # what the results are called
    shown: Sequence[Tensor]  # uint8 [C, H, W] each: what went in
    work: int  # evaluations of the network, times images
    draw: Callable[[Sequence[int], Counted], Tensor]  # positions in `files` -> uint8 [B, C, H, W]
    facts: dict[str, Any]  # for the manifest, and to be said
    seeds: Sequence[int] | None = None  # of the results
    compare: dict[int, Tensor] = field(default_factory=dict)  # a result's position -> the image that it should be
    batch: int | None = None  # images at a time; None is all at once
    columns: int | None = None  # of the results in grid.png
    residual: Callable[[Tensor], dict[str, float | None]] | None = None  # how far a result is from what was measured


def plan_inpaint(editing: Editing, flags: Inpaint) -> EditJob:
    """Plan inpainting: where the mask keeps the image, the estimate is the known image at every level."""
    settings, steps = editing.settings, editing.settings.steps
    if not (sampler_facts(settings.sampler).stochastic or settings.eta > 0 or settings.churn > 0):
        known = " or ".join(stochastic_samplers())
        raise InputError(
            f"inpaint takes a sampler that draws noise, {known}, or ddim with --eta; got {settings.sampler}"
        )
    jump = max(1, round(steps / 10)) if flags.jump is None else flags.jump
    repeats = flags.repeats if steps > 1 else 1  # one step leaves no room to go back
    check_range("--jump", jump, 1, max(1, steps - 1))
    path = resampling_path(editing.levels, jump, repeats)
    image, anew = load_image(editing.run, flags.image), load_mask(editing.run, flags.mask, flags.image)
    x0 = editing.to_model(image)[0]
    # of latents, those are kept that cover nothing that is painted anew
    keep = 1 - F.adaptive_max_pool2d(anew.float(), editing.run.x0_shape[1:]).to(editing.model.device)

    def draw(part: Sequence[int], counted: Counted) -> Tensor:
        denoise, step = editing.sampling(len(part), counted)
        noise = SeededNoise([flags.seed + k for k in part])
        states = resampled_trajectory(editing.pure_noise(noise), path, inpainted(denoise, x0, keep), step, noise)
        return torch.where(anew, editing.last_image(states), image)  # to the last bit, through any codec

    facts = {"picture": str(flags.image), "mask": str(flags.mask), "jump": jump, "repeats": repeats}
    shown = [image, without(image, anew)]
    return drawing_job(editing, flags, [flags.image.stem, flags.mask.stem], shown, path, draw, facts)


def plan_vary(editing: Editing, flags: Vary) -> EditJob:
    """Plan variations: noise the image to a level of the grid, then denoise from there."""
    image = load_image(editing.run, flags.image)

    def start(seeds: Sequence[int]) -> tuple[Tensor, list[Level], SeededNoise]:
        noise = SeededNoise(seeds)
        x0 = editing.to_model(*[image] * len(seeds))
        return *noised_start(x0, editing.levels, flags.strength, noise), noise

    def draw(part: Sequence[int], counted: Counted) -> Tensor:
        denoise, step = editing.sampling(len(part), counted)
        x, levels, noise = start([flags.seed + k for k in part])
        return editing.last_image(trajectory(x, levels, denoise, step, noise))

    x, levels, _ = start([flags.seed])
    shown = [image, noise_image(editing.model.codec, x[0] / max(1.0, levels[0].sigma))]
    facts = {"picture": str(flags.image), "strength": flags.strength, "steps_taken": len(levels) - 1}
    return drawing_job(editing, flags, [flags.image.stem, f"{flags.strength:g}"], shown, levels, draw, facts)


def drawing_job(
    editing: Editing,
    flags: Drawing,
    subject: list[str],
    shown: list[Tensor],
    path: Sequence[Level],
    draw: Callable[[Sequence[int], Counted], Tensor],
    facts: dict[str, Any],
    residual: Callable[[Tensor], dict[str, float | None]] | None = None,
) -> EditJob:
    """What inpaint, vary and restore have in common: n results, named by seed."""
    seeds = range(flags.seed, flags.seed + flags.n)
    each = editing.evaluations(path)
    files = [f"seed-{seed}.png" for seed in seeds]
    facts = facts | {"evaluations": each}
    subject = [*subject, "seed", str(flags.seed)]
    work = each * flags.n
    return EditJob(subject, files, shown, work, draw, facts, seeds, batch=flags.batch, residual=residual)


def plan_interpolate(editing: Editing, flags: Interpolate) -> EditJob:
    """Plan an interpolation between the noises of two images or seeds, along the sphere, denoised with ddim."""
    ends, seeds = [flags.a, flags.b], [_seed(flags.a), _seed(flags.b)]
    if (seeds[0] is None) != (seeds[1] is None):
        raise InputError(f"A and B are two images or two seeds (whole numbers from 0), got {flags.a} and {flags.b}")
    images = [load_image(editing.run, Path(end)) for end in ends] if seeds[0] is None else []
    steps = editing.evaluations(editing.levels)
    inversion = steps * (1 + flags.refine) if images else 0

    def draw(part: Sequence[int], counted: Counted) -> Tensor:
        if images:
            denoise, _ = editing.sampling(2, counted)
            a, b = invert(editing.to_model(*images), editing.levels, denoise, flags.refine).split(1)
        else:
            a, b = editing.pure_noise(SeededNoise([seed for seed in seeds if seed is not None])).split(1)
        x = torch.cat([slerp(a, b, k / (flags.n - 1)) for k in part])
        denoise, step = editing.sampling(len(part), counted)
        return editing.last_image(trajectory(x, editing.levels, denoise, step))

    shares = [k / (flags.n - 1) for k in range(flags.n)]
    facts = {"ends": ends, "shares": shares, "evaluations": steps}
    facts |= {"refine": flags.refine, "evaluations_to_invert": inversion} if images else {}
    files = [f"{k:03}.png" for k in range(flags.n)]
    compare = {0: images[0], flags.n - 1: images[1]} if images else {}
    work = 2 * inversion + flags.n * steps
    return EditJob([Path(end).stem for end in ends], files, images, work, draw, facts, None, compare, columns=flags.n)


def plan_invert(editing: Editing, flags: Invert) -> EditJob:
    """Plan an inversion: ddim's steps undone to the noise, and from there to the image again."""
    image = load_image(editing.run, flags.image)
    steps = editing.evaluations(editing.levels)
    each = steps * (1 + flags.refine) + steps

    def draw(part: Sequence[int], counted: Counted) -> Tensor:
        denoise, step = editing.sampling(1, counted)
        noise = invert(editing.to_model(image), editing.levels, denoise, flags.refine)
        again = editing.last_image(trajectory(noise, editing.levels, denoise, step))
        return torch.stack([noise_image(editing.model.codec, noise[0] / editing.levels[0].sigma), again[0]])

    facts = {"picture": str(flags.image), "refine": flags.refine, "evaluations": each}
    files = ["noise.png", "reconstruction.png"]
    return EditJob([flags.image.stem], files, [image], each, draw, facts, compare={1: image}, columns=2)


def _seed(text: str) -> int | None:
    """Parse a seed; None where the text is no whole number, or a file has that name."""
    if not text.isdecimal() or Path(text).exists():
        return None
    check_range("a seed", int(text), 0, MAX_SEED)
    return int(text)
