"""Presets: functions that return a whole Config. Each docstring says the command, the time it takes and the result."""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ..errors import check_choice
from ..registries import NETWORKS
from .autoencoder import AutoencoderConfig
from .data import DataConfig
from .diffusion import ProcessConfig
from .network import NetworkConfig
from .run import Config, own_settings, read_config
from .sampling import SampleConfig
from .training import TrainConfig


def digits() -> Config:
    """Handwritten digits, 8 x 8: the demo.

    bytepixels train digits --preset digits
    Time: two to three minutes on two CPU cores. Result: digits that a person reads, docs/digits.png.
    """
    return Config(
        preset="digits",
        data=DataConfig(flip="no"),
        process=ProcessConfig(schedule="cosine", prediction="v"),
        network=NetworkConfig(width=32, multipliers=(1, 2), blocks=1, attention=(1,), dropout=0.0),
        train=TrainConfig(
            images=60_000,
            batch=64,
            lr=2e-3,
            warmup=0.08,
            lr_decay="cosine",
            log_seconds=1,
        ),
        sample=SampleConfig(sampler="ddim", steps=50),
    )


def small() -> Config:
    """The default for a folder of images on a laptop CPU: their own size, at most 32 x 32.

    bytepixels train IMAGES
    Time and result: RESULTS.md, "The recipe of small": shapes after five minutes of one core, and more with each hour.
    """
    return Config(
        preset="small",
        data=DataConfig(size=(32, 32)),
        process=ProcessConfig(diffusion="flow", times="logit_normal", prediction="v"),
        network=NetworkConfig(
            stem="auto", width=64, multipliers=(1, 2, 2), blocks=1, attention=(2,), heads=4, dropout=0.0
        ),
        train=TrainConfig(images=400_000, batch=0, optimizer="muon", lr=3e-3, lr_decay="linear"),
        sample=SampleConfig(sampler="unipc_3", steps=20),
    )


def few_steps() -> Config:
    """`small` for images in 1 to 8 steps instead of 20: a flow map. From half of the budget on, a step evaluates twice.

    bytepixels train IMAGES --preset few_steps
    """
    plain = small()
    process = replace(plain.process, objective="flow_map")
    return replace(plain, preset="few_steps", process=process, sample=SampleConfig(sampler="auto", steps=4))


def cifar10() -> Config:
    """DDPM's own CIFAR-10 settings (Ho et al. 2020, appendix B): 35.7M parameters, 800,000 steps of 128. For a GPU.

    bytepixels train cifar10 --preset cifar10
    Time: not yet measured on a GPU; 3 images/s on two CPU cores. Result: not yet run; the paper reports FID 3.17.
    """
    return Config(
        preset="cifar10",
        data=DataConfig(size=(32, 32), channels=3, flip="yes"),
        network=NetworkConfig(embedding="ddpm", labels=False),  # DDPM's is unconditional
        train=TrainConfig(images=102_400_000, batch=128, lr=2e-4, warmup=0.00625, ema_half_life=0.0087),
        sample=SampleConfig(sampler="ddim", steps=100, spacing="quadratic"),
    )


def speedrun() -> Config:
    """CIFAR-10 to a fixed distance in the fewest minutes, on one GPU: cifar10's network, its classes, 8M images.

    bytepixels train cifar10 --preset speedrun
    Time and result: not yet run; bench/gpu.md says how. Rehearsed with `small`'s network at 16 x 16, where muon
    came as far as the preset with half of its images, and with flow nearer (RESULTS.md). Width, batch, budget and
    dropout were not rehearsed: the learning rate is the smaller one of two that did as well there.
    """
    return Config(
        preset="speedrun",
        data=DataConfig(size=(32, 32), channels=3, flip="yes"),
        process=ProcessConfig(diffusion="flow", times="logit_normal", prediction="v"),
        network=NetworkConfig(dropout=0.0),
        train=TrainConfig(
            images=8_000_000,
            batch=512,
            optimizer="muon",
            lr=1e-3,
            lr_decay="cosine",
        ),
        sample=SampleConfig(sampler="unipc_3", steps=20),
    )


def autoencoder_config() -> Config:
    """The first stage of latent diffusion, for a CPU and images of 64 to 128 pixels.

    bytepixels train autoencoder IMAGES
    """
    return Config(
        preset="autoencoder",
        autoencoder=AutoencoderConfig(width=32, residual=True, perceptual="auto"),
        train=TrainConfig(
            images=200_000,
            batch=16,
            optimizer="muon",
            lr=3e-3,
            warmup=0.01,
            lr_decay="cosine",
            ema_half_life=0.025,
        ),
    )


PRESETS: dict[str, Callable[[], Config]] = {
    "small": small,
    "few_steps": few_steps,
    "digits": digits,
    "cifar10": cifar10,
    "speedrun": speedrun,
}

DITS = {  # the transformer in the place of a preset's U-Net: digits as much time, small and cifar10 as many weights
    "small": NetworkConfig("dit", width=128, patch=4, depth=8, heads=4, dropout=0.0),
    "few_steps": NetworkConfig("dit", width=128, patch=4, depth=8, heads=4, dropout=0.0),
    "digits": NetworkConfig("dit", width=96, patch=2, depth=6, heads=4, dropout=0.0),
    "cifar10": NetworkConfig("dit", width=384, patch=2, depth=12, heads=6, labels=False),
    "speedrun": NetworkConfig("dit", width=384, patch=2, depth=12, heads=6, dropout=0.0),
}


def preset_with(name: str, backbone: str = "unet") -> Config:
    """The config of a preset with the given backbone. InputError for an unknown name."""
    config = PRESETS[check_choice("--preset", name, PRESETS)]()
    if check_choice("--backbone", backbone, NETWORKS) == config.network.backbone:
        return config
    return replace(config, network=DITS[name] if backbone == "dit" else NetworkConfig(backbone, dropout=0.0))


def own_flags(config: Config, data_as_asked: bool = False) -> list[str]:
    """The flags by which a run differs from its preset, as "--lr 0.001"; none if this version lacks that preset."""
    if config.autoencoder is not None:
        return own_settings(config, autoencoder_config(), data_as_asked)
    if config.preset not in PRESETS:
        return []
    backbone = config.network.backbone
    named = [] if backbone == "unet" else [f"--backbone {backbone}"]
    return named + own_settings(config, preset_with(config.preset, backbone), data_as_asked)


def own_command(config: Config, source: str, asked: Mapping[str, Any] | None = None) -> str:
    """The command that trains a run with this config again, in the default folder of a new run.

    asked: the settings of its data as they were given, before the data decided what they left open.
    """
    if asked is not None:
        config = replace(config, data=read_config(DataConfig, asked, "data"))
    verb = "train" if config.autoencoder is None else "train autoencoder"
    preset = [] if config.autoencoder is not None else [f"--preset {shlex.quote(config.preset)}"]
    return " ".join([f"bytepixels {verb} {shlex.quote(source)}", *preset, *own_flags(config, asked is not None)])
