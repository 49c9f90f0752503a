"""The one place where names in a config become objects."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from .config.diffusion import schedule_of
from .config.run import Config
from .core.gaussian_diffusion import EDMProcess, GaussianDiffusion, Process, RectifiedFlow
from .core.schedules import SCHEDULES, zero_terminal_snr
from .networks import Autoencoder, DiT, Network, UNet
from .networks.discriminator import AutoencoderWithDiscriminator, PatchDiscriminator, patch_layers
from .networks.haar import chosen_stem
from .networks.text_conditioning import Text
from .randomness import INIT, torch_seeded


def build_process(config: Config) -> Process:
    """The forward process of a config."""
    settings = config.process
    if settings.diffusion == "edm":
        return EDMProcess()
    if settings.diffusion == "flow":
        return RectifiedFlow("uniform" if settings.times == "auto" else settings.times)
    name, parameters = schedule_of(settings.schedule)
    schedule = partial(SCHEDULES[name], **parameters)
    if settings.zero_terminal_snr:
        return GaussianDiffusion(settings.timesteps, lambda timesteps: zero_terminal_snr(schedule(timesteps)))
    return GaussianDiffusion(settings.timesteps, schedule)


def build_network(config: Config, shape: tuple[int, int, int], classes: int, device: torch.device) -> Network:
    """The network of a config for images of `shape` (C, H, W), its weights a function of the seed.

    `classes` is 0 where there are no labels. Raises InputError when the images do not fit the network.
    """
    make = _dit if config.network.backbone == "dit" else _unet
    with torch_seeded(config.train.seed, INIT):
        network = make(with_stem(config, shape[1:]), shape[0], classes or None)
    network.check_size(*shape[1:])
    return network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def with_stem(config: Config, size: tuple[int, ...]) -> Config:
    """The config with the stem that suits images of that size, where it says "auto"."""
    stem = chosen_stem(config.network.stem, *size)
    return replace(config, network=replace(config.network, stem=stem))  # type: ignore[arg-type]


def _unet(config: Config, channels: int, classes: int | None) -> Network:
    net = config.network
    return UNet(
        channels=channels,
        width=net.width,
        multipliers=net.multipliers,
        blocks=net.blocks,
        attention=net.attention,
        heads=net.heads,
        dropout=net.dropout,
        num_classes=classes,
        embedding=net.embedding,
        out_channels=_out_channels(config, channels),
        time_scale=_time_scale(config),
        text_dim=net.text_dim,
        stem=net.stem,
    )


def _dit(config: Config, channels: int, classes: int | None) -> Network:
    net = config.network
    return DiT(
        channels=channels,
        patch=net.patch,
        width=net.width,
        depth=net.depth,
        heads=net.heads,
        positions=net.positions,
        registers=net.registers,
        dropout=net.dropout,
        num_classes=classes,
        embedding=net.embedding,
        out_channels=_out_channels(config, channels),
        time_scale=_time_scale(config),
        text_dim=net.text_dim,
    )


def _out_channels(config: Config, channels: int) -> int | None:
    """A learned variance doubles them."""
    return 2 * channels if config.process.variance == "learned" else None


def _time_scale(config: Config) -> float:
    """Embeddings are made for times of 0..1000."""
    return 1.0 if config.process.diffusion == "ddpm" else 1000.0


def build_first_stage(
    config: Config, shape: tuple[int, int, int], device: torch.device
) -> AutoencoderWithDiscriminator:
    """The autoencoder of a config, and its discriminator where it has one, for images of `shape` (C, H, W).

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
    """The network in the run's arithmetic; everything round it stays in float32."""
    if config.train.precision == "float32":
        return network

    def call(*inputs: Tensor, text: Text | None = None) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return network(*inputs) if text is None else network(*inputs, text=text)

    return call
