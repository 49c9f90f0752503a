"""Plan a training: its settings and folder, from the request, the images and the existing run.

Nothing here loads torch before it is needed, so that the help of train is there at once.
"""

import re
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from ..choices import SPLITS
from ..config.network import flag_of, foreign_setting, settings_of_others
from ..config.presets import preset_with
from ..config.run import Config
from ..errors import InputError, check_choice
from ..runs.models import RUNS
from ..runs.run_directory import is_run, open_run

BUDGETS = ("--images", "--epochs", "--budget")


class Asked(Protocol):
    """The requested flags."""

    @property
    def given(self) -> Collection[str]:
        """The flags that were given, "--lr"."""

    @property
    def help(self) -> bool:
        """Whether --help was given instead of a training."""

    def get(self, flag: str) -> str | None:
        """The value of a flag, None where it was not given."""


def planned(asked: Asked, source: str, configured: Callable[[Config], Config]) -> tuple[Config, Path, str]:
    """The settings of a training of `source`, its run's folder, and a line about what its images decided.

    configured: makes, of the defaults, the settings that were asked for. The defaults are those of the run that is
    there, else of the preset that suits the images. InputError for what does not go together.
    """
    backbone, begun = asked.get("--backbone"), _origin_config(asked)

    def place(preset: str) -> Path:
        names = (source_name(source), preset, "" if backbone in (None, "unet") else backbone)
        return Path(asked.get("--run") or RUNS / "-".join(name for name in names if name))

    path = place(asked.get("--preset") or (begun.preset if begun else "small"))
    config = configured(model_defaults(asked, path, begun))
    if is_run(path):
        return config, path, ""
    fresh, said = data_defaults(asked, source, config)
    path = place(fresh.preset)
    return configured(model_defaults(asked, path, fresh)), path, "" if is_run(path) else said


def source_name(source: str) -> str:
    """The name of a source: "images/cats.tar.xz" -> "cats", "train-{000..127}.tar" -> "train"."""
    return re.split(r"\.|[-_]?\{", Path(source).absolute().name if source else "")[0] or "pictures"


def _origin_config(asked: Asked) -> Config | None:
    """The settings of the run that --from names, if it is given. InputError for flags that contradict it."""
    if (origin := asked.get("--from")) is None or asked.help:
        return None
    from .pretrained import config_from, open_origin

    config = config_from(open_origin(Path(origin))[0], asked.get("--objective"))
    for flag, own in (("--preset", config.preset), ("--backbone", config.network.backbone)):
        if asked.get(flag) not in (None, own):
            raise InputError(f"--from {origin} has {flag} {own}, got {asked.get(flag)}; leave the flag out")
    return config


def data_defaults(asked: Asked, source: str, config: Config) -> tuple[Config, str]:
    """The defaults of a new run on these images (size, channels and, for a model, preset), and a line about them.
    `config`: what was asked for."""
    from ..hardware import best_device
    from .defaults import choice_sentence, choose, headers_of, multiple_of, sized

    data = replace(
        config.data,
        size=config.data.size if "--size" in asked.given else None,
        channels=config.data.channels if "--channels" in asked.given else None,
    )
    check_choice("--split", data.split, SPLITS)
    stage = Path(config.first_stage) if config.first_stage and data.size is None else None
    if stage is not None and is_run(stage):
        data = replace(data, size=open_run(stage).shape[1:])
    device, seen = best_device(config.train.device), headers_of(source, data.split)
    multiple, preset = multiple_of(config), asked.get("--preset")
    if config.autoencoder is not None or "--from" in asked.given:
        fresh, preset = sized(config, seen, data, device), config.preset
    else:
        own = multiple if {"--multipliers", "--patch", "--stem"} & set(asked.given) else None
        fresh = choose(seen, data, preset, device, config.network.backbone, own)
        multiple = own or multiple_of(fresh)
    if stage is not None and data.size is not None:
        return fresh, f"Training at {data.size[0]} x {data.size[1]}, the size that {stage} was trained at"
    return fresh, choice_sentence(fresh, seen, data, preset, multiple) if seen else ""  # packing says what is wrong


def model_defaults(asked: Asked, path: Path, fresh: Config | None = None) -> Config:
    """The defaults of a model's flags at `path`; `fresh`, or the preset's, if there is no run. InputError for flags
    that do not go with it."""
    preset, backbone = asked.get("--preset"), asked.get("--backbone")
    if is_run(path):  # its own settings are the defaults, so that no flag need be repeated
        default = open_run(path).config
        if default.autoencoder is not None:
            raise InputError(f"{path} is an autoencoder: bytepixels train autoencoder goes on with it")
        for flag, value, own in (
            ("--preset", preset, default.preset),
            ("--backbone", backbone, default.network.backbone),
        ):
            if value not in (None, own):
                raise InputError(f"{path} was begun with {flag} {own}, got {value}; choose another --run")
    else:
        default = fresh or preset_with(preset or "small", backbone or "unet")
        if asked.help:  # which size a new run has, its images decide
            default = replace(default, data=replace(default.data, size=None))
        if asked.get("--diffusion") not in (None, default.process.diffusion):  # draws its noise levels in its own way
            default = replace(default, process=replace(default.process, times="auto"))
    for name in settings_of_others(default.network.backbone):
        if flag_of(name) in asked.given:
            raise InputError(foreign_setting(name, default.network.backbone))
    return one_budget(asked, default)


def one_budget(asked: Asked, default: Config) -> Config:
    """If a budget flag is given, drop the default epochs and time budget. InputError for several of them."""
    given = [flag for flag in BUDGETS if flag in asked.given]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} say the same thing in different units; give one of them")
    return replace(default, train=replace(default.train, epochs=None, budget=None)) if given else default
