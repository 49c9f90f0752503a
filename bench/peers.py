"""The contenders: for each library a training step and a sampling evaluation of the same size of network.

Every contender runs its own loss, its own optimiser settings and its own noise, in float32 at its defaults. What is not
like for like is said in `note`.
"""

import importlib
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from types import ModuleType
from unittest.mock import MagicMock

import torch
from torch import Tensor, nn

from bytepixels.build import build_draw, build_loss, build_network, build_process
from bytepixels.codec import PixelCodec
from bytepixels.data.batches import Batches
from bytepixels.presets import PRESETS
from bytepixels.runs.config import Config
from bytepixels.train.loop import TrainState, train_step

SHAPES = ("cifar10", "small")  # the presets whose networks are compared


@dataclass
class Contender:
    name: str
    network: nn.Module
    train: Callable[[], object]  # one training step on one batch
    evaluate: Callable[[], object]  # one network evaluation for sampling, batch and all
    note: str


def contenders(
    shape: str, batch: int, pictures: Tensor, device: torch.device, precision: str = "float32"
) -> list[Contender]:
    """The three libraries at one size of network. pictures: uint8 [N, 3, 32, 32], what they train on.

    precision "bf16" trains and evaluates all of them under autocast.
    """
    return [make(_config(shape, batch, precision), pictures, device) for make in (ours, diffusers, lucidrains)]


def ours(config: Config, pictures: Tensor, device: torch.device) -> Contender:
    """The whole of bytepixels' own step: batch, flips, noise, loss, clipping, Adam, EMA."""
    batch = config.train.batch
    network = build_network(config, (3, 32, 32), 0, device)
    process, state = build_process(config), TrainState.fresh(network, config.train)
    draw = build_draw(config, process, Batches(pictures.numpy(), None, batch, flip=True, device=device), 0)
    loss = build_loss(config, process, PixelCodec(), device)
    x, t = torch.randn(batch, 3, 32, 32, device=device), torch.full((batch,), 500.0, device=device)

    def train() -> None:
        train_step(state, draw(state.step), loss, config.train)

    def evaluate() -> Tensor:
        network.eval()
        with torch.no_grad(), _autocast(config, device)():
            return network(x, t)

    note = "data, noise, clipping, Adam and EMA included"
    return Contender("bytepixels", network, train, evaluate, note)


def diffusers(config: Config, pictures: Tensor, device: torch.device) -> Contender:
    """UNet2DModel as its unconditional training script uses it: DDPMScheduler, AdamW, EMAModel."""
    from diffusers import DDPMScheduler, UNet2DModel
    from diffusers.training_utils import EMAModel

    net, batch = config.network, config.train.batch
    levels = range(len(net.multipliers))
    network = UNet2DModel(
        sample_size=32,
        block_out_channels=[net.width * m for m in net.multipliers],
        layers_per_block=net.blocks,
        down_block_types=["AttnDownBlock2D" if i in net.attention else "DownBlock2D" for i in levels],
        up_block_types=["AttnUpBlock2D" if i in net.attention else "UpBlock2D" for i in reversed(levels)],
        attention_head_dim=net.width * net.multipliers[net.attention[0]] // net.heads,
        norm_num_groups=min(32, net.width // 4),
        norm_eps=1e-6,
        downsample_padding=0,
        dropout=net.dropout,
    ).to(device)
    scheduler, optimizer = DDPMScheduler(), torch.optim.AdamW(network.parameters(), lr=1e-4)
    ema = EMAModel(network.parameters(), use_ema_warmup=True)
    x0 = PixelCodec().to_model(pictures[:batch]).to(device)
    autocast = _autocast(config, device)

    def train() -> None:
        network.train()
        noise = torch.randn_like(x0)
        t = torch.randint(1000, (batch,), device=device)
        with autocast():
            loss = nn.functional.mse_loss(network(scheduler.add_noise(x0, noise, t), t).sample.float(), noise)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        ema.step(network.parameters())

    def evaluate() -> Tensor:
        network.eval()
        with torch.no_grad(), autocast():
            return network(x0, 500).sample

    return Contender("diffusers", network, train, evaluate, "AdamW, EMA and clipping included; data ready in memory")


def lucidrains(config: Config, pictures: Tensor, device: torch.device) -> Contender:
    """denoising-diffusion-pytorch's Unet and GaussianDiffusion; its network is another one at the same widths."""
    package = _import_lucidrains()
    net, batch = config.network, config.train.batch
    full = tuple(i in net.attention for i in range(len(net.multipliers)))
    network = package.Unet(dim=net.width, dim_mults=net.multipliers, full_attn=full, dropout=net.dropout)
    diffusion = package.GaussianDiffusion(network, image_size=32).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, betas=(0.9, 0.99))
    x0 = pictures[:batch].float().to(device) / 255
    t = torch.full((batch,), 500, device=device)
    autocast = _autocast(config, device)

    def train() -> None:
        network.train()
        with autocast():
            loss = diffusion(x0)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    def evaluate() -> Tensor:
        network.eval()
        with torch.no_grad(), autocast():
            return network(x0, t)

    return Contender("lucidrains", network, train, evaluate, "another network (7 x 7 stem, linear attention); no EMA")


def _config(shape: str, batch: int, precision: str) -> Config:
    config = PRESETS[shape]()
    return replace(config, train=replace(config.train, batch=batch, precision=precision))


def _autocast(config: Config, device: torch.device) -> Callable[[], AbstractContextManager[None]]:
    return partial(torch.autocast, device.type, torch.bfloat16, enabled=config.train.precision == "bf16")


def _import_lucidrains() -> ModuleType:
    """What the package imports for its trainer alone (torchvision, accelerate, ...) is mocked: it is not used here."""
    for name in (
        "torchvision",
        "accelerate",
        "ema_pytorch",
        "pytorch_fid",
        "pytorch_fid.fid_score",
        "pytorch_fid.inception",
    ):
        sys.modules.setdefault(name, MagicMock())
    return importlib.import_module("denoising_diffusion_pytorch.denoising_diffusion_pytorch")
