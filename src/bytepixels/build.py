"""The one place where names in a config become objects."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from .codec import PixelCodec
from .data.batches import Batches
from .denoise import Denoise, Denoiser, clipped, guided
from .errors import InputError
from .networks import UNet
from .process import GaussianDiffusion
from .randomness import INIT, LABELS, NOISE, TIMES, derived_seed, seeded
from .runs.config import Config, Precision, SampleConfig
from .samplers import SAMPLERS, Step
from .schedules import SCHEDULES, zero_terminal_snr
from .train.loop import Batch, DrawBatch, Loss
from .training import diffusion_loss


def build_process(config: Config) -> GaussianDiffusion:
    """The forward process with the config's schedule."""
    schedule = SCHEDULES[config.process.schedule]
    if config.process.zero_terminal_snr:
        return GaussianDiffusion(config.process.timesteps, lambda timesteps: zero_terminal_snr(schedule(timesteps)))
    return GaussianDiffusion(config.process.timesteps, schedule)


def build_network(config: Config, shape: tuple[int, int, int], classes: int, device: torch.device) -> UNet:
    """The network of a config for pictures of `shape` (C, H, W), its weights a function of the seed.

    `classes` is 0 where there are no labels. Raises InputError when the pictures are too small for its levels.
    """
    torch.manual_seed(derived_seed(config.train.seed, INIT))
    net = config.network
    network = UNet(
        channels=shape[0],
        width=net.width,
        multipliers=net.multipliers,
        blocks=net.blocks,
        attention=net.attention,
        heads=net.heads,
        dropout=net.dropout,
        num_classes=classes or None,
        embedding=net.embedding,
    )
    network.check_size(*shape[1:])
    return network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def build_draw(config: Config, process: GaussianDiffusion, batches: Batches, classes: int) -> DrawBatch:
    """step -> (images uint8, label or None, t, noise): everything random about a step, a function of (seed, step)."""
    seed = config.train.seed

    def draw(step: int) -> Batch:
        images, label = batches(step)
        device = images.device
        if classes == 0 or label is None:
            label = None
        else:
            forget = torch.rand(len(label), generator=seeded(seed, LABELS, step, device=device), device=device)
            label = torch.where(forget < config.train.label_dropout, classes, label)  # row `classes` means no label
        t = process.draw_times(len(images), seeded(seed, TIMES, step, device=device))
        noise = torch.empty(images.shape, device=device).normal_(generator=seeded(seed, NOISE, step, device=device))
        return images, label, t, noise

    return draw


def build_loss(config: Config, process: GaussianDiffusion, codec: PixelCodec, device: torch.device) -> Loss:
    """(model, images uint8, label, t, noise) -> squared error per picture [B], float32."""

    def loss(model: nn.Module, images: Tensor, label: Tensor | None, t: Tensor, noise: Tensor) -> Tensor:
        network = at_precision(model, config, device)
        x0 = codec.to_model(images)
        return diffusion_loss(network, process, x0, config.process.prediction, label, t, noise)[0]

    return loss


def at_precision(network: nn.Module, config: Config, device: torch.device) -> Callable[..., Tensor]:
    """The network in the run's arithmetic; everything round it stays in float32."""
    if config.train.precision == "float32":
        return network

    def call(*inputs: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return network(*inputs)

    return call


def build_denoiser(
    network: nn.Module, config: Config, settings: SampleConfig, process: GaussianDiffusion, label: Tensor | None
) -> Denoise:
    """The network as a denoiser, guided and clipped as the settings say. `label` [B]; None samples without."""
    call = at_precision(network, config, next(network.parameters()).device)
    conditional = Denoiser(call, config.process.prediction, process.sigma_data, label)
    denoise: Denoise = conditional
    if settings.guidance != 1:
        if label is None:
            raise InputError(f"--guidance {settings.guidance:g} needs class labels, and this run has none")
        denoise = guided(conditional, replace(conditional, label=None), settings.guidance)
    return clipped(denoise) if settings.clip else denoise


def build_sampler(settings: SampleConfig, timesteps: int) -> Step:
    """The step function of a sampler; ddpm takes the large variance on the full chain, the small one on fewer steps."""
    step = SAMPLERS[settings.sampler]
    if settings.sampler == "ddim":
        return partial(step, eta=settings.eta)
    if settings.sampler == "ddpm":
        return partial(step, variance="large" if settings.steps == timesteps else "small")
    return step


def best_device(name: str) -> torch.device:
    """ "auto": a CUDA device, else Apple's, else the CPU. InputError for one that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"--device {name} is not on this machine; try auto or cpu") from error
    return device


def best_precision(name: Precision, device: torch.device) -> Precision:
    """ "auto": bf16 where the hardware multiplies it, else float32."""
    if name != "auto":
        return name
    if device.type == "cuda":
        with torch.cuda.device(device):
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    has_bf16: Callable[[], bool] = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return "bf16" if device.type == "cpu" and has_bf16() else "float32"
