"""The verb train, with autoencoder and latent: whose flags have the data's and the run's own values as defaults."""

import sys
from dataclasses import replace
from pathlib import Path

import tyro

from ..config.presets import autoencoder_config
from ..config.run import Config
from ..errors import InputError
from ..requests.train import Train, TrainAutoencoder, TrainLatent
from ..runs.run_directory import is_run, open_run
from ..signals import stop_on_signals
from ..training.plan import BUDGETS, data_defaults, model_defaults, one_budget, planned, source_name
from . import clock
from .parsing import Line


def train(argv: list[str]) -> int:
    if argv[:1] in (["autoencoder"], ["latent"]):
        return (train_autoencoder if argv[0] == "autoencoder" else train_latent)(argv[1:])
    line = Line("train", Train, argv)
    requests: list[Train] = []

    def configured(default: Config) -> Config:
        requests.append(line.request(Train(source=tyro.MISSING, config=default)))
        return requests[-1].config

    config, path, said = planned(line, line.words[0] if line.words else "", configured)
    if said:
        print(said)
    return _trained(requests[-1].source, config, path, requests[-1].profile, clock.began, requests[-1].origin)


def train_autoencoder(argv: list[str]) -> int:
    line = Line("train autoencoder", TrainAutoencoder, argv)
    path = Path(line.get("--run") or Path("runs") / f"{_name(line)}-autoencoder")
    default = open_run(path).config if is_run(path) else autoencoder_config()
    if (autoencoder := default.autoencoder) is None:
        raise InputError(f"{path} draws images, it is no autoencoder; choose another --run")
    default = one_budget(line, default)
    request = line.request(TrainAutoencoder(tyro.MISSING, None, 0, autoencoder, default.data, default.train))
    config = replace(default, data=request.data, autoencoder=request.autoencoder, train=request.train)
    if not is_run(path):
        config = _sized(line, request.source, config)
    return _trained(request.source, config, path, request.profile, clock.began)


def _sized(line: Line, source: str, config: Config) -> Config:
    """The config of a new autoencoder, with the size and channels that suit its images, which is said."""
    fresh, said = data_defaults(line, source, config)
    if said:
        print(said)
    return replace(config, data=replace(config.data, size=fresh.data.size, channels=fresh.data.channels))


def train_latent(argv: list[str]) -> int:
    line = Line("train latent", TrainLatent, argv)
    path = Path(line.get("--run") or Path("runs") / f"{_name(line)}-latent")
    own = path.with_name(f"{path.name}-autoencoder")
    first = open_run(own).config if is_run(own) else autoencoder_config()
    if first.autoencoder is None:
        raise InputError(f"{own} draws images, and the autoencoder of {path} would be there; choose another --run")
    second = model_defaults(line, path)
    if is_run(own) and not is_run(path):
        second = replace(second, data=first.data)
    request = line.request(TrainLatent(tyro.MISSING, stage=first.autoencoder, config=replace(second, first_stage=None)))
    if not is_run(own) and not is_run(path):
        stage = replace(first, data=request.config.data, autoencoder=request.stage, train=request.config.train)
        data = _sized(line, request.source, stage).data
        request = replace(request, config=replace(request.config, data=data))
    from ..training.two_stages import split

    divided = not is_run(path) or any(flag in line.given for flag in BUDGETS)  # else each has its share already
    for config, where in split(request, first, own, path, divided):
        if code := _trained(request.source, config, where, 0, None if where == path else clock.began):
            return code
    return 0


def _trained(
    source: str, config: Config, path: Path, profile: int, began: float | None, origin: Path | None = None
) -> int:
    """The exit code of a training whose time counts from `began` on, or from now."""
    from ..training.nonfinite import TrainingError
    from ..training.session import train as train_verb

    try:
        stopped_by = train_verb(source, config, path, profile, began, origin, stop_on_signals)
        return 128 + stopped_by if stopped_by else 0
    except TrainingError as error:
        print(f"bytepixels: {error}", file=sys.stderr)
        return 1


def _name(line: Line) -> str:
    return source_name(line.words[0] if line.words else "")
