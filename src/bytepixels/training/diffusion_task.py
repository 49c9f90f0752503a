"""Training tasks: network, batches, loss and previews, as the trainer uses them."""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ..build import at_precision, build_network, build_process
from ..codec.codec import Codec, PixelCodec
from ..codec.latent_cache import LatentBatches
from ..config.run import Config
from ..core.flow_map import PLAIN, draw_leaps, ratio_at
from ..core.gaussian_diffusion import Process
from ..core.losses import diffusion_loss
from ..core.timestep_sampling import ImportanceSampler
from ..data import Packed
from ..data.batches import Batches
from ..distributed.process_group import ProcessGroup
from ..images import beside, grid
from ..randomness import DROPOUT, LABELS, LEAP, NOISE, TEXT, TIMES, seeded
from ..registries import OBJECTIVES, Objective, facts
from ..runs.run_directory import Run
from ..sampling.conditioning import text_rows
from ..sampling.draw import draw_together
from ..sampling.first_stage import EncodedImages
from ..sampling.settings import chosen_settings, is_flow_map
from ..sampling.trained_model import TrainedModel
from ..stopping import Stop
from ..text import TextRows
from ..wording import many
from .autoencoder_task import Autoencoding
from .loop import Batch, DrawBatch, Loss, TrainState
from .preview_metric import kernel_record

AT_A_TIME = 64  # images that one process draws


class Task(Protocol):
    """The interface of a training task."""

    loss: Loss
    trial: Loss  # the same, taking note of nothing
    memory: Any  # see TrainState
    budget: int  # images to see in all, as far as is known
    steps: int  # from noise to an image of a preview; 1 where there is no noise
    passes: int  # of the network for each image and step of a preview
    what: str  # its images show
    which: str  # is where in them
    then: str  # what can be done with it

    def draw(self, step: int) -> Batch:
        """Draw this rank's rows of a step's batch."""
        ...

    def times(self, batch: Batch) -> Tensor | None:
        """The times of a batch, for the report of a loss that is not finite; None if the task has none."""
        ...

    def network(self, device: torch.device) -> nn.Module:
        """Build the network as it is before the first step."""
        ...

    def example(self) -> tuple[Tensor, ...]:
        """Example inputs of the network for one image."""
        ...

    def indices(self, step: int) -> np.ndarray:
        """Positions [B] of the images in the whole batch of a step."""
        ...

    def preview(self, state: TrainState, stop: Stop, count: int, steps: int) -> Tensor:
        """Draw a preview grid of `count` images in `steps` steps, uint8 [C, H, W], on every rank."""
        ...

    def measure(self, state: TrainState, stop: Stop, count: int) -> tuple[dict[str, Any], str]:
        """Measure the EMA on `count` images, on rank 0: a record for eval.jsonl, and a few words."""
        ...


class Diffusion:
    """The training task of a denoiser."""

    what = "samples"
    which = "raw weights left, their average right"

    def __init__(self, run: Run, packed: Packed, world: ProcessGroup, latents: EncodedImages | None = None):
        self.run, self.packed, self.world = run, packed, world
        self.then = f"draw images with: bytepixels sample {run.path}"
        config, device = run.config, world.device
        train, flip = config.train, config.data.flip == "yes"
        self.budget, self.steps = train.images, config.sample.steps
        self.passes = 2 if config.sample.guidance == 1 else 4  # raw weights and average, with a label and without
        order = train.batch, train.seed, flip, device, world.local_rows(train.batch)
        if latents is None:
            codec: Codec = PixelCodec()
            batches = Batches(packed.images, packed.labels, *order)
        else:
            codec = latents.codec(config, device)
            batches = LatentBatches(latents.latents, *order)
        process, self.memory = build_process(config), build_times(config, device)
        self.indices: Callable[[int], np.ndarray] = batches.indices
        texts = text_rows(run, packed, device)
        plain = 0.0 if "from" in run.data else PLAIN  # what a run begins from is trained already
        ratio = (lambda step: ratio_at(self.share(step), plain)) if is_flow_map(config) else None
        self.draw: DrawBatch = build_draw(config, process, batches, len(run.classes), self.memory, texts, ratio)
        self.loss = build_loss(config, process, codec, device, self.memory)
        self.trial = build_loss(config, process, codec, device)

    def share(self, step: int) -> float:
        """The share of the budget that is done before a step."""
        return min(1.0, step * self.run.config.train.batch / self.budget)

    def times(self, batch: Batch) -> Tensor | None:
        return batch[2]

    def network(self, device: torch.device) -> nn.Module:
        return build_network(self.run.config, self.run.x0_shape, len(self.run.classes), device)

    def example(self) -> tuple[Tensor, ...]:
        device = self.world.device
        return torch.zeros(1, *self.run.x0_shape, device=device), torch.zeros(1, device=device)

    def preview(self, state: TrainState, stop: Stop, count: int, steps: int) -> Tensor:
        raw, average = (grid(self._drawn(network, stop, count, steps)) for network in (state.model, state.ema))
        return beside(raw, average)

    def measure(self, state: TrainState, stop: Stop, count: int) -> tuple[dict[str, Any], str]:
        images = self._drawn(state.ema, stop, count, self.steps)
        if self.world.rank > 0:
            return {}, ""
        found = kernel_record(images, self.packed)
        distance = f"{found['kernel_distance']:.4g} ± {found['interval']:.2g}"
        return found, f"kernel distance {distance} ({many(count, 'sample')}; training images: {found['floor']:.2g})"

    def _drawn(self, network: nn.Module, stop: Stop, count: int, steps: int) -> Tensor:
        """Images of `count` seeds, uint8 [count, C, H, W], everywhere. One process alone stops when asked to.

        In fewer steps than the run's own, by the sampler that is best for so few.
        """
        watch = stop.watch if self.world.size == 1 else lambda step, x: None
        run, settings = self.run, self.run.config.sample
        model = TrainedModel(run, network, self.world.device)
        if steps != settings.steps:
            settings = chosen_settings(run, {"sampler": "auto", "spacing": "auto", "steps": steps})

        def draw(seeds: range) -> Tensor:
            return model.draw(settings, seeds, watch=watch)

        each = AT_A_TIME * self.world.size
        parts = [range(start, min(start + each, count)) for start in range(0, count, each)]
        return torch.cat([draw_together(self.world, part, run.shape, draw) for part in parts])


