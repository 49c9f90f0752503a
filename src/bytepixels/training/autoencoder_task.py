"""train autoencoder, as the trainer sees it: reconstructions of a run's own pictures."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..build import build_codes, build_first_stage, build_reconstruction_loss
from ..codec.codec import PixelCodec
from ..codec.reconstruction_losses import kl_divergence, psnr, ssim
from ..config.units import images_in
from ..data import Packed
from ..data.batches import Batches
from ..distributed.process_group import World
from ..errors import InputError
from ..images import beside, grid
from ..metrics.feature_cache import chosen_rows
from ..networks import Autoencoder
from ..networks.discriminator import FirstStage
from ..randomness import NOISE, seeded
from ..runs.run_directory import Run, provenance
from ..stopping import Stop
from ..wording import many
from .loop import Batch, Loss, TrainState
from .micro_batch import is_out_of_memory
from .perceptual import NONE, open_perceptual

AT_A_TIME = 2**20  # pixels in one call of the autoencoder


class Autoencoding:
    """An autoencoder of pictures."""

    what = "reconstructions"
    which = "pictures left, what the average makes of their latents right"
    steps = passes = 1

    def __init__(self, run: Run, packed: Packed, world: World):
        config, device = run.config, world.device
        assert config.autoencoder is not None
        if config.train.shard:
            raise InputError("--shard is for networks that draw pictures; an autoencoder is trained without it")
        if config.train.compile == "yes" and config.autoencoder.discriminator > 0:
            raise InputError("--compile yes does not go with --discriminator, whose weight needs a gradient on the way")
        if config.autoencoder.perceptual not in (None, NONE):
            try_perceptual(config.autoencoder.perceptual, run.shape, device)
        self.run, self.packed, self.device, self.leads = run, packed, device, world.rank == 0
        self.budget = run.config.train.images
        train, flip = config.train, config.data.flip == "yes"
        self.batches = Batches(
            packed.images, packed.labels, train.batch, train.seed, flip, device, world.rows(train.batch)
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
        """(images uint8, noise for their latents, share of the discriminator): a function of (seed, step)."""
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
        record = {"kind": "reconstruction", **found, "n": len(images), "of": "training pictures"}
        return record | {"made_by": provenance()}, in_words(found, many(len(images), "training picture"))

    def _some(self, count: int) -> Tensor:
        """uint8 [count or fewer, C, H, W], always the same."""
        return torch.from_numpy(np.array(self.packed.images[chosen_rows(len(self.packed), count).numpy()]))


@torch.no_grad()
def try_perceptual(path: str, shape: tuple[int, int, int], device: torch.device) -> None:
    """Give it two pictures. InputError where it cannot take them."""
    distance = open_perceptual(path, device)
    try:
        distance(*torch.zeros(2, 2, *shape, device=device))
    except (RuntimeError, torch.jit.Error) as error:
        if is_out_of_memory(error):
            raise
        why = str(error).strip().rpartition("\n")[2].removeprefix("RuntimeError: ")
        raise InputError(f"--perceptual {path} cannot take pictures of {shape[1]} x {shape[2]}: {why}") from error


def _own(model: nn.Module) -> Autoencoder:
    """The autoencoder in what is trained."""
    assert isinstance(model, FirstStage)
    return model.autoencoder


def parts_of(images: Tensor) -> Iterator[Tensor]:
    """In parts that fit in one call."""
    return iter(images.split(max(1, AT_A_TIME // (images.shape[2] * images.shape[3]))))


@torch.no_grad()
def reconstructed(
    autoencoder: nn.Module, images: Tensor, device: torch.device, count: Callable[[int], None] = lambda done: None
) -> Tensor:
    """Pictures uint8 [n, C, H, W] through the mean of their latents, and back. count: called with how many are done."""
    codec, again = PixelCodec(), list[Tensor]()
    for x in parts_of(images):
        again.append(codec.to_images(autoencoder(codec.to_model(x.to(device)))).cpu())
        count(sum(map(len, again)))
    return torch.cat(again)


@torch.no_grad()
def fidelity(autoencoder: Autoencoder, images: Tensor, again: Tensor, device: torch.device) -> dict[str, float]:
    """What is left of pictures uint8 [n, C, H, W], reconstructed in `again`: means of PSNR (dB) and SSIM; and of the
    latents the divergence in nats per number (kl), or the share of codes in use and their perplexity (vq)."""
    codec = PixelCodec()
    pairs = list(zip(parts_of(images), parts_of(again), strict=True))
    alike = torch.cat([ssim(codec.to_model(x), codec.to_model(y)) for x, y in pairs])
    found = {"psnr": psnr(images, again).clamp(max=100).mean().item(), "ssim": alike.mean().item()}
    moments = [autoencoder.encode(codec.to_model(x.to(device))) for x in parts_of(images)]
    if autoencoder.quantizer is None:
        nats = torch.cat([kl_divergence(*one) for one in moments])
        return found | {"kl": nats.mean().item() / moments[0][0][0].numel()}
    index = torch.cat([autoencoder.quantizer.nearest(mean).flatten() for mean, _ in moments])
    share = index.bincount(minlength=len(autoencoder.quantizer.codes)).double() / len(index)
    return found | {
        "codes_used": (share > 0).double().mean().item(),
        "perplexity": torch.special.entr(share).sum().exp().item(),
    }


def in_words(found: dict[str, float], of: str) -> str:
    """A sentence without its end."""
    said = f"PSNR {found['psnr']:.2f} dB, SSIM {found['ssim']:.4f} ({of})"
    if "kl" in found:
        return f"{said}; {found['kl']:.2f} nats per number of a latent"
    return f"{said}; {found['codes_used']:.0%} of the codes in use, perplexity {found['perplexity']:.0f}"
