"""The one place where names in a config become objects."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from .codec.codebook import CodeMemory
from .codec.codec import PIXELS, Bounds, Codec, PixelCodec
from .codec.reconstruction_losses import adaptive_weight, gradient_error, hinge, kl_divergence, l1, l2, ms_ssim
from .config.run import Config, SampleConfig
from .core.denoiser import Denoise, Denoiser, clipped, guided
from .core.gaussian_diffusion import EDMProcess, GaussianDiffusion, Process, RectifiedFlow
from .core.losses import ancestral, default_variance, diffusion_loss
from .core.samplers import MAX_CHURN, SAMPLERS, Step, best_sampler, churned
from .core.schedules import SCHEDULES, zero_terminal_snr
from .core.timestep_sampling import ImportanceTimes
from .data.batches import Batches
from .errors import InputError
from .networks import Autoencoder, DiT, Network, UNet
from .networks.discriminator import FirstStage, PatchDiscriminator, Reconstruction, patch_layers
from .networks.haar import chosen_stem
from .networks.text_conditioning import Text
from .randomness import DROPOUT, INIT, LABELS, NOISE, TEXT, TIMES, derived_seed, seeded
from .text import TextRows
from .training.loop import Batch, DrawBatch, Loss
from .training.perceptual import NONE, chosen_perceptual, open_perceptual


def build_process(config: Config) -> Process:
    """The forward process of a config."""
    settings = config.process
    if settings.diffusion == "edm":
        return EDMProcess()
    if settings.diffusion == "flow":
        return RectifiedFlow("uniform" if settings.times == "auto" else settings.times)
    schedule = SCHEDULES[settings.schedule]
    if settings.zero_terminal_snr:
        return GaussianDiffusion(settings.timesteps, lambda timesteps: zero_terminal_snr(schedule(timesteps)))
    return GaussianDiffusion(settings.timesteps, schedule)


def build_times(config: Config, device: torch.device) -> ImportanceTimes | None:
    """What remembers the losses for times drawn by importance; None where they are not."""
    return ImportanceTimes(config.process.timesteps).to(device) if config.process.times == "importance" else None


def build_network(config: Config, shape: tuple[int, int, int], classes: int, device: torch.device) -> Network:
    """The network of a config for pictures of `shape` (C, H, W), its weights a function of the seed.

    `classes` is 0 where there are no labels. Raises InputError when the pictures do not fit the network.
    """
    torch.manual_seed(derived_seed(config.train.seed, INIT))
    make = _dit if config.network.backbone == "dit" else _unet
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


def build_first_stage(config: Config, shape: tuple[int, int, int], device: torch.device) -> FirstStage:
    """The autoencoder of a config, and its discriminator where it has one, for pictures of `shape` (C, H, W).

    Raises InputError when the factor does not divide the pictures' sides.
    """
    torch.manual_seed(derived_seed(config.train.seed, INIT))
    own = config.autoencoder
    assert own is not None
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
    model = FirstStage(autoencoder, discriminator).to(device)
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def build_codes(model: FirstStage, seed: int) -> CodeMemory | None:
    """What moves the codes of a vq autoencoder."""
    quantizer = model.autoencoder.quantizer
    return None if quantizer is None else CodeMemory(quantizer, seed)


def build_reconstruction_loss(config: Config, device: torch.device, codes: CodeMemory | None = None) -> Loss:
    """(model, images uint8, noise of the latents, share of the discriminator [B]) -> loss per picture [B], float32.

    `codes` takes note of the latents.
    """
    own = config.autoencoder
    assert own is not None
    name = chosen_perceptual(own.perceptual)
    perceptual = None if name in (None, NONE) else open_perceptual(name, device)

    def error(x: Tensor, y: Tensor) -> Tensor:
        """Of reconstructions y, [B]."""
        total = l1(x, y) if own.error == "l1" else l2(x, y)
        if own.ssim > 0:
            total = total + own.ssim * (1 - ms_ssim(x, y))
        if own.gradient > 0:
            total = total + own.gradient * gradient_error(x, y)
        return total if perceptual is None else total + own.perceptual_weight * perceptual(x, y)

    def loss(model: nn.Module, images: Tensor, noise: Tensor, begun: Tensor) -> Tensor:
        x = PixelCodec().to_model(images)
        found = Reconstruction(*at_precision(model, config, device)(x, noise))
        y = found.x.float()
        own_error = total = error(x, y)
        if found.chosen is None or found.codes is None:
            total = total + own.kl * kl_divergence(found.mean.float(), found.std.float()) / x[0].numel()
        else:
            total = total + own.commitment * l2(found.mean.float(), found.codes.float())
            if codes is not None:
                codes.note(found.mean, found.chosen)
        if found.judged is None or found.real is None or found.fake is None:
            return total
        judged = -found.judged.float().flatten(1).mean(1)
        weight = own.discriminator * adaptive_weight(own_error, judged, y).detach()
        return total + begun * (weight * judged + hinge(found.real.float(), found.fake.float()))

    return loss


def build_draw(
    config: Config,
    process: Process,
    batches: Batches,
    classes: int,
    times: ImportanceTimes | None = None,
    texts: TextRows | None = None,
) -> DrawBatch:
    """step -> (images uint8, label, t, noise, weight, dropout keys), None for what there is not: all that is random.
    With `texts` two more: the vectors and the mask of each picture's caption, the mask empty where it is forgotten.

    A function of (seed, step), and of what `times` remembers where it is given; `weight` makes up for it. Every process
    draws for the global batch, which costs next to nothing, and keeps the rows that its `batches` give out.
    """
    seed, batch, rows = config.train.seed, batches.batch, batches.rows

    def draw(step: int) -> Batch:
        images, label = batches(step)
        device = images.device
        if classes == 0 or label is None:
            label = None
        else:
            forget = torch.rand(batch, generator=seeded(seed, LABELS, step, device=device), device=device)[rows]
            label = torch.where(forget < config.train.label_dropout, classes, label)  # row `classes` means no label
        weight, generator = None, seeded(seed, TIMES, step, device=device)
        if times is None:
            t = process.draw_times(batch, generator)
        else:
            t, weight = times.draw(batch, generator)
        generator, shape = seeded(seed, NOISE, step, device=device), (batch, *images.shape[1:])
        noise = torch.empty(shape, device=device).normal_(generator=generator)
        keys = None
        if config.network.dropout > 0:
            generator = seeded(seed, DROPOUT, step, device=device)
            keys = torch.randint(2**31, (batch,), generator=generator, device=device)
        drawn = images, label, *(None if one is None else one[rows] for one in (t, noise, weight, keys))
        if texts is None:
            return drawn
        vectors, mask = texts(batches.indices(step)[rows])
        kept = torch.rand(batch, generator=seeded(seed, TEXT, step, device=device), device=device)[rows]
        return *drawn, vectors, mask & (kept >= config.train.label_dropout)[:, None]

    return draw


def build_loss(
    config: Config, process: Process, codec: Codec, device: torch.device, times: ImportanceTimes | None = None
) -> Loss:
    """(model, *what build_draw draws) -> loss per picture [B], float32. `times` takes note of them."""
    settings = config.process
    weighting = None if settings.weighting == "none" else settings.weighting

    def loss(
        model: nn.Module,
        images: Tensor,
        label: Tensor | None,
        t: Tensor,
        noise: Tensor,
        weight: Tensor | None = None,
        dropout_keys: Tensor | None = None,
        vectors: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        call = model if dropout_keys is None else partial(model, dropout_keys=dropout_keys)
        call = call if vectors is None else partial(call, text=(vectors, mask))
        network, x0 = at_precision(call, config, device), codec.to_model(images)
        losses, _ = diffusion_loss(
            network, process, x0, settings.prediction, label, t, noise, weighting, settings.objective
        )
        if times is None or weight is None:
            return losses
        times.note(t, losses.detach())
        return weight * losses

    return loss


def at_precision(network: Callable[..., Tensor], config: Config, device: torch.device) -> Callable[..., Tensor]:
    """The network in the run's arithmetic; everything round it stays in float32."""
    if config.train.precision == "float32":
        return network

    def call(*inputs: Tensor, text: Text | None = None) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return network(*inputs) if text is None else network(*inputs, text=text)

    return call


