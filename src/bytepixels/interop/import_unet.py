"""Read a UNet2DModel folder of diffusers as a network of ours, and a scheduler's settings as a forward process."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..build import build_process, network_without_memory
from ..config.diffusion import ProcessConfig
from ..config.network import NetworkConfig
from ..config.run import Config
from ..config.sampling import SampleConfig
from ..core.gaussian_diffusion import GaussianDiffusion
from ..errors import InputError
from ..networks import UNet
from ..networks.blocks import NORM_EPS, group_count
from ..registries import SCHEDULES
from .diffusers_folder import CONFIG, translated
from .diffusers_unet import EMBEDDING, PREDICTION, unet_names

MODEL: dict[str, Any] = {  # of UNet2DModel, where config.json leaves a setting out
    "sample_size": None,
    "in_channels": 3,
    "out_channels": 3,
    "freq_shift": 0,
    "flip_sin_to_cos": True,
    "down_block_types": ["DownBlock2D", *["AttnDownBlock2D"] * 3],
    "up_block_types": [*["AttnUpBlock2D"] * 3, "UpBlock2D"],
    "block_out_channels": [224, 448, 672, 896],
    "layers_per_block": 2,
    "downsample_padding": 1,
    "dropout": 0.0,
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "num_class_embeds": None,
}
FIXED: dict[str, tuple[Any, ...]] = {  # what ours cannot do otherwise, the first being the default
    "center_input_sample": (False,),
    "time_embedding_type": ("positional",),
    "time_embedding_dim": (None,),
    "mid_block_type": ("UNetMidBlock2D",),
    "mid_block_scale_factor": (1,),
    "downsample_type": ("conv",),
    "upsample_type": ("conv",),
    "act_fn": ("silu", "swish"),
    "attn_norm_num_groups": (None,),
    "resnet_time_scale_shift": ("default",),
    "add_attention": (True,),
    "class_embed_type": (None,),
}
SCHEDULER: dict[str, Any] = {  # of DDPMScheduler and those that take its settings
    "num_train_timesteps": 1000,
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "clip_sample": True,
    "clip_sample_range": 1.0,
    "thresholding": False,
    "prediction_type": "epsilon",
    "rescale_betas_zero_snr": False,
}
BETAS = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine"}  # theirs: ours
CLOSE = 1e-6  # of betas that were kept in float32


def network_config(config: Mapping[str, Any]) -> NetworkConfig:
    """The settings of the network that a UNet2DModel's config.json describes. InputError for parts that ours lacks."""
    told = {**MODEL, **config}
    for name, known in FIXED.items():
        if (value := config.get(name, known[0])) not in known:
            raise InputError(f"{name} {value} is nothing that a network here has, which has {known[0]}")
    widths, padding = list(told["block_out_channels"]), told["downsample_padding"]
    if any(one % widths[0] for one in widths):
        raise InputError(f"block_out_channels must be multiples of the first, got {widths}")
    attends = [kind == "AttnDownBlock2D" for kind in told["down_block_types"]]
    for side, kinds in (
        ("down", ["AttnDownBlock2D" if one else "DownBlock2D" for one in attends]),
        ("up", ["AttnUpBlock2D" if one else "UpBlock2D" for one in reversed(attends)]),
    ):
        if list(told[f"{side}_block_types"]) != kinds or len(kinds) != len(widths):
            raise InputError(
                f"{side}_block_types must be {kinds}, for {len(widths)} levels, got {told[f'{side}_block_types']}"
            )
    if told["out_channels"] != told["in_channels"]:
        raise InputError(f"out_channels must be in_channels, {told['in_channels']}, got {told['out_channels']}")
    order = (told["flip_sin_to_cos"], told["freq_shift"])
    if order not in EMBEDDING.values():
        raise InputError(f"flip_sin_to_cos {order[0]} with freq_shift {order[1]} is no timestep embedding of ours")
    attending = {width for width, one in zip(widths, attends, strict=True) if one} | {widths[-1]}
    own = NetworkConfig(
        width=widths[0],
        multipliers=tuple(one // widths[0] for one in widths),
        blocks=told["layers_per_block"],
        attention=tuple(level for level, one in enumerate(attends) if one),
        dropout=told["dropout"],
        embedding="article" if order == EMBEDDING["article"] else "ddpm",
        labels=told["num_class_embeds"] is not None,
    )
    head_dim, groups, eps = told["attention_head_dim"], told["norm_num_groups"], told["norm_eps"]
    if head_dim is None or len(attending) == 1:
        own, head_dim = replace(own, heads=1 if head_dim is None else max(1, widths[-1] // head_dim)), None
    if (head_dim, groups, eps, padding) == (None, group_count(widths[0]), NORM_EPS, 0):
        return own
    details = {"head_dim": head_dim, "groups": groups, "norm_eps": eps, "downsample_padding": padding}
    return replace(own, backbone="unet2d", **details)


def process_config(scheduler: Mapping[str, Any]) -> ProcessConfig:
    """The forward process that a scheduler_config.json describes. InputError for one that ours lacks."""
    told = {**SCHEDULER, **scheduler}
    predictions = {theirs: ours for ours, theirs in PREDICTION.items()}
    if told["prediction_type"] not in predictions or "num_train_timesteps" not in scheduler:
        raise InputError(f"{scheduler.get('_class_name')} with prediction_type {told['prediction_type']} is no ddpm")
    if told["thresholding"] or (told["clip_sample"] and told["clip_sample_range"] != 1):
        raise InputError(
            "thresholding, and a clip_sample_range other than 1, are not carried: its images would be others"
        )
    own = ProcessConfig(timesteps=told["num_train_timesteps"], prediction="v")
    schedule, start, end = BETAS.get(told["beta_schedule"]), told["beta_start"], told["beta_end"]
    if told["trained_betas"] is not None:
        own = with_betas(own, torch.tensor(told["trained_betas"], dtype=torch.float64))
    elif schedule is None:
        raise InputError(f"beta_schedule {told['beta_schedule']} is none of ours: {', '.join(BETAS)}")
    else:
        ends = (
            ""
            if schedule == "cosine" or (schedule, start, end) == ("linear", 1e-4, 0.02)
            else f":beta_start={start},beta_end={end}"
        )
        own = replace(own, schedule=schedule + ends, zero_terminal_snr=told["rescale_betas_zero_snr"])
    return replace(own, prediction=predictions[told["prediction_type"]])  # type: ignore[arg-type]


def with_betas(own: ProcessConfig, betas: Tensor) -> ProcessConfig:
    """The process whose schedule these betas are: one of ours with its usual parameters, or even between any two ends.
    InputError for any other."""
    first, last = (float(betas[k]) if len(betas) else 0.0 for k in (0, -1))
    evenly = [f"{name}:beta_start={first},beta_end={last}" for name in ("linear", "scaled_linear")]
    for name in [*SCHEDULES, *evenly]:
        for zero in (False, True):
            found = replace(own, timesteps=len(betas), schedule=name, zero_terminal_snr=zero)
            process = build_process(Config(process=found, sample=SampleConfig(steps=1)))
            if isinstance(process, GaussianDiffusion) and torch.allclose(process.betas, betas, rtol=CLOSE, atol=0):
                return found
    raise InputError(f"its {len(betas)} trained_betas are no schedule of ours: {', '.join(SCHEDULES)}")


def read_tensors(
    folder: Path, config: Config, classes: int, tensors: dict[str, Tensor], null: int | None
) -> dict[str, Tensor]:
    """The tensors of a UNet2DModel by our names.

    classes: the classes that the network is told apart from "no class", whose row of class_embedding is `null`; None:
    it has none, and gets the mean of the others.
    """
    shape = (config.data.channels or 3, *(config.data.size or (32, 32)))
    network = network_without_memory(config, shape, classes)
    assert isinstance(network, UNet)
    ours, labels = network.state_dict(), {}
    if classes:
        if (rows := tensors.pop("class_embedding.weight", None)) is None or len(rows) != classes + (null is not None):
            raise InputError(
                f"{folder} is not what its {CONFIG} says: class_embedding.weight is not there or too short"
            )
        kept = [k for k in range(len(rows)) if k != null]
        nothing = rows.mean(0) if null is None else rows[null]
        labels = {"label.weight": torch.cat([rows[kept], nothing[None]])}
        del ours["label.weight"]
    return dict(translated(folder, ours, dict(unet_names(network)), tensors)) | labels
