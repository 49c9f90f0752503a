"""Read a diffusers AutoencoderKL folder (Stable Diffusion's `vae` is one) as an Autoencoder."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..networks import Autoencoder
from .diffusers_folder import CONFIG, read_json, read_weights, translated

DEFAULTS = {  # of diffusers, where config.json leaves a setting out
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"],
    "up_block_types": ["UpDecoderBlock2D"],
    "block_out_channels": [64],
    "layers_per_block": 1,
    "act_fn": "silu",
    "latent_channels": 4,
    "norm_num_groups": 32,
    "use_quant_conv": True,
    "use_post_quant_conv": True,
    "mid_block_add_attention": True,
}


def is_autoencoder_kl(folder: Path) -> bool:
    """Whether a folder's config.json names AutoencoderKL; `read_autoencoder_kl` checks the rest."""
    try:
        read_config(folder)
    except InputError:
        return False
    return True


def read_autoencoder_kl(folder: Path) -> Autoencoder:
    """The network in a folder that diffusers' save_pretrained wrote, in float32, in eval mode.

    Its latents are the file's own: `scaling_factor` and `shift_factor` are not applied. Raises InputError where the
    folder holds something else, in one sentence.
    """
    config = read_config(folder)
    network = empty_network(folder, config)
    tensors = read_weights(folder)
    for name, channels in (("quant_conv", 2 * network.latent_channels), ("post_quant_conv", network.latent_channels)):
        if not config[f"use_{name}"]:
            tensors |= identity(name, channels)
    state = dict(translated(folder, network.state_dict(), dict(module_names(network)), tensors))
    network.load_state_dict(state, assign=True)
    return network.requires_grad_(True).eval()


def read_config(folder: Path) -> dict[str, Any]:
    """Read config.json, with diffusers' defaults filled in. InputError unless it is an AutoencoderKL's."""
    config = read_json(folder / CONFIG, "a diffusers AutoencoderKL")
    if (kind := config.get("_class_name")) != "AutoencoderKL":
        raise InputError(f"{folder / CONFIG} must be of a diffusers AutoencoderKL, got {kind}")
    return DEFAULTS | config


def empty_network(folder: Path, config: Mapping[str, Any]) -> Autoencoder:
    """Build the network of that config, without weights. InputError if it has parts that ours lacks."""
    try:
        _check_settings(config)
        widths = config["block_out_channels"]
        with torch.device("meta"):
            return Autoencoder(
                channels=config["in_channels"],
                width=widths[0],
                multipliers=[width // widths[0] for width in widths],
                blocks=config["layers_per_block"],
                latent_channels=config["latent_channels"],
                attention=config["mid_block_add_attention"],
                groups=config["norm_num_groups"],
            )
    except (InputError, TypeError, IndexError, ZeroDivisionError, RuntimeError) as error:
        raise InputError(f"{folder / CONFIG} describes no autoencoder of ours: {error}") from error


def _check_settings(config: Mapping[str, Any]) -> None:
    widths = config["block_out_channels"]
    wanted: dict[str, Any] = {
        "act_fn": "silu",
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
        "out_channels": config["in_channels"],
    }
    for name, value in wanted.items():
        if config[name] != value:
            raise InputError(f"{name} must be {value}, got {config[name]}")
    if any(width % widths[0] for width in widths):
        raise InputError(f"block_out_channels must be multiples of the first, got {widths}")


def identity(name: str, channels: int) -> dict[str, Tensor]:
    """A 1 x 1 convolution that changes nothing, in place of one that a network lacks."""
    return {f"{name}.weight": torch.eye(channels)[:, :, None, None], f"{name}.bias": torch.zeros(channels)}


def module_names(network: Autoencoder) -> Iterator[tuple[str, list[str]]]:
    """Map our layers to theirs; several where ours keeps them in one matrix."""
    for ours, theirs in (("to_latent", "quant_conv"), ("from_latent", "post_quant_conv")):
        yield ours, [theirs]
    for side, path in (("encoder", network.encoder.down), ("decoder", network.decoder.up)):
        for ours, theirs in (("first", "conv_in"), ("norm", "conv_norm_out"), ("last", "conv_out")):
            yield f"{side}.{ours}", [f"{side}.{theirs}"]
        for k in range(2):
            yield from block_names(f"{side}.middle.{k}", f"{side}.mid_block.resnets.{k}")
        attention = f"{side}.mid_block.attentions.0"
        yield f"{side}.middle.0.attention.norm", [f"{attention}.group_norm"]
        yield f"{side}.middle.0.attention.qkv", [f"{attention}.to_{letter}" for letter in "qkv"]
        yield f"{side}.middle.0.attention.project", [f"{attention}.to_out.0"]
        level = count = 0
        direction = "down" if side == "encoder" else "up"
        for k, layer in enumerate(path):
            ours, theirs = f"{side}.{direction}.{k}", f"{side}.{direction}_blocks.{level}"
            if hasattr(layer, "conv"):  # it changes the resolution
                yield f"{ours}.conv", [f"{theirs}.{direction}samplers.0.conv"]
                level, count = level + 1, 0
            else:
                yield from block_names(ours, f"{theirs}.resnets.{count}")
                count += 1


def block_names(ours: str, theirs: str) -> Iterator[tuple[str, list[str]]]:
    """The layers of one residual block."""
    for layer in ("norm1", "conv1", "norm2", "conv2"):
        yield f"{ours}.{layer}", [f"{theirs}.{layer}"]
    yield f"{ours}.shortcut", [f"{theirs}.conv_shortcut"]