def build_denoiser(
    network: nn.Module, config: Config, process: Process, label: Tensor | None, text: Text | None = None
) -> Denoiser:
    """The network in the run's arithmetic, as a denoiser. `label` [B], `text` as networks take it; None is without."""
    call = at_precision(network, config, next(network.parameters()).device)
    return Denoiser(call, config.process.prediction, process.sigma_data, label, text)


def build_sampling(
    network: nn.Module,
    config: Config,
    settings: SampleConfig,
    process: Process,
    label: Tensor | None,
    weak: Denoise | None = None,
    bounds: Bounds = PIXELS,
    text: Text | None = None,
) -> tuple[Denoise, Step]:
    """The denoiser, guided and clipped as the settings say, and the sampler's step.

    weak: for autoguidance. bounds: of x0, as the codec has them.
    """
    settings = resolved_sampling(settings, config, process)
    denoiser = build_denoiser(network, config, process, label, text)
    denoise, step = _sampler(denoiser, settings, process)
    if settings.guidance != 1:
        if weak is None:
            if label is None and text is None:
                raise InputError(f"--guidance {settings.guidance:g} needs class labels, and this run has none")
            weak = told_nothing(denoiser, network)
        interval = settings.guidance_interval or (0.0, math.inf)
        denoise = guided(denoise, weak, settings.guidance, interval, settings.guidance_rescale)
    return clipped(denoise, *bounds) if settings.clip else denoise, step


def told_nothing(denoiser: Denoiser, network: nn.Module) -> Denoiser:
    """The same without its label and its text."""
    label, text = denoiser.label, denoiser.text
    if label is not None:
        label = torch.full_like(label, int(network.null_label))  # type: ignore[arg-type]
    if text is not None:
        text = text[0], torch.zeros_like(text[1])
    return replace(denoiser, label=label, text=text)


def _sampler(denoiser: Denoiser, settings: SampleConfig, process: Process) -> tuple[Denoise, Step]:
    """The step function of resolved settings, and the denoiser that it is to be called with."""
    step = SAMPLERS[settings.sampler]
    if settings.sampler == "ddpm":
        return ancestral(denoiser, settings.reverse_variance)
    if settings.eta > 0:
        step = partial(step, eta=settings.eta)
    if settings.churn > 0:
        step = churned(step, process, min(settings.churn / settings.steps, MAX_CHURN))
    return denoiser, step


def resolved_sampling(settings: SampleConfig, config: Config, process: Process) -> SampleConfig:
    """Settings with every "auto" replaced by what it stands for."""
    sampler, spacing, variance = settings.sampler, settings.spacing, settings.reverse_variance
    if sampler == "auto":
        sampler, best = best_sampler(settings.steps)
    else:
        best = "log_snr" if sampler == "heun" and config.process.diffusion == "ddpm" else process.default_spacing
    if variance == "auto" and sampler == "ddpm":
        learned = config.process.variance == "learned"
        variance = "learned" if learned else default_variance(settings.steps, process)
    return replace(settings, sampler=sampler, spacing=best if spacing == "auto" else spacing, reverse_variance=variance)


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
