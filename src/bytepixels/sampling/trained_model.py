"""A trained run, opened once for sampling, editing, evaluation, previews and the report."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..build import build_network, build_process
from ..choices import OWN_SPACING
from ..codec.codec import Codec
from ..config.sampling import SampleConfig
from ..config.training import Precision
from ..core.denoiser import Denoise, Denoiser
from ..core.gaussian_diffusion import Process
from ..core.levels import Level
from ..core.losses import evaluating, pure_noise
from ..core.samplers import Step, trajectory
from ..distributed.process_group import own_device
from ..errors import InputError
from ..hardware import best_device, is_slow_in_bf16
from ..randomness import SeededNoise
from ..runs.run_directory import Run
from .conditioning import Text, labels_of, text_of
from .first_stage import codec_of
from .load_weights import load_checkpoint, open_model
from .own_grid import own_levels
from .settings import build_denoiser, build_sampling, chosen_settings, resolved_sampling

NOISE = ("diffusion", "timesteps", "schedule", "zero_terminal_snr")  # settings that decide the noise at every t
Watch = Callable[[int, Tensor], None]  # (step, x_t): every state on the way


@dataclass(frozen=True)
class TrainedModel:
    """A run with one checkpoint's weights in its network, on a device, ready to draw images."""

    run: Run
    network: nn.Module
    device: torch.device
    checkpoint: Path | None = None  # None while it trains
    weights: str = "ema"

    @classmethod
    def open(
        cls,
        run: Run | str | Path,
        checkpoint: str | None = None,
        weights: str = "ema",
        device: torch.device | str = "auto",
        flag: str = "--checkpoint",
    ) -> "TrainedModel":
        """Open a run with the "ema" or "model" weights of the named checkpoint, or of the newest intact one.

        run: also its folder, or the name of a model that comes along. flag: what an error calls the checkpoint.
        A run that was trained in bf16 computes in float32 on a CPU that only imitates bf16. InputError where there is
        no such run or checkpoint, or where the run draws no images.
        """
        run = run if isinstance(run, Run) else open_model(Path(run))
        device = best_device(own_device(device)) if isinstance(device, str) else device
        if run.config.train.precision == "bf16" and is_slow_in_bf16(device):
            run = in_precision(run, "float32")
        network = build_network(run.config, run.x0_shape, len(run.classes), device)
        found = load_checkpoint(network, run, checkpoint, weights, flag)
        return cls(run, network.eval().requires_grad_(False), device, found, weights)

    @property
    def checkpoint_name(self) -> str | None:
        """The name of the checkpoint, "step-000582"; None while training."""
        return None if self.checkpoint is None else self.checkpoint.name

    @cached_property
    def process(self) -> Process:
        """The forward process of the run."""
        return build_process(self.run.config)

    @cached_property
    def codec(self) -> Codec:
        """The codec of the run, between images uint8 [B, C, H, W] and x0."""
        return codec_of(self.run, self.device)

    def settings(self, **overrides: Any) -> SampleConfig:
        """The run's sampler settings with these fields replaced, every "auto" resolved."""
        return chosen_settings(self.run, overrides)

    def denoiser(self, label: Tensor | None = None, text: Text | None = None, exact: bool = False) -> Denoiser:
        """The network as a denoiser. label [B]; text: vectors [B, L, D] and mask [B, L]; None for without.

        exact: in float32, whatever it was trained in.
        """
        run = in_precision(self.run, "float32") if exact else self.run
        return build_denoiser(self.network, run.config, self.process, label, text)

    def sampling(
        self, settings: SampleConfig, label: Tensor | None, text: Text | None = None, weak: Denoise | None = None
    ) -> tuple[Denoise, Step]:
        """Build the guided and clipped denoiser and the sampler's step. weak: for autoguidance."""
        given = self.network, self.run.config, settings, self.process
        return build_sampling(*given, label, weak, self.codec.bounds, text)

    def pure_noise(self, noise: SeededNoise, level: Level) -> Tensor:
        """The initial noise at the noisiest level, [B, c, h, w]: one per seed of `noise`."""
        like = torch.empty(len(noise.generators), *self.run.x0_shape, device=self.device)
        return pure_noise(like, level, noise, self.process.sigma_data)

    def levels(self, settings: SampleConfig) -> list[Level]:
        """The grid that resolved settings name: settings.steps levels, noisiest first, then CLEAN.

        "own" is measured on the model where that was not done before; while it trains, it is the process' default.
        """
        if settings.spacing != OWN_SPACING:
            return self.process.levels(settings.steps, settings.spacing)
        if self.checkpoint is None:
            return self.process.levels(settings.steps)
        return own_levels(self.run, self.network, self.process, settings, self.path)

    def path(
        self, settings: SampleConfig, seeds: Sequence[int], levels: list[Level]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """x at every level, and the estimates of x0 at all but the last, classes and captions in turn."""
        labels = labels_of(self.run, seeds, None)
        given = None if labels is None else torch.tensor(labels, device=self.device)
        denoise, step = self.sampling(settings, given, text_of(self.run, seeds, None, self.device))
        estimates: list[Tensor] = []

        def watched(x: Tensor, level: Level) -> Tensor:
            estimates.append(denoise(x, level))
            return estimates[-1]

        x = self.pure_noise(SeededNoise(seeds), levels[0])
        with evaluating(self.network):
            return [x, *trajectory(x, levels, watched, step)], estimates

    def draw(
        self,
        settings: SampleConfig,
        seeds: Sequence[int],
        label: int | Sequence[int] | None = None,
        text: Text | None = None,
        weak: "TrainedModel | None" = None,
        watch: Watch = lambda step, x: None,
    ) -> Tensor:
        """Draw images uint8 [B, C, H, W], image k a function of seeds[k], its label and its text.

        label: of all of them, or of each; None takes the classes in turn, or none where the run reads text.
        text: of each, as text_of has it; None takes the captions that the run remembers in turn.
        weak: the weaker model of autoguidance. watch(step, x_t) sees every state on the way.
        """
        settings = resolved_sampling(settings, self.run.config, self.process)
        levels = self.levels(settings)
        one = label is None or isinstance(label, int)
        labels = labels_of(self.run, seeds, label) if one else list(label)  # type: ignore[arg-type]
        given = None if labels is None else torch.tensor(labels, device=self.device)
        text, away = text_of(self.run, seeds, None, self.device) if text is None else text, None
        if weak is not None:
            away = weak.denoiser(given if weak.run.classes else None, text if weak.run.text else None)
        denoise, step = self.sampling(settings, given, text, away)
        noise = SeededNoise(seeds)
        x = self.pure_noise(noise, levels[0])
        with evaluating(self.network):
            watch(0, x)
            for done, state in enumerate(trajectory(x, levels, denoise, step, noise), 1):
                x = state
                watch(done, x)
        return self.codec.to_images(x).cpu()

    def weaker(self, path: Path) -> "TrainedModel":
        """Open the weaker model of autoguidance at `path`, a run's folder or one checkpoint's; InputError unless it is
        of the same kind."""
        is_checkpoint = path.parent.name == "checkpoints"
        weak, run = open_model(path.parent.parent if is_checkpoint else path), self.run
        own, other = ({name: getattr(one.config.process, name) for name in NOISE} for one in (run, weak))
        own, other = own | {"images": run.x0_shape}, other | {"images": weak.x0_shape}
        for name, value in own.items():
            if other[name] != value:
                raise InputError(f"--weak {path} has {name.replace('_', '-')} {other[name]}, {run.path} has {value}")
        if weak.classes not in ([], run.classes):
            raise InputError(f"--weak {path} knows other classes than {run.path}")
        if weak.text and (run.text is None or weak.text["hash"] != run.text["hash"]):
            raise InputError(f"--weak {path} reads another text encoder than {run.path}")
        checkpoint = path.name if is_checkpoint else None
        return TrainedModel.open(weak, checkpoint, device=self.device, flag="the checkpoint of --weak")


def in_precision(run: Run, precision: Precision) -> Run:
    """The run with another arithmetic in its settings, "float32" or "bf16"; what lies on the disk stays as it is."""
    return replace(run, config=replace(run.config, train=replace(run.config.train, precision=precision)))
