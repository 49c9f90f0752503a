"""Draw images from seeds, without writing files."""

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..config.sampling import SampleConfig
from ..distributed.process_group import ProcessGroup, join
from ..events import Work
from ..images import grid
from ..requests.sample import Sample
from ..wording import many
from .compilation import choose_network
from .conditioning import find_label, text_of
from .load_weights import open_model
from .settings import chosen_settings
from .trained_model import TrainedModel, Watch

GIF_FRAMES, GIF_IMAGES, GIF_PIXELS = 60, 25, 1 << 21


@dataclass(frozen=True)
class Drawing:
    """A checked sampling request: the run's network and the resolved settings."""

    model: TrainedModel
    settings: SampleConfig
    request: Sample
    weak: TrainedModel | None
    label: int | None
    compiled: bool = False

    @classmethod
    def prepared(cls, request: Sample) -> "Drawing":
        """Check the request against the run and prepare the drawing. InputError if it does not fit."""
        run = open_model(request.run)
        settings = chosen_settings(run, request.sampling, weak=request.weak is not None)
        label = find_label(run, request.label)
        model = TrainedModel.open(run, request.checkpoint, request.weights, request.device)
        text_of(run, [], request.prompt, model.device)  # refuses it at once
        return cls(model, settings, request, None if request.weak is None else model.weaker(request.weak), label)

    @property
    def title(self) -> str:
        """Describe the job: "Sampling with ddim, 50 steps, trailing spacing, averaged (EMA) weights of step 582"."""
        kind = "averaged (EMA)" if self.request.weights == "ema" else "raw"
        steps = f"{many(self.settings.steps, 'step')}, {self.settings.spacing} spacing"
        step = int(str(self.model.checkpoint_name).removeprefix("step-"))
        return f"Sampling with {self.settings.sampler}, {steps}, {kind} weights of step {step:,}"

    def chosen(self) -> "Drawing":
        """The same drawing with the network compiled, if --compile asks for it or it is measured to be faster."""
        network = choose_network(self.model, self.settings, self.request)
        return replace(self, model=replace(self.model, network=network), compiled=network is not self.model.network)

    def batches(self, world: ProcessGroup, frames: list[Tensor]) -> Generator[tuple[range, Tensor], None, None]:
        """Yield seeds and their images uint8 [B, C, H, W], batch by batch, on every rank; each rank draws its share.

        frames: with request.gif, states on the way of the first batch are put there, each a grid.
        """
        asked, model = self.request, self.model
        seeds = range(asked.seed, asked.seed + asked.n)
        with Work("sample", asked.n * self.settings.steps, "image steps") as progress:
            for start in range(0, asked.n, asked.batch * world.size):
                part = seeds[start : start + asked.batch * world.size]
                watch = self._watcher(progress, start, part, frames)

                def draw(own: range, watch: Watch = watch) -> Tensor:
                    text = text_of(model.run, own, asked.prompt, model.device)
                    return model.draw(self.settings, own, self.label, text, self.weak, watch)

                yield part, draw_together(world, part, model.run.shape, draw)

    def _watcher(self, progress: Work, start: int, part: range, frames: list[Tensor]) -> Watch:
        """A callback for every state of one batch: advances the progress, and keeps frames of the first batch."""
        n, steps, codec = self.request.n, self.settings.steps, self.model.codec
        every = max(1, steps // GIF_FRAMES)
        which = f"image {start + 1:,}" if len(part) == 1 else f"images {start + 1:,}-{start + len(part):,}"

        def watch(step: int, x: Tensor) -> None:
            if self.request.gif and start == 0 and (step % every == 0 or step == steps):
                frames.append(grid(codec.to_images(x[:GIF_IMAGES]).cpu(), pixels=GIF_PIXELS))
            progress.update(start * steps + step * len(part), f"step {step}/{steps}, {which} of {n:,}")

        return watch


def drawn(drawing: Drawing) -> Tensor:
    """Draw all images, uint8 [n, C, H, W], on every rank."""
    drawing = drawing.chosen()
    with join(drawing.model.device) as world:
        return torch.cat([images for _, images in drawing.batches(world, [])])


def draw_together(
    world: ProcessGroup, seeds: range, shape: tuple[int, int, int], draw: Callable[[range], Tensor]
) -> Tensor:
    """Draw the images of these seeds, uint8 [B, C, H, W], on every rank; each rank draws its share."""
    own = seeds[world.local_rows(len(seeds))]
    if own:
        drawn = draw(own)
    else:  # a sharded network needs everybody, all the same
        drawn = draw(seeds[:1])[:0] if world.sharded else torch.empty(0, *shape, dtype=torch.uint8)
    return world.gather(drawn, len(seeds))
