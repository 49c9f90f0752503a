"""Keyword arguments of Python calls as requests and settings: named like the flags, with _ for -."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from typing import Any, TypeVar, get_type_hints

from ..config.run import Config, with_settings
from ..config.values import values_of
from ..errors import check_choice

T = TypeVar("T")


class Keywords:
    """Keyword arguments, by the names of the flags that they stand for."""

    help = False

    def __init__(self, settings: Mapping[str, Any]):
        self.values = {f"--{name.replace('_', '-')}": value for name, value in settings.items()}

    @property
    def given(self) -> Collection[str]:
        """The flags that were given."""
        return self.values.keys()

    def get(self, flag: str) -> str | None:
        """The value of a flag, None where it was not given."""
        value = self.values.get(flag)
        return None if value is None else str(value)


def configured(default: Config, settings: Mapping[str, Any]) -> Config:
    """Apply keyword settings to the defaults, which preset and backbone have already decided."""
    own = {name: value for name, value in settings.items() if name not in ("preset", "backbone")}
    return with_settings(default, own)


def request_of(kind: Callable[..., T], own: Mapping[str, Any], settings: Mapping[str, Any]) -> T:
    """Build a request from keywords. own: fields that the call itself sets. InputError for an unknown setting."""
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    for name in settings:
        check_choice("a setting", name, sorted(known - own.keys()))
    kinds = get_type_hints(kind, include_extras=True)
    return kind(**values_of(kinds, dict(own) | dict(settings)))
