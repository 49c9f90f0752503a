"""The verb train, with autoencoder and latent: whose flags have the data's and the run's own values as defaults."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import tyro

from ..choices import SPLITS
from ..config.network import foreign_setting, settings_of_others
from ..config.presets import autoencoder_config, preset_with
from ..config.run import Config
from ..errors import InputError, check_choice
from ..requests.train import Train, TrainAutoencoder, TrainLatent
from ..runs.run_directory import is_run, open_run
from . import clock
from .parsing import Line
from .signals import stop_on_signals


def train(argv: list[str]) -> int:
    if argv[:1] in (["autoencoder"], ["latent"]):
        return (train_autoencoder if argv[0] == "autoencoder" else train_latent)(argv[1:])
    line = Line("train", Train, argv)
    backbone = line.get("--backbone")

    def place(preset: str) -> Path:
        names = (_stem(line), preset, "" if backbone in (None, "unet") else backbone)
        return Path(line.get("--run") or Path("runs") / "-".join(name for name in names if name))

    begun = _config_from(line)
    path, said = place(line.get("--preset") or (begun.preset if begun else "small")), ""
    request = line.request(Train(source=tyro.MISSING, config=_model_default(line, path, begun)))
    if not is_run(path):
        fresh, said = _from_data(line, request.source, request.config)
        path = place(fresh.preset)
        request = line.request(Train(source=tyro.MISSING, config=_model_default(line, path, fresh)))
    if said and not is_run(path):
        print(said)
    return _trained(request.source, request.config, path, request.profile, clock.began, request.origin)


def _config_from(line: Line) -> Config | None:
    """The settings of the run that --from names, if it is given. InputError for flags that contradict it."""
    if (origin := line.get("--from")) is None or line.help:
        return None
    from ..training.pretrained import config_from, open_origin

    config = config_from(open_origin(Path(origin))[0])
    for flag, own in (("--preset", config.preset), ("--backbone", config.network.backbone)):
        if line.get(flag) not in (None, own):
            raise InputError(f"--from {origin} has {flag} {own}, got {line.get(flag)}; leave the flag out")
    return config


def _from_data(line: Line, source: str, config: Config) -> tuple[Config, str]:
    """The defaults of a new run on these images: the size, the channels and, of a model, the preset that suit them;
    and a line that says so. `config`: what was asked for."""
    from ..hardware import best_device
    from ..training.defaults import choice_sentence, choose, headers_of, multiple_of, sized

    asked = replace(
        config.data,
        size=config.data.size if "--size" in line.given else None,
        channels=config.data.channels if "--channels" in line.given else None,
    )
    check_choice("--split", asked.split, SPLITS)
    stage = Path(config.first_stage) if config.first_stage and asked.size is None else None
    if stage is not None and is_run(stage):
        asked = replace(asked, size=open_run(stage).shape[1:])
    device, seen = best_device(config.train.device), headers_of(source, asked.split)
    multiple, preset = multiple_of(config), line.get("--preset")
    if config.autoencoder is not None or "--from" in line.given:
        fresh, preset = sized(config, seen, asked, device), config.preset
    else:
        own = multiple if {"--multipliers", "--patch", "--stem"} & set(line.given) else None
        fresh = choose(seen, asked, preset, device, config.network.backbone, own)
        multiple = own or multiple_of(fresh)
    if stage is not None and asked.size is not None:
        return fresh, f"Training at {asked.size[0]} x {asked.size[1]}, the size that {stage} was trained at"
    return fresh, choice_sentence(fresh, seen, asked, preset, multiple)


def _model_default(line: Line, path: Path, fresh: Config | None = None) -> Config:
    """What the flags of a model at `path` are by default; `fresh`, or the preset's, where no run is there. InputError
    for flags that do not go with it."""
    preset, backbone = line.get("--preset"), line.get("--backbone")
    if is_run(path):  # its own settings are the defaults, so that no flag need be repeated
        default = open_run(path).config
        if default.autoencoder is not None:
            raise InputError(f"{path} is an autoencoder: bytepixels train autoencoder goes on with it")
        for flag, asked, own in (
            ("--preset", preset, default.preset),
            ("--backbone", backbone, default.network.backbone),
        ):
            if asked not in (None, own):
                raise InputError(f"{path} was begun with {flag} {own}, got {asked}; choose another --run")
    else:
        default = fresh or preset_with(preset or "small", backbone or "unet")
        if line.help:  # which size a new run has, its images decide
            default = replace(default, data=replace(default.data, size=None))
    for name in settings_of_others(default.network.backbone):
        if f"--{name}" in line.given:
            raise InputError(foreign_setting(name, default.network.backbone))
    return _one_budget(line, default)


def _one_budget(line: Line, default: Config) -> Config:
    """If a budget flag is given, drop the default epochs and time budget. InputError for several of them."""
    given = [flag for flag in BUDGETS if flag in line.given]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} say the same thing in different units; give one of them")
    return replace(default, train=replace(default.train, epochs=None, budget=None)) if given else default


def train_autoencoder(argv: list[str]) -> int:
    line = Line("train autoencoder", TrainAutoencoder, argv)
    path = Path(line.get("--run") or Path("runs") / f"{_stem(line)}-autoencoder")
    default = open_run(path).config if is_run(path) else autoencoder_config()
    if (autoencoder := default.autoencoder) is None:
        raise InputError(f"{path} draws pictures, it is no autoencoder; choose another --run")
    default = _one_budget(line, default)
    request = line.request(TrainAutoencoder(tyro.MISSING, None, 0, autoencoder, default.data, default.train))
    config = replace(default, data=request.data, autoencoder=request.autoencoder, train=request.train)
    if not is_run(path):
        config = _sized(line, request.source, config)
    return _trained(request.source, config, path, request.profile, clock.began)


def _sized(line: Line, source: str, config: Config) -> Config:
    """The config of a new autoencoder, with the size and channels that suit its images, which is said."""
    fresh, said = _from_data(line, source, config)
    if said:
        print(said)
    return replace(config, data=replace(config.data, size=fresh.data.size, channels=fresh.data.channels))


def train_latent(argv: list[str]) -> int:
    line = Line("train latent", TrainLatent, argv)
    path = Path(line.get("--run") or Path("runs") / f"{_stem(line)}-latent")
    own = path.with_name(f"{path.name}-autoencoder")
    first = open_run(own).config if is_run(own) else autoencoder_config()
    if first.autoencoder is None:
        raise InputError(f"{own} draws pictures, and the autoencoder of {path} would be there; choose another --run")
    second = _model_default(line, path)
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


BUDGETS = ("--images", "--epochs", "--budget")


def _stem(line: Line) -> str:
    """ "pictures/cats.tar.xz" -> "cats", "train-{000..127}.tar" -> "train"."""
    source = line.words[0] if line.words else ""
    return re.split(r"\.|[-_]?\{", Path(source).absolute().name)[0] or "pictures"
