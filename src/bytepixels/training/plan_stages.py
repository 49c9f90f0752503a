"""Plan the training of an autoencoder, and the two stages of latent diffusion, without loading torch."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..config.autoencoder import AutoencoderConfig
from ..config.presets import autoencoder_config
from ..config.run import Config
from ..config.training import TrainConfig
from ..config.units import seconds_of
from ..errors import InputError
from ..runs.models import RUNS
from ..runs.run_directory import is_run, open_run
from .plan import BUDGETS, Asked, data_defaults, model_defaults, one_budget, source_name


def planned_autoencoder(asked: Asked, source: str, configured: Callable[[Config], Config]) -> tuple[Config, Path, str]:
    """Plan the training of an autoencoder, see `planned`."""
    path = Path(asked.get("--run") or RUNS / f"{source_name(source)}-autoencoder")
    default = open_run(path).config if is_run(path) else autoencoder_config()
    if default.autoencoder is None:
        raise InputError(f"{path} draws images, it is no autoencoder; choose another --run")
    config = configured(one_budget(asked, default))
    if is_run(path):
        return config, path, ""
    config, said = _sized(asked, source, config)
    return config, path, said


def planned_latent(
    asked: Asked,
    source: str,
    configured: Callable[[AutoencoderConfig, Config], tuple[AutoencoderConfig, Config, float]],
) -> tuple[list[tuple[Config, Path]], str]:
    """Plan an autoencoder's training and one on its latents: settings, folders, and a line, see `planned`.

    configured: makes, of the defaults of both, the settings that were asked for, and the autoencoder's share of the
    budget.
    """
    path = Path(asked.get("--run") or RUNS / f"{source_name(source)}-latent")
    own = path.with_name(f"{path.name}-autoencoder")
    first = open_run(own).config if is_run(own) else autoencoder_config()
    if first.autoencoder is None:
        raise InputError(f"{own} draws images, and the autoencoder of {path} would be there; choose another --run")
    second, said = model_defaults(asked, path), ""
    if is_run(own) and not is_run(path):
        second = replace(second, data=first.data)
    stage, second, share = configured(first.autoencoder, replace(second, first_stage=None))
    if not is_run(own) and not is_run(path):
        sized, said = _sized(asked, source, replace(first, data=second.data, autoencoder=stage, train=second.train))
        second = replace(second, data=sized.data)
    if not asked.help:
        _check_latents(stage, second)
    divided = not is_run(path) or any(flag in asked.given for flag in BUDGETS)  # else each has its share already
    train = replace(
        _with_share(first.train, second.train, share) if divided else first.train,
        device=second.train.device,
        seed=second.train.seed,
        precision=second.train.precision,
        checkpoint_minutes=second.train.checkpoint_minutes,
        previews=second.train.previews,
        log_seconds=second.train.log_seconds,
    )
    rest = _with_share(second.train, second.train, 1 - share) if divided else second.train
    both = [(replace(first, data=second.data, autoencoder=stage, train=train), own)]
    return [*both, (replace(second, train=rest, first_stage=str(own)), path)], said


def _check_latents(stage: AutoencoderConfig, second: Config) -> None:
    """Raise InputError if the second network cannot take the latents, before the first one is trained for nothing."""
    import torch

    from ..build import build_network

    if second.data.size is None:
        return
    height, width = (side // stage.factor for side in second.data.size)
    try:
        build_network(second, (stage.latent_channels, height, width), 0, torch.device("meta"))
    except InputError as error:
        raise InputError(
            f"latents of {height} x {width} do not suit the model: {error}; try --stage.factor 1"
        ) from None


def _sized(asked: Asked, source: str, config: Config) -> tuple[Config, str]:
    """The config of a new autoencoder, with the size and channels that suit its images, and a line that says so."""
    fresh, said = data_defaults(asked, source, config)
    return replace(config, data=replace(config.data, size=fresh.data.size, channels=fresh.data.channels)), said


def _with_share(train: TrainConfig, whole: TrainConfig, share: float) -> TrainConfig:
    """Settings with a share of the whole budget, whether in images, epochs or time."""
    images = max(1, round(share * whole.images))
    budget = None if whole.budget is None else f"{max(1, round(share * seconds_of(whole.budget)))}s"
    epochs = None if whole.epochs is None else share * whole.epochs
    return replace(train, images=images, budget=budget, epochs=epochs)
