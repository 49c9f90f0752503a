"""The contenders: for each library a training step and a sampling evaluation of the same size of network.

Every contender runs its own loss, its own optimiser settings and its own noise. "default" is what its documentation's
first example gives; "best" adds what the documentation offers for speed and this machine can do. What is not like for
like is said in `note`.
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

from bytepixels.build import at_precision, build_network, build_process
from bytepixels.codec.codec import PixelCodec
from bytepixels.config.data import DataConfig
from bytepixels.config.diffusion import ProcessConfig
from bytepixels.config.network import NetworkConfig
from bytepixels.config.presets import PRESETS
from bytepixels.config.run import Config
from bytepixels.config.sampling import SampleConfig
from bytepixels.config.training import TrainConfig
from bytepixels.data.batches import Batches
from bytepixels.training.diffusion_task import build_draw, build_loss
from bytepixels.training.loop import TrainState, train_step

SHAPES = ("cifar10", "small")  # the networks that are compared: the preset's, and what `small` had at first


@dataclass(frozen=True)
class Setting:
    """Which library, on what, and how. precision: "float32" or "bf16" (autocast)."""

    library: str
    shape: str
    batch: int
    device: str = "cpu"
    precision: str = "float32"
    best: bool = False
    compiled: str = ""  # torch.compile's mode, for ours in training alone; empty is not compiled

    @property
    def name(self) -> str:
        return (
            f"{self.library}{', best' if self.best else ''}{f', compiled ({self.compiled})' if self.compiled else ''}"
        )

    def wrapped(self, network: nn.Module) -> nn.Module:
        """The network as it is called: compiled, or itself."""
        return torch.compile(network, dynamic=False, mode=self.compiled) if self.compiled else network


@dataclass
class Contender:
    network: nn.Module
    train: Callable[[], object]  # one training step on one batch
    evaluate: Callable[[], object]  # one network evaluation for sampling, batch and all
    note: str


def contender(setting: Setting) -> Contender:
    """The library in that setting, its network drawn anew."""
    torch.manual_seed(0)
    return MAKERS[setting.library](setting)


def images() -> Tensor:
    """What they train on: uint8 [1024, 3, 32, 32]."""
    return torch.randint(0, 256, (1024, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def ours(setting: Setting) -> Contender:
    """The whole of bytepixels' own step: batch, flips, noise, loss, clipping, Adam, EMA."""
    config, device = config_of(setting), torch.device(setting.device)
    network = build_network(config, (3, 32, 32), 0, device)
    process, state = build_process(config), TrainState.fresh(network, config.train)
    state.network = setting.wrapped(network)
    batches = Batches(images().numpy(), None, setting.batch, flip=True, device=device)
    draw, loss = build_draw(config, process, batches, 0), build_loss(config, process, PixelCodec(), device)

    def train() -> None:
        train_step(state, draw(state.step), loss, config.train)

    note = "data, noise, clipping, Adam and EMA included"
    call = sampled(network) if setting.compiled else network
    return Contender(network, train, evaluation(call, network, config, setting), note)


def sampled(network: nn.Module) -> nn.Module:
    """The network as `sample --compile yes` calls it."""
    return torch.compile(network.eval(), dynamic=True)  # type: ignore[return-value]


def bare(setting: Setting) -> Contender:
    """Our network's forward and backward pass and Adam, and nothing else: what our loop is measured against."""
    config, device = config_of(setting), torch.device(setting.device)
    network = build_network(config, (3, 32, 32), 0, device)
    call = at_precision(network, config, device)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, fused=True)
    x, noise = torch.randn(2, setting.batch, 3, 32, 32, device=device)
    t = torch.full((setting.batch,), 500.0, device=device)

    def train() -> None:
        network.train()
        optimizer.zero_grad()
        nn.functional.mse_loss(call(x, t), noise).backward()
        optimizer.step()

    return Contender(network, train, evaluation(network, network, config, setting), "forward, backward and Adam alone")


def evaluation(
    call: Callable[..., Tensor], network: nn.Module, config: Config, setting: Setting
) -> Callable[[], Tensor]:
    """One evaluation of our network as the samplers make it."""
    device = torch.device(setting.device)
    call = at_precision(call, config, device)
    x = torch.randn(setting.batch, 3, 32, 32, device=device)
    t = torch.full((setting.batch,), 500.0, device=device)

    def evaluate() -> Tensor:
        network.eval()
        with torch.no_grad():
            return call(x, t)

    return evaluate


