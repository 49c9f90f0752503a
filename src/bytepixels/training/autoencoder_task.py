"""The training task of an autoencoder: reconstruct a run's own images."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..build import at_precision, build_first_stage
from ..codec.codebook import CodebookEMA
from ..codec.codec import PixelCodec
from ..codec.reconstruction_losses import (
    adaptive_weight,
    gradient_error,
    hinge,
    kl_divergence,
    l1,
    l2,
    ms_ssim,
)
from ..config.run import Config
from ..config.units import images_in
from ..data import Packed
from ..data.batches import Batches
from ..distributed.process_group import ProcessGroup
from ..errors import InputError
from ..images import beside, grid
from ..memory import is_out_of_memory
from ..metrics.feature_cache import chosen_rows
from ..metrics.fidelity import fidelity, format_fidelity, reconstructed
from ..networks import Autoencoder
from ..networks.discriminator import AutoencoderWithDiscriminator, Reconstruction
from ..randomness import NOISE, seeded
from ..runs.run_directory import Run, provenance
from ..stopping import Stop
from ..wording import many
from .loop import Batch, Loss, TrainState
from .perceptual import NONE, chosen_perceptual, open_perceptual


class Autoencoding:
    """The training task of an autoencoder of images."""

    what = "reconstructions"
    which = "images left, what the average makes of their latents right"
    steps = passes = 1

    def __init__(self, run: Run, packed: Packed, world: ProcessGroup):
        config, device = run.config, world.device
        assert config.autoencoder is not None
        if config.train.shard:
            raise InputError("--shard is for networks that draw images; an autoencoder is trained without it")
        if config.train.compile == "yes" and config.autoencoder.discriminator > 0:
            raise InputError("--compile yes does not go with --discriminator, whose weight needs a gradient on the way")
        if config.autoencoder.perceptual not in (None, NONE):
            try_perceptual(config.autoencoder.perceptual, run.shape, device)
        self.run, self.packed, self.device, self.leads = run, packed, device, world.rank == 0
        self.budget = run.config.train.images
        train, flip = config.train, config.data.flip == "yes"
        self.batches = Batches(
            packed.images, packed.labels, train.batch, train.seed, flip, device, world.local_rows(train.batch)
        )
        self.indices: Callable[[int], np.ndarray] = self.batches.indices
        self.model = build_first_stage(config, run.shape, device)
        self.memory = build_codes(self.model, train.seed)
        self.loss: Loss = build_reconstruction_loss(config, device, self.memory)
        self.trial: Loss = build_reconstruction_loss(config, device)
        self.then = f"train on its latents with: bytepixels train {run.data['source']} --autoencoder {run.path}"

    def times(self, batch: Batch) -> Tensor | None:
        return None

    def network(self, device: torch.device) -> nn.Module:
        return self.model.to(device)

    def draw(self, step: int) -> Batch:
        """Draw images uint8, noise for their latents and the discriminator's weight, as functions of (seed, step)."""
        config, train = self.run.config.autoencoder, self.run.config.train
        assert config is not None
        images, _ = self.batches(step)
        autoencoder = self.model.autoencoder
        sides = (side // autoencoder.factor for side in images.shape[2:])
        noise = torch.empty((train.batch, autoencoder.latent_channels, *sides), device=images.device)
        noise.normal_(generator=seeded(train.seed, NOISE, step, device=images.device))
        begun = float(step * train.batch >= images_in(config.discriminator_start, self.budget))
        return images, noise[self.batches.rows], torch.full((len(images),), begun, device=images.device)

    def example(self) -> tuple[Tensor, ...]:
        return (torch.zeros(1, *self.run.shape, device=self.device),)

    def preview(self, state: TrainState, stop: Stop, count: int, steps: int) -> Tensor:
        images = self._some(count)
        return beside(grid(images), grid(reconstructed(_own(state.ema), images, self.device)))

    def measure(self, state: TrainState, stop: Stop, count: int) -> tuple[dict[str, Any], str]:
        if not self.leads:
            return {}, ""
        images = self._some(count)
        again = reconstructed(_own(state.ema), images, self.device)
        found = fidelity(_own(state.ema), images, again, self.device)
        record = {"kind": "reconstruction", **found, "n": len(images), "of": "training images"}
        return record | {"made_by": provenance()}, format_fidelity(found, many(len(images), "training image"))

    def _some(self, count: int) -> Tensor:
        """A fixed choice of images, uint8 [count or fewer, C, H, W]."""
        return torch.from_numpy(np.array(self.packed.images[chosen_rows(len(self.packed), count).numpy()]))


@torch.no_grad()
def try_perceptual(path: str, shape: tuple[int, int, int], device: torch.device) -> None:
    """Try the perceptual loss on two images. InputError if it cannot take them."""
    distance = open_perceptual(path, device)
    try:
        distance(*torch.zeros(2, 2, *shape, device=device))
    except (RuntimeError, torch.jit.Error) as error:
        if is_out_of_memory(error):
            raise
        why = str(error).strip().rpartition("\n")[2].removeprefix("RuntimeError: ")
        raise InputError(f"--perceptual {path} cannot take images of {shape[1]} x {shape[2]}: {why}") from error


def _own(model: nn.Module) -> Autoencoder:
    """The autoencoder inside the trained module."""
    assert isinstance(model, AutoencoderWithDiscriminator)
    return model.autoencoder


def build_codes(model: AutoencoderWithDiscriminator, seed: int) -> CodebookEMA | None:
    """The moving statistics that the codes of a vq autoencoder follow; None for the other kind."""
    quantizer = model.autoencoder.quantizer
    return None if quantizer is None else CodebookEMA(quantizer, seed)


def build_reconstruction_loss(config: Config, device: torch.device, codes: CodebookEMA | None = None) -> Loss:
    """Build the loss: (model, images uint8, latent noise, discriminator weight [B]) -> loss per image [B], float32.

    `codes` takes note of the latents.
    """
    own = config.autoencoder
    assert own is not None
    name = chosen_perceptual(own.perceptual)
    perceptual = None if name in (None, NONE) else open_perceptual(name, device)

    def error(x: Tensor, y: Tensor) -> Tensor:
        """The error of reconstructions y, [B]."""
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
