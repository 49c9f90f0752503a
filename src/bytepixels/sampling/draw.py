"""Seeds in, images out: no files."""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..build import build_process
from ..config.sampling import SampleConfig
from ..core.losses import evaluating, pure_noise
from ..core.samplers import trajectory
from ..distributed.process_group import World, own_device
from ..events import Work
from ..hardware import best_device
from ..images import grid
from ..randomness import SeededNoise
from ..requests.sample import SampleRequest
from ..runs.run_directory import Run
from ..wording import many
from .compiled import choose_network
from .conditioning import Text, find_label, labels_of, text_of
from .first_stage import codec_of
from .settings import build_denoiser, build_sampling, chosen_settings, resolved_sampling
from .trained_model import load_weak, open_model, open_network

Watch = Callable[[int, Tensor], None]  # (step, x_t): every state on the way
GIF_FRAMES, GIF_PICTURES, GIF_PIXELS = 60, 25, 1 << 21


@dataclass(frozen=True)
class Drawing:
    """What a request for samples comes to: a run's network and its settings, found and checked once."""

    run: Run
    settings: SampleConfig
    request: SampleRequest
    network: nn.Module
    checkpoint: Path
    weak: tuple[Run, nn.Module] | None
    label: int | None
    device: torch.device

    @classmethod
    def prepared(cls, path: Path, overrides: Mapping[str, Any], request: SampleRequest) -> "Drawing":
        """overrides: fields of SampleConfig that replace the run's own. InputError where they, or the request, do not
        fit the run."""
        run = open_model(path)
        settings = chosen_settings(run, overrides, weak=request.weak is not None)
        label, device = find_label(run, request.label), best_device(own_device(request.device))
        text_of(run, [], request.prompt, device)  # refuses it at once
        network, checkpoint = open_network(run, request.checkpoint, request.weights, device)
        weak = None if request.weak is None else load_weak(run, request.weak, device)
        return cls(run, settings, request, network, checkpoint, weak, label, device)

    @property
    def title(self) -> str:
        """ "Sampling with ddim, 50 steps, trailing spacing, averaged (EMA) weights of step 582"."""
        kind = "averaged (EMA)" if self.request.weights == "ema" else "raw"
        steps = f"{many(self.settings.steps, 'step')}, {self.settings.spacing} spacing"
        step = int(self.checkpoint.name.removeprefix("step-"))
        return f"Sampling with {self.settings.sampler}, {steps}, {kind} weights of step {step:,}"

    def chosen(self) -> "Drawing":
        """The same with the network compiled, where --compile says so or measures it to be faster."""
        return replace(self, network=choose_network(self.network, self.run, self.settings, self.request, self.device))

    def batches(self, world: World, frames: list[Tensor]) -> Generator[tuple[range, Tensor], None, None]:
        """Seeds, and their images uint8 [B, C, H, W], batch after batch, in every process; each draws its share.

        frames: with request.gif, states on the way of the first batch are put there, each a grid.
        """
        asked, run, device = self.request, self.run, self.device
        seeds = range(asked.seed, asked.seed + asked.n)
        with Work("sample", asked.n * self.settings.steps, "image steps") as progress:
            for start in range(0, asked.n, asked.batch * world.size):
                part = seeds[start : start + asked.batch * world.size]
                watch = self._watcher(progress, start, part, frames)

                def draw(own: range, watch: Watch = watch) -> Tensor:
                    text = text_of(run, own, asked.prompt, device)
                    return draw_pictures(
                        self.network, run, self.settings, own, device, self.label, watch, self.weak, text
                    )

                yield part, draw_together(world, part, run.shape, draw)

    def _watcher(self, progress: Work, start: int, part: range, frames: list[Tensor]) -> Watch:
        """Called with every state of one batch: moves the progress on, and keeps frames of the first batch."""
        n, steps, codec = self.request.n, self.settings.steps, codec_of(self.run, self.device)
        every = max(1, steps // GIF_FRAMES)
        which = f"image {start + 1:,}" if len(part) == 1 else f"images {start + 1:,}-{start + len(part):,}"

        def watch(step: int, x: Tensor) -> None:
            if self.request.gif and start == 0 and (step % every == 0 or step == steps):
                frames.append(grid(codec.to_images(x[:GIF_PICTURES]).cpu(), pixels=GIF_PIXELS))
            progress.update(start * steps + step * len(part), f"step {step}/{steps}, {which} of {n:,}")

        return watch


def draw_together(world: World, seeds: range, shape: tuple[int, int, int], draw: Callable[[range], Tensor]) -> Tensor:
    """uint8 [B, C, H, W] of these seeds, everywhere; every process draws its share of them."""
    own = seeds[world.rows(len(seeds))]
    if own:
        drawn = draw(own)
    else:  # a sharded network needs everybody, all the same
        drawn = draw(seeds[:1])[:0] if world.sharded else torch.empty(0, *shape, dtype=torch.uint8)
    return world.gather(drawn, len(seeds))


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
    """uint8 [B, C, H, W], image k a function of seeds[k], its label and its text.

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