def diffusers(setting: Setting) -> Contender:
    """UNet2DModel as its unconditional training script uses it: DDPMScheduler, AdamW, EMAModel.

    best: channels_last, fused AdamW, foreach EMA, autocast.
    """
    from diffusers import DDPMScheduler
    from diffusers.training_utils import EMAModel

    device = torch.device(setting.device)
    network = _diffusers_network(config_of(setting)).to(device)
    if setting.best:
        network = network.to(memory_format=torch.channels_last)
    scheduler = DDPMScheduler()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=setting.best)
    ema = EMAModel(network.parameters(), use_ema_warmup=True, foreach=setting.best)
    x0, autocast = _ready(setting) * 2 - 1, _autocast(setting)
    call = setting.wrapped(network)

    def train() -> None:
        network.train()
        noise = torch.randn_like(x0)
        t = torch.randint(1000, (setting.batch,), device=device)
        with autocast():
            loss = nn.functional.mse_loss(call(scheduler.add_noise(x0, noise, t), t).sample.float(), noise)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        ema.step(network.parameters())

    def evaluate() -> Tensor:
        network.eval()
        with torch.no_grad(), autocast():
            return call(x0, 500).sample

    return Contender(network, train, evaluate, "AdamW, EMA and clipping included; data ready in memory")


def _diffusers_network(config: Config) -> nn.Module:
    """Its network at our sizes, with as many weights as ours."""
    from diffusers import UNet2DModel

    net = config.network
    levels = range(len(net.multipliers))
    return UNet2DModel(
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
    )


def lucidrains(setting: Setting) -> Contender:
    """denoising-diffusion-pytorch's Unet and GaussianDiffusion; its network is another one at the same widths.

    best: channels_last, fused Adam, autocast (its `amp`), flash attention where there is a card for it.
    """
    package, net, device = _import_lucidrains(), config_of(setting).network, torch.device(setting.device)
    full = tuple(i in net.attention for i in range(len(net.multipliers)))
    flash = setting.best and device.type == "cuda"
    network = package.Unet(
        dim=net.width, dim_mults=net.multipliers, full_attn=full, dropout=net.dropout, flash_attn=flash
    )
    if setting.best:
        network = network.to(memory_format=torch.channels_last)
    call = setting.wrapped(network)
    diffusion = package.GaussianDiffusion(network, image_size=32).to(device)
    diffusion.model = call
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, betas=(0.9, 0.99), fused=setting.best)
    x0, autocast = _ready(setting), _autocast(setting)
    t = torch.full((setting.batch,), 500, device=device)

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
            return call(x0, t)

    return Contender(network, train, evaluate, "another network (7 x 7 stem, linear attention); no EMA")


def first_small() -> Config:
    """The preset `small` before its recipe was searched for: an ordinary stem, the cosine schedule, Adam."""
    return Config(
        preset="small",
        data=DataConfig(size=(32, 32)),
        process=ProcessConfig(schedule="cosine", prediction="v"),
        network=NetworkConfig(width=32, multipliers=(1, 2, 4), blocks=1, attention=(2,), heads=4, dropout=0.0),
        train=TrainConfig(images=400_000, batch=32, lr=1e-3, lr_decay="cosine"),
        sample=SampleConfig(sampler="ddim", steps=50),
    )


MAKERS: dict[str, Callable[[Setting], Contender]] = {
    "bytepixels": ours,
    "bare": bare,
    "diffusers": diffusers,
    "lucidrains": lucidrains,
}


def config_of(setting: Setting) -> Config:
    """The preset whose network is compared, at the batch and in the precision of a setting; the peers' learning rate.

    Without a warm-up: in its first steps weights that began at 0 are so small that gradients and their squares become
    denormal numbers, on which processors are slow (on one, Adam took 2.8 times as long).
    """
    config = PRESETS["cifar10"]() if setting.shape == "cifar10" else first_small()
    train = replace(config.train, batch=setting.batch, precision=setting.precision, lr=1e-4, warmup=0)
    return replace(config, train=train)


def _ready(setting: Setting) -> Tensor:
    """One batch in [0, 1] on the device."""
    return images()[: setting.batch].float().to(setting.device) / 255


def _autocast(setting: Setting) -> Callable[[], AbstractContextManager[None]]:
    enabled = setting.precision == "bf16"
    return partial(torch.autocast, torch.device(setting.device).type, torch.bfloat16, enabled=enabled)


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