def task_of(run: Run, packed: Packed, world: ProcessGroup, latents: EncodedImages | None = None) -> Task:
    """The training task that the run's settings ask for."""
    if run.config.autoencoder is not None:
        return Autoencoding(run, packed, world)
    return Diffusion(run, packed, world, latents)


def build_times(config: Config, device: torch.device) -> ImportanceSampler | None:
    """Build the importance sampler of timesteps; None if times are not drawn by importance."""
    return ImportanceSampler(config.process.timesteps).to(device) if config.process.times == "importance" else None


def build_draw(
    config: Config,
    process: Process,
    batches: Batches,
    classes: int,
    times: ImportanceSampler | None = None,
    texts: TextRows | None = None,
    ratio: Callable[[int], float] | None = None,
) -> DrawBatch:
    """Build step -> (images uint8, label, t, noise, weight, dropout keys), all that is random; None for what a run
    lacks. With `texts` two more: vectors and mask of each image's caption, the mask empty where it is dropped. With
    `ratio`, the r of a step of a flow map, two more: leaps, and r for each image.

    A function of (seed, step), and of what `times` remembers where it is given; `weight` makes up for it. Every process
    draws for the global batch, which costs next to nothing, and keeps the rows that its `batches` give out.
    """
    seed, batch, rows = config.train.seed, batches.batch, batches.rows

    def draw(step: int) -> Batch:
        images, label = batches(step)
        device = images.device
        if classes == 0 or label is None:
            label = None
        else:
            forget = torch.rand(batch, generator=seeded(seed, LABELS, step, device=device), device=device)[rows]
            label = torch.where(forget < config.train.label_dropout, classes, label)  # row `classes` means no label
        weight, generator = None, seeded(seed, TIMES, step, device=device)
        if times is None:
            t = process.draw_times(batch, generator)
        else:
            t, weight = times.draw(batch, generator)
        generator, shape = seeded(seed, NOISE, step, device=device), (batch, *images.shape[1:])
        noise = torch.empty(shape, device=device).normal_(generator=generator)
        keys = None
        if config.network.dropout > 0:
            generator = seeded(seed, DROPOUT, step, device=device)
            keys = torch.randint(2**31, (batch,), generator=generator, device=device)
        drawn = images, label, *(None if one is None else one[rows] for one in (t, noise, weight, keys))
        if texts is not None:
            vectors, mask = texts(batches.indices(step)[rows])
            kept = torch.rand(batch, generator=seeded(seed, TEXT, step, device=device), device=device)[rows]
            drawn = *drawn, vectors, mask & (kept >= config.train.label_dropout)[:, None]
        if ratio is None:
            return drawn
        leap = draw_leaps(batch, seeded(seed, LEAP, step, device=device))[rows]
        r = torch.full((len(leap),), ratio(step))  # on the host, which reads it
        return *drawn, *([None, None] if texts is None else []), leap, r

    return draw


def build_loss(
    config: Config, process: Process, codec: Codec, device: torch.device, times: ImportanceSampler | None = None
) -> Loss:
    """Build the loss: (model, *batch of build_draw) -> loss per image [B], float32, recorded in `times`."""
    settings, kind = config.process, facts(OBJECTIVES, config.process.objective, Objective)
    weighting = None if settings.weighting == "none" else settings.weighting

    def loss(
        model: nn.Module,
        images: Tensor,
        label: Tensor | None,
        t: Tensor,
        noise: Tensor,
        weight: Tensor | None = None,
        dropout_keys: Tensor | None = None,
        vectors: Tensor | None = None,
        mask: Tensor | None = None,
        leap: Tensor | None = None,
        ratio: Tensor | None = None,
    ) -> Tensor:
        call = model if dropout_keys is None else partial(model, dropout_keys=dropout_keys)
        call = call if vectors is None else partial(call, text=(vectors, mask))
        network, x0 = at_precision(call, config, device), codec.to_model(images)
        if leap is None or ratio is None:
            losses, _ = diffusion_loss(
                network, process, x0, settings.prediction, label, t, noise, weighting, settings.objective
            )
        else:
            without = network if mask is None else partial(network, text=(vectors, torch.zeros_like(mask)))
            told = {"guidance": settings.trained_guidance, "unconditional": without}
            r = float(ratio[0])
            losses, _ = kind(network, process, x0, r, settings.prediction, label, t, noise, weighting, leap, **told)
        if times is None or weight is None:
            return losses
        times.note(t, losses.detach())
        return weight * losses

    return loss
