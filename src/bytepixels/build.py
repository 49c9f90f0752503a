"""The one place where names in a config become objects."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from .config.diffusion import schedule_of
from .config.run import Config
from .core.levels import Process
from .core.schedules import Schedule, zero_terminal_snr
from .errors import InputError
from .networks import Autoencoder, Network
from .networks.discriminator import AutoencoderWithDiscriminator, PatchDiscriminator, patch_layers
from .networks.haar import chosen_stem
from .networks.own import OwnNetwork
from .randomness import INIT, torch_seeded
from .registries import NETWORKS, OBJECTIVES, PROCESSES, SCHEDULES, Backbone, ForwardProcess, Objective, facts


def build_process(config: Config) -> Process:
    """Build the forward process of a config."""
    settings, kind = config.process, facts(PROCESSES, config.process.diffusion, ForwardProcess)
    name, parameters = schedule_of(settings.schedule)
    schedule: Schedule = partial(SCHEDULES[name], **parameters)
    found = {
        "timesteps": settings.timesteps,
        "schedule": (lambda steps: zero_terminal_snr(schedule(steps))) if settings.zero_terminal_snr else schedule,
        "times": kind.times[0] if settings.times == "auto" else settings.times,
    }
    process: Process = kind(**taken(kind.target, found))
    return process


def build_network(config: Config, shape: tuple[int, int, int], classes: int, device: torch.device) -> Network:
    """Build the network of a config for images of `shape` (C, H, W), with weights that depend on the seed alone.

    `classes` is 0 where there are no labels. Raises InputError when the images do not fit the network.
    """
    kind, settings = facts(NETWORKS, config.network.backbone, Backbone), with_stem(config, shape[1:]).network
    found = vars(settings) | {
        "channels": shape[0],
        "out_channels": 2 * shape[0] if config.process.variance == "learned" else None,
        "num_classes": classes or None,
        "destinations": facts(OBJECTIVES, config.process.objective, Objective).destinations,
        "time_scale": 1.0 if config.process.diffusion == "ddpm" else 1000.0,  # embeddings are made for times of 0..1000
    }
    with torch_seeded(config.train.seed, INIT):
        network = kind(**taken(kind.target, found))
    if not isinstance(network, Network):
        for setting, what in ((settings.text_dim, "--text"), (found["destinations"], "--objective flow_map")):
            if setting:
                raise InputError(f"{what} needs a subclass of Network, and --backbone {settings.backbone} is none")
        network = OwnNetwork(network, shape[0], classes or None)
    network.check_size(*shape[1:])
    return network.to(device).to(memory_format=torch.channels_last)


def network_without_memory(config: Config, shape: tuple[int, int, int], classes: int) -> Network:
    """Build the network of a config on torch's meta device: its tensors have shapes and no storage."""
    with torch.device("meta"):
        return build_network(config, shape, classes, torch.device("meta"))


def taken(target: Callable[..., Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `found` that a function or class takes by name."""
    names = signature(target).parameters
    return {name: value for name, value in found.items() if name in names}


def with_stem(config: Config, size: tuple[int, ...]) -> Config:
    """Replace stem "auto" by the stem that suits images of this size."""
    stem = chosen_stem(config.network.stem, *size)
    return replace(config, network=replace(config.network, stem=stem))  # type: ignore[arg-type]


def build_first_stage(
    config: Config, shape: tuple[int, int, int], device: torch.device
) -> AutoencoderWithDiscriminator:
    """Build the autoencoder of a config, and its discriminator if it has one, for images of `shape` (C, H, W).

    Raises InputError when the factor does not divide the images' sides.
    """
    own = config.autoencoder
    assert own is not None
    with torch_seeded(config.train.seed, INIT):
        autoencoder = Autoencoder(
            channels=shape[0],
            width=own.width,
            multipliers=own.multipliers,
            blocks=own.blocks,
            latent_channels=own.latent_channels,
            kind=own.kind,
            codes=own.codes,
            attention=own.attention,
            residual=own.residual,
        )
        autoencoder.check_size(*shape[1:])
        discriminator = None
        if own.discriminator > 0:
            discriminator = PatchDiscriminator(shape[0], layers=patch_layers(*shape[1:]))
    model = AutoencoderWithDiscriminator(autoencoder, discriminator).to(device)
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def at_precision(network: Callable[..., Tensor], config: Config, device: torch.device) -> Callable[..., Tensor]:
    """Run the network in the run's precision (bf16 or float32); all else stays in float32."""
    if config.train.precision == "float32":
        return network

    def call(*inputs: Tensor, **told: Any) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return network(*inputs, **told)

    return call
