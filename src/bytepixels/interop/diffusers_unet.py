"""Write a U-Net of ours as diffusers' UNet2DModel, and its process as a scheduler. diffusers itself is not needed."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ..config.run import Config
from ..core.gaussian_diffusion import GaussianDiffusion
from ..errors import InputError
from ..networks import UNet
from ..networks.blocks import Downsample, ResidualBlock, Upsample
from .diffusers_autoencoder import block_names

PREDICTION = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}  # what diffusers calls each
EMBEDDING = {"article": (True, 0), "ddpm": (False, 1)}  # flip_sin_to_cos, freq_shift
VERSION = "0.34.0"  # of diffusers, whose form this is


def check_unet(network: Any, config: Config) -> UNet:
    """The network, if UNet2DModel can be one like it. InputError says what it cannot."""
    own, process = config.network, config.process
    if not isinstance(network, UNet):
        raise InputError(f"--to diffusers writes a UNet2DModel, which a {own.backbone} is not")
    widths = {own.width * own.multipliers[level] for level in (*own.attention, len(own.multipliers) - 1)}
    for wrong, why in (
        (process.diffusion != "ddpm", f"--diffusion {process.diffusion} scales what the network is given"),
        (network.stem != 1, "its Haar stem is no layer of UNet2DModel (train --stem conv has none)"),
        (network.text is not None, "UNet2DModel reads no text"),
        (process.variance == "learned", "UNet2DModel learns no variance"),
        (network.destination is not None, "UNet2DModel is told no destination"),
        (config.first_stage is not None, "its pipelines draw no latents"),
        (own.heads > 1 and len(widths) > 1, f"{own.heads} heads of several widths are not one attention_head_dim"),
    ):
        if wrong:
            raise InputError(f"--to diffusers cannot carry this run: {why}")
    return network


def unet_config(network: UNet, config: Config, size: tuple[int, int], by_class: bool = False) -> dict[str, Any]:
    """config.json of the UNet2DModel, for images of `size`. by_class: it is told the class, the last being none."""
    own, levels = config.network, range(len(config.network.multipliers))
    head_dim = None if own.heads == 1 else own.width * own.multipliers[-1] // own.heads
    attends = [level in own.attention for level in levels]
    flip, shift = EMBEDDING[own.embedding]
    return {
        "_class_name": "UNet2DModel",
        "_diffusers_version": VERSION,
        "sample_size": size[0] if size[0] == size[1] else list(size),
        "in_channels": network.channels,
        "out_channels": network.channels,
        "block_out_channels": [own.width * multiplier for multiplier in own.multipliers],
        "layers_per_block": own.blocks,
        "down_block_types": ["AttnDownBlock2D" if one else "DownBlock2D" for one in attends],
        "up_block_types": ["AttnUpBlock2D" if one else "UpBlock2D" for one in reversed(attends)],
        "attention_head_dim": own.head_dim or head_dim,
        "norm_num_groups": network.groups,
        "norm_eps": network.norm.eps,
        "act_fn": "silu",
        "downsample_padding": own.downsample_padding if own.backbone == "unet2d" else 0,
        "dropout": own.dropout,
        "flip_sin_to_cos": flip,
        "freq_shift": shift,
        "add_attention": True,
        "num_class_embeds": network.label.num_embeddings if by_class and network.label is not None else None,
    }


def unet_tensors(network: UNet, label: int | None = None, by_class: bool = False) -> dict[str, Tensor]:
    """The tensors of the UNet2DModel by its names.

    label: the class that it always draws; None: none. by_class: it is told the class instead.
    """
    state = network.state_dict()
    found: dict[str, Tensor] = {}
    for ours, theirs in unet_names(network):
        for kind in ("weight", "bias"):
            for name, part in zip(theirs, state[f"{ours}.{kind}"].chunk(len(theirs)), strict=True):
                found[f"{name}.{kind}"] = part.float().contiguous()
    if by_class and network.label is not None:
        found["class_embedding.weight"] = state["label.weight"].float().contiguous()
    elif network.label is not None:  # what is added to every embedding of t is a bias
        found["time_embedding.linear_2.bias"] += state["label.weight"][-1 if label is None else label].float()
    return found


def unet_names(network: UNet) -> Iterator[tuple[str, list[str]]]:
    """Map our layers to theirs; several where ours keeps them in one matrix."""
    for ours, theirs in (("first", "conv_in"), ("norm", "conv_norm_out"), ("last", "conv_out")):
        yield ours, [theirs]
    yield "time.0", ["time_embedding.linear_1"]
    yield "time.2", ["time_embedding.linear_2"]
    for k, block in enumerate(network.middle):
        yield from residual_names(block, f"middle.{k}", "mid_block", k)
    for direction, layers in (("down", network.down), ("up", network.up)):
        level = count = 0
        for k, layer in enumerate(layers):
            ours, theirs = f"{direction}.{k}", f"{direction}_blocks.{level}"
            if isinstance(layer, (Downsample, Upsample)):
                yield f"{ours}.conv", [f"{theirs}.{direction}samplers.0.conv"]
                level, count = level + 1, 0
            else:
                yield from residual_names(layer, ours, theirs, count)
                count += 1


def residual_names(block: Any, ours: str, theirs: str, count: int) -> Iterator[tuple[str, list[str]]]:
    """The layers of one residual block that is told the time, and of its attention."""
    assert isinstance(block, ResidualBlock)
    for own, names in block_names(ours, f"{theirs}.resnets.{count}"):
        if not own.endswith("shortcut") or not isinstance(block.shortcut, torch.nn.Identity):
            yield own, names
    yield f"{ours}.time", [f"{theirs}.resnets.{count}.time_emb_proj"]
    if not isinstance(block.attention, torch.nn.Identity):
        attention = f"{theirs}.attentions.{count}"
        yield f"{ours}.attention.norm", [f"{attention}.group_norm"]
        yield f"{ours}.attention.qkv", [f"{attention}.to_{letter}" for letter in "qkv"]
        yield f"{ours}.attention.project", [f"{attention}.to_out.0"]


def scheduler_config(process: GaussianDiffusion, config: Config, sampler: str) -> dict[str, Any]:
    """scheduler_config.json: DDPMScheduler for ddpm, else DDIMScheduler, with the very betas.

    DDIMPipeline draws our images where the number of steps divides T (else it steps beside its own grid), and where
    it is called with use_clipped_model_output=True if the run clips.
    """
    settings = config.sample
    own: dict[str, Any] = {"variance_type": "fixed_large"}
    if sampler != "ddpm":
        own = {"set_alpha_to_one": True, "steps_offset": 0}
    return {
        "_class_name": "DDPMScheduler" if sampler == "ddpm" else "DDIMScheduler",
        "_diffusers_version": VERSION,
        "num_train_timesteps": process.T,
        "trained_betas": process.betas.tolist(),
        "prediction_type": PREDICTION[config.process.prediction],
        "clip_sample": settings.clip,
        "clip_sample_range": 1.0,
        "timestep_spacing": "trailing",
        **own,
    }


def pipeline_index(sampler: str, classes: Sequence[str] = ()) -> dict[str, Any]:
    """model_index.json: the classes of diffusers that read the folder, and the names of those that are drawn."""
    kind = "DDPM" if sampler == "ddpm" else "DDIM"
    return {
        "_class_name": f"{kind}Pipeline",
        "_diffusers_version": VERSION,
        "scheduler": ["diffusers", f"{kind}Scheduler"],
        "unet": ["diffusers", "UNet2DModel"],
    } | ({"id2label": {str(k): name for k, name in enumerate(classes)}} if classes else {})
