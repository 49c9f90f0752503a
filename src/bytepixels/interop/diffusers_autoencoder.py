"""Read a diffusers AutoencoderKL folder (Stable Diffusion's `vae` is one) as an Autoencoder."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..errors import InputError
from ..networks import Autoencoder

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
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
OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn", "group_norm": "group_norm"}


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
    state = dict(translated(folder, network, config, tensors))
    network.load_state_dict(state, assign=True)
    return network.requires_grad_(True).eval()


def read_config(folder: Path) -> dict[str, Any]:
    """Read config.json, with diffusers' defaults filled in. InputError unless it is an AutoencoderKL's."""
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{folder} is no folder of a diffusers AutoencoderKL: {CONFIG}: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path} is no JSON: {error}") from error
    kind = config.get("_class_name") if isinstance(config, dict) else type(config).__name__
    if kind != "AutoencoderKL":
        raise InputError(f"{path} must be of a diffusers AutoencoderKL, got {kind}")
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


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Read the tensors by name, in float32."""
    path = folder / WEIGHTS
    try:
        return {name: tensor.float() for name, tensor in load_file(path).items()}
    except FileNotFoundError as error:
        hint = "; save it with safe_serialization=True" if list(folder.glob("*.bin")) else ""
        raise InputError(f"{folder} has no {WEIGHTS}{hint}") from error
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} is no safetensors file: {error}") from error


def translated(
    folder: Path, network: Autoencoder, config: Mapping[str, Any], tensors: dict[str, Tensor]
) -> Iterator[tuple[str, Tensor]]:
    """Map the tensors to our names. InputError for missing, superfluous or misshapen ones."""
    left = dict(tensors)
    if not config["use_quant_conv"]:
        left |= identity("quant_conv", 2 * network.latent_channels)
    if not config["use_post_quant_conv"]:
        left |= identity("post_quant_conv", network.latent_channels)
    modules = dict(module_names(network))
    for name, ours in network.state_dict().items():
        module, kind = name.rsplit(".", 1)
        theirs = [f"{part}.{kind}" for part in modules[module]]
        if any(one not in left for one in theirs):
            theirs = [old_name(one) for one in theirs]
        if missing := [one for one in theirs if one not in left]:
            raise InputError(f"{folder / WEIGHTS} is not what {CONFIG} says: it has no {missing[0]}")
        tensor = torch.cat([left.pop(one) for one in theirs])
        if tensor.shape != ours.shape:
            shapes = f"{list(tensor.shape)} where {list(ours.shape)} fits"
            raise InputError(f"{folder / WEIGHTS} is not what {CONFIG} says: {theirs[0]} is {shapes}")
        yield name, tensor
    if left:
        raise InputError(f"{folder / WEIGHTS} is not what {CONFIG} says: it has {min(left)} besides")


def identity(name: str, channels: int) -> dict[str, Tensor]:
    """A 1 x 1 convolution that changes nothing, in place of one that a network lacks."""
    return {f"{name}.weight": torch.eye(channels)[:, :, None, None], f"{name}.bias": torch.zeros(channels)}


def old_name(name: str) -> str:
    """A tensor's name before diffusers 0.18: ...attentions.0.to_q.weight -> ...attentions.0.query.weight."""
    prefix, found, rest = name.partition("attentions.0.")
    part, dot, kind = rest.rpartition(".")
    return f"{prefix}{found}{OLD[part]}{dot}{kind}" if found else name


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
