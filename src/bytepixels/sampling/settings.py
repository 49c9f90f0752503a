"""Resolve a run's sampling settings, and build the denoiser and step from them."""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..build import at_precision, build_process
from ..codec.codec import PIXELS, Bounds
from ..config.run import Config, check_steps
from ..config.sampling import SampleConfig
from ..core.denoiser import Denoise, Denoiser, clipped, guided
from ..core.flow_map import flow_map_step
from ..core.gaussian_diffusion import Process
from ..core.losses import ancestral, default_variance
from ..core.samplers import MAX_CHURN, Step, best_sampler, churned, step_of
from ..errors import InputError
from ..networks.text_conditioning import Text
from ..registries import OBJECTIVES, Objective, facts
from ..runs.run_directory import Run

FEW = 8  # steps up to which a flow map steps to its destinations, unless another sampler is named
# settings that say how to guide, and nothing without --guidance; and what each is where it does nothing
GUIDING = {"guidance_interval": None, "guidance_rescale": 0, "guidance_parallel": 1}


def build_denoiser(
    network: nn.Module, config: Config, process: Process, label: Tensor | None, text: Text | None = None
) -> Denoiser:
    """The network, in the run's precision, as a denoiser. `label` [B], `text` as networks take it; None for without."""
    call = at_precision(network, config, next(network.parameters()).device)
    return Denoiser(call, config.process.prediction, process.sigma_data, label, text)


def build_sampling(
    network: nn.Module,
    config: Config,
    settings: SampleConfig,
    process: Process,
    label: Tensor | None,
    weak: Denoise | None = None,
    bounds: Bounds = PIXELS,
    text: Text | None = None,
) -> tuple[Denoise, Step]:
    """Build the guided and clipped denoiser and the sampler's step from the settings.

    weak: for autoguidance. bounds: of x0, as the codec has them.
    """
    settings = resolved_sampling(settings, config, process)
    denoiser = build_denoiser(network, config, process, label, text)
    denoise, step = _sampler(denoiser, settings, process, is_flow_map(config))
    if settings.guidance != 1:
        if weak is None:
            if label is None and text is None:
                raise InputError(f"--guidance {settings.guidance:g} needs class labels, and this run has none")
            weak = unconditional(denoiser, network)
        interval = settings.guidance_interval or (0.0, math.inf)
        rescale, parallel = settings.guidance_rescale, settings.guidance_parallel
        denoise = guided(denoise, weak, settings.guidance, interval, rescale, parallel)
    return clipped(denoise, *bounds) if settings.clip else denoise, step


def unconditional(denoiser: Denoiser, network: nn.Module) -> Denoiser:
    """The unconditional denoiser for classifier-free guidance: null label, empty text mask."""
    label, text = denoiser.label, denoiser.text
    if label is not None:
        label = torch.full_like(label, int(network.null_label))  # type: ignore[arg-type]
    if text is not None:
        text = text[0], torch.zeros_like(text[1])
    return replace(denoiser, label=label, text=text)


def is_flow_map(config: Config) -> bool:
    """True if the network is told where a step leads, so that few steps suffice."""
    return facts(OBJECTIVES, config.process.objective, Objective).destinations


def _sampler(
    denoiser: Denoiser, settings: SampleConfig, process: Process, to_destination: bool
) -> tuple[Denoise, Step]:
    """The step function of resolved settings, with the denoiser to call it with."""
    step = step_of(settings.sampler, process)
    if settings.sampler == "ddpm":
        return ancestral(denoiser, settings.reverse_variance)
    if settings.eta > 0:
        step = partial(step, eta=settings.eta)
    elif settings.sampler == "ddim" and to_destination:
        step = partial(flow_map_step, renoise=settings.renoise)
    if settings.churn > 0:
        step = churned(step, process, min(settings.churn / settings.steps, MAX_CHURN))
    return denoiser, step


def resolved_sampling(settings: SampleConfig, config: Config, process: Process) -> SampleConfig:
    """Resolve every "auto" in the settings."""
    sampler, spacing, variance = settings.sampler, settings.spacing, settings.reverse_variance
    if sampler == "auto" and is_flow_map(config) and settings.steps <= FEW:
        sampler, best = "ddim", process.default_spacing
    elif sampler == "auto":
        sampler, best = best_sampler(settings.steps)
    else:
        best = "log_snr" if sampler == "heun" and config.process.diffusion == "ddpm" else process.default_spacing
    if variance == "auto" and sampler == "ddpm":
        learned = config.process.variance == "learned"
        variance = "learned" if learned else default_variance(settings.steps, process)
    return replace(settings, sampler=sampler, spacing=best if spacing == "auto" else spacing, reverse_variance=variance)


def chosen_settings(run: Run, overrides: Mapping[str, Any], weak: bool = False) -> SampleConfig:
    """The run's sampler settings with those requested, every "auto" resolved.

    Another sampler drops what belonged to the run's own. `weak`: guidance is away from another model.
    """
    if "sampler" in overrides and overrides["sampler"] != run.config.sample.sampler:
        overrides = {
            "eta": 0.0,
            "churn": 0.0,
            "renoise": 0.0,
            "reverse_variance": "auto",
            "spacing": "auto",
            **overrides,
        }
    settings = replace(run.config.sample, **overrides)
    check_steps(settings, run.config.process)
    if settings.renoise > 0 and not is_flow_map(run.config):
        raise InputError(f"--renoise {settings.renoise:g} needs a run that was trained with --objective flow_map")
    asked = {"--weak": weak}
    asked |= {f"--{name.replace('_', '-')}": overrides.get(name, none) != none for name, none in GUIDING.items()}
    if settings.guidance == 1 and any(asked.values()):
        flag = next(flag for flag, value in asked.items() if value)
        raise InputError(f"{flag} needs a --guidance other than 1, which is no guidance")
    told = run.classes or run.text is not None
    if settings.guidance != 1 and not weak and not (told and run.config.train.label_dropout > 0):
        has = "was trained with --label-dropout 0" if told else "has none"
        raise InputError(f"--guidance {settings.guidance:g} needs class labels, and this run {has}")
    return resolved_sampling(settings, run.config, build_process(run.config))
