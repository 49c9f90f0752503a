"""The data of evaluate --loss: x0 as in training, without mirroring, and the whole training distribution."""

import torch
from torch import Tensor

from ..codec.codec import Codec, LatentCodec, PixelCodec, encoder_of
from ..distributed.process_group import ProcessGroup
from ..metrics.optimal_denoiser import EmpiricalImages, LatentMixture, TrainingDistribution
from ..randomness import LATENT, seeded
from ..runs.image_sets import ImageSet
from ..runs.run_directory import Run
from ..sampling.first_stage import encode, kept


def drawn_x0(images: Tensor, codec: Codec, seed: int) -> Tensor:
    """Sample x0 [n, c, h, w] of images uint8 [n, C, H, W] on their device: latents with noise that depends on the seed,
    as in training."""
    if not isinstance(codec, LatentCodec):
        return codec.to_model(images)
    encoder = encoder_of(codec.autoencoder, images.device)
    means, deviations = zip(*map(encoder, images.split(codec.at_a_time)), strict=True)
    mean, deviation = torch.cat(means), torch.cat(deviations)
    noise = torch.empty_like(mean).normal_(generator=seeded(seed, LATENT, device=mean.device))
    return codec.to_model(mean + deviation * noise)


def known_of(run: Run, own: ImageSet, codec: Codec, world: ProcessGroup, device: torch.device) -> TrainingDistribution:
    """The training distribution of a run: its images, or their latents, cached or encoded again."""
    mirrored = run.config.data.flip == "yes"
    if not isinstance(codec, LatentCodec):
        assert isinstance(codec, PixelCodec)
        return EmpiricalImages(own.packed.images, own.labels, mirrored)
    autoencoder = kept(run.path, run.data["first_stage"]["sha256"], device)
    latents = world.run_everywhere(lambda: encode(own.packed, autoencoder, mirrored, device))
    return LatentMixture(latents.moments, own.labels, codec)
