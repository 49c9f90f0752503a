"""The verb encode: encode images with an autoencoder into the cache, for training on their latents."""

from pathlib import Path

from .. import events
from ..config.run import Config
from ..hardware import best_device
from ..requests.train import Encode
from ..runs.packing import flips, pack_with_progress
from ..sampling.first_stage import encode as encode_images
from ..sampling.first_stage import find_first_stage
from ..wording import many


def encode(request: Encode) -> Path:
    """Encode images, print the statistics of the latents, and return their path. InputError if the two do not fit."""
    device = best_device(request.device)
    autoencoder = find_first_stage(request.autoencoder, device)
    packed = pack_with_progress(request.source, request.data)
    mirrored = flips(Config(data=request.data), packed)
    latents = encode_images(packed, autoencoder, mirrored, device)
    z, h, w = latents.shape
    ways = ", as they are and mirrored" if mirrored else ""
    events.say(f"{many(len(latents), 'image')}{ways}: latents of {h} x {w}, channels {z}, in {latents.path}")
    for channel, (mean, deviation) in enumerate(
        zip(latents.statistics["mean"], latents.statistics["deviation"], strict=True)
    ):
        events.say(f"  channel {channel}: mean {mean:.4g}, standard deviation {deviation:.4g}")
    events.say(f"train on them: bytepixels train {request.source} --autoencoder {request.autoencoder}")
    return latents.path
