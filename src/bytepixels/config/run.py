"""One config for a run: frozen dataclasses, checked when they are made. The command line's flags are these fields.

Sizes in pixels (height, width); budgets, warm-up and half-lives in images (training images seen), not steps.
"""

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, get_args, get_type_hints

from tyro.conf import Suppress, arg

from ..errors import InputError, check_choice, check_range
from .autoencoder import AutoencoderConfig
from .data import DataConfig
from .diffusion import ProcessConfig
from .network import NetworkConfig, flag_of
from .sampling import MOST_STEPS, SampleConfig
from .training import TrainConfig
from .units import plain_value
from .values import value_of


@dataclass(frozen=True)
class Config:
    """The run as a whole: the preset that it begins with, and the autoencoder whose latents it models."""

    preset: str = "small"
    """Preset that sets all defaults: small (32 x 32, on a CPU), digits (the demo, 8 x 8), cifar10 or speedrun (GPU)."""
    data: DataConfig = field(default_factory=DataConfig)
    process: ProcessConfig = field(default_factory=ProcessConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
    first_stage: Annotated[str | None, arg(name="autoencoder", metavar="RUN")] = None
    """Train on the latents of an autoencoder: a run of train autoencoder, or a diffusers folder of an AutoencoderKL.
    Default: on pixels."""
    autoencoder: Suppress[AutoencoderConfig | None] = None
    """What is trained is an autoencoder; of the rest, --diffusion and the like, nothing is used."""

    def __post_init__(self) -> None:
        check_steps(self.sample, self.process)
        told = self.network.labels or self.network.text is not None
        for flag, scale in self.guidance_scales().items():
            if scale != 1 and not (told and self.train.label_dropout > 0):
                raise InputError(f"{flag} {scale:g} needs class labels and a --label-dropout above 0")

    def guidance_scales(self) -> dict[str, float]:
        """The scales by their flags, of guidance that is drawn with and that is trained in; 1 is none."""
        return {"--guidance": self.sample.guidance, "--trained-guidance": self.process.trained_guidance}

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dictionaries and lists, as config.json holds them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Config":
        """The inverse of to_dict. Unknown keys raise InputError with the nearest known one."""
        return read_config(cls, values, "config")


OF_BOTH: dict[str, type] = {"data": DataConfig, "train": TrainConfig}
OF_MODELS = OF_BOTH | {"process": ProcessConfig, "network": NetworkConfig, "sample": SampleConfig}
OF_AUTOENCODERS = OF_BOTH | {"autoencoder": AutoencoderConfig}


def with_settings(config: Config, settings: Mapping[str, Any]) -> Config:
    """Replace settings by name, as flags have them: lr=1e-3, images="500k", size=64, labels=False.

    Raises InputError for a name that no setting has, with the nearest one, and for a value that it cannot have.
    """
    values, sections = config.to_dict(), OF_MODELS if config.autoencoder is None else OF_AUTOENCODERS
    where = {one.name: section for section, kind in sections.items() for one in fields(kind)}
    others = {"preset": "preset", "autoencoder": "first_stage"} if config.autoencoder is None else {}
    for name, value in settings.items():
        if name in others:
            values[others[name]] = None if value is None else str(value)
        else:
            section = where[check_choice("a setting", name, [*where, *others])]
            values[section][name] = _as_setting(sections[section], name, value)
    return Config.from_dict(values)


def _as_setting(section: type, name: str, value: Any) -> Any:
    """Convert a value to its form in config.json; text such as "500k" is read as on the command line."""
    found = value_of(get_type_hints(section, include_extras=True)[name], name, value)
    return list(found) if isinstance(found, tuple) else str(found) if isinstance(found, Path) else found


def check_steps(sample: SampleConfig, process: ProcessConfig) -> None:
    """Raise InputError for more steps than the process has levels, or a variance that no network learned."""
    check_range("--steps", sample.steps, 1, process.timesteps if process.diffusion == "ddpm" else MOST_STEPS)
    if sample.reverse_variance == "learned" and process.variance != "learned":
        raise InputError("--reverse-variance learned needs a run that was trained with --variance learned")


# What may change when a run goes on: its budget (which a decaying learning rate follows), its devices, how much of a
# batch they hold at a time and what is compiled for them, what becomes of a loss that is not finite, and how it is
# watched; where the text encoder lies, which is known by its hash. Nothing else, so that its curve is that of one
# experiment.
WATCHING = {
    "checkpoint_minutes",
    "keep",
    "previews",
    "preview_images",
    "measure",
    "log_seconds",
    "tensorboard",
    "wandb",
}
BUDGET = {"images", "epochs", "budget"}
PLACES = {"first_stage", "text"}
MUTABLE = BUDGET | PLACES | {"device", "shard", "compile", "micro_batch", "on_nonfinite", "strict"} | WATCHING


def changed_settings(old: Config, new: Config) -> list[str]:
    """The flags that differ between two configs of a run and must not, as "--lr 0.0002 -> 0.001"."""
    return [
        f"{_flag(name)} {plain_value(before)} -> {plain_value(after)}"
        for name, (before, after) in _differences(old, new).items()
        if name not in MUTABLE and not name.startswith("sample.")
    ]


def own_settings(config: Config, preset: Config, data_as_asked: bool = False) -> list[str]:
    """The flags by which a config differs from its preset, as "--lr 0.001", quoted for a shell.

    Left out is what the data and the machine decided where the preset says None or auto, and the images that a budget
    in epochs or in time came to. data_as_asked: the settings of the data are as they were given, so none is left out.
    """
    counted = config.train.epochs is not None or config.train.budget is not None
    decided = {"device", "precision", "compile", "perceptual", "stem", "text_dim"} | ({"images"} if counted else set())
    decided |= set() if data_as_asked else {"size", "channels", "flip"}
    return [
        _given(name, after)
        for name, (before, after) in _differences(preset, config).items()
        if after is not None and not (name in decided and (name == "images" or before in (None, "auto")))
    ]


def _given(name: str, value: Any) -> str:
    """Write a flag and its value as the command line takes them."""
    flag = "--autoencoder" if name == "first_stage" else _flag(name)
    if name == "sample.clip":
        return f"{flag} {'yes' if value else 'no'}"
    if isinstance(value, bool):
        return flag if value else flag.replace("--", "--no-", 1)
    words = plain_value(value).split() if isinstance(value, tuple) else [str(value)]
    return f"{flag} {shlex.join(words)}".strip()


def _differences(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    before, after = _flat(old.to_dict()), _flat(new.to_dict())
    return {name: (before[name], after[name]) for name in before if before[name] != after[name]}


def _flag(name: str) -> str:
    return flag_of(name.removeprefix("sample."))


def _flat(nested: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            prefix = "sample." if key == "sample" else ""
            flat |= {prefix + name: inner for name, inner in value.items()}
        else:
            flat[key] = value
    return flat


RENAMED = {"preview_pictures": "preview_images"}  # keys of runs that earlier versions trained


def read_config(cls: Any, values: Mapping[str, Any], where: str) -> Any:
    """Build a dataclass of settings from plain dictionaries and lists; InputError for an unknown key."""
    types = get_type_hints(cls)
    known = [f.name for f in fields(cls)]
    made = {}
    for name, value in values.items():
        key = check_choice(f"a key of {where}", RENAMED.get(name, name), known)
        kind = types[key]
        if isinstance(kind, UnionType):  # a part that may be missing
            kind = next((one for one in get_args(kind) if is_dataclass(one) and value is not None), kind)
        if is_dataclass(kind):
            value = read_config(kind, value, key)
        elif isinstance(value, list):
            value = tuple(value)
        made[key] = value
    return cls(**made)
