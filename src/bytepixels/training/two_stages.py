"""train latent and encode: the two stages of latent diffusion, one after the other."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ..config.run import Config
from ..config.training import TrainConfig
from ..config.units import seconds_of
from ..hardware import best_device
from ..requests.train import Encode, TrainLatent
from ..runs.packing import flips, pack_with_progress
from ..sampling.first_stage import encode as encode_pictures
from ..sampling.first_stage import find_first_stage
from ..wording import many


def split(
    request: TrainLatent, first: Config, own: Path, path: Path, divided: bool = True
) -> list[tuple[Config, Path]]:
    """The config and the place of both trainings, each with its share of the budget; or, where it is not divided, with
    the budgets that the two have. `first`: the defaults."""
    second = request.config
    train = replace(
        _with_share(first.train, second.train, request.share) if divided else first.train,
        device=second.train.device,
        seed=second.train.seed,
        precision=second.train.precision,
        checkpoint_minutes=second.train.checkpoint_minutes,
        previews=second.train.previews,
        log_seconds=second.train.log_seconds,
    )
    stage = replace(first, data=second.data, autoencoder=request.stage, train=train)
    rest = _with_share(second.train, second.train, 1 - request.share) if divided else second.train
    return [(stage, own), (replace(second, train=rest, first_stage=str(own)), path)]


def _with_share(train: TrainConfig, whole: TrainConfig, share: float) -> TrainConfig:
    """Settings with a share of the whole budget, in whatever that is given."""
    images = max(1, round(share * whole.images))
    budget = None if whole.budget is None else f"{max(1, round(share * seconds_of(whole.budget)))}s"
    epochs = None if whole.epochs is None else share * whole.epochs
    return replace(train, images=images, budget=budget, epochs=epochs)


def encode(request: Encode) -> Iterator[str]:
    """Encode, and say where the latents are and what they are like. InputError where the two do not fit together."""
    device = best_device(request.device)
    autoencoder = find_first_stage(request.autoencoder, device)
    packed = pack_with_progress(request.source, request.data)
    mirrored = flips(Config(data=request.data), packed)
    latents = encode_pictures(packed, autoencoder, mirrored, device)
    z, h, w = latents.shape
    ways = ", as they are and mirrored" if mirrored else ""
    yield f"{many(len(latents), 'image')}{ways}: latents of {h} x {w}, channels {z}, in {latents.path}"
    for channel, (mean, deviation) in enumerate(
        zip(latents.statistics["mean"], latents.statistics["deviation"], strict=True)
    ):
        yield f"  channel {channel}: mean {mean:.4g}, deviation {deviation:.4g}"
    yield f"train on them: bytepixels train {request.source} --autoencoder {request.autoencoder}"
