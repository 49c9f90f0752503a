"""Values that a program gives to settings, read by the type of each as the command line reads its words."""

from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from tyro.constructors import PrimitiveConstructorSpec

from ..errors import InputError, check_choice
from ..spellings import TRUTH

KINDS = {bool: "True or False", int: "a whole number", float: "a number", str: "text", Path: "a path"}


def value_of(kind: Any, name: str, value: Any) -> Any:
    """Convert a value to a field's type. InputError, with the field's name, for one that it cannot have.

    Numbers may be given as text, one value stands for a tuple of one (of two, for both), a path for text, text for a
    path. kind: the type, also one annotated with how its words are read.
    """
    marks: tuple[Any, ...] = ()
    while get_origin(kind) is Annotated or hasattr(kind, "__metadata__"):
        kind, *more = get_args(kind)
        marks += tuple(more)
    if get_origin(kind) in (Union, UnionType):
        kinds = get_args(kind)
        if value is None and NoneType in kinds:
            return None
        (kind,) = (each for each in kinds if each is not NoneType)
    reader = next((mark for mark in marks if isinstance(mark, PrimitiveConstructorSpec)), None)
    if reader is not None and isinstance(value, str) and kind in (int, float):
        return reader.instance_from_str([value])
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        if isinstance(value, bool) and {"yes", "no"} <= set(choices):
            value = "yes" if value else "no"
        return check_choice(name, value, choices)
    if get_origin(kind) is tuple:
        return _tuple_of(get_args(kind), name, value)
    return _plain(kind, name, value)


def _tuple_of(kinds: tuple[Any, ...], name: str, value: Any) -> tuple[Any, ...]:
    """Convert a sequence, or the one value that stands for it."""
    several = list(value) if isinstance(value, (list, tuple, range)) else [value]
    if Ellipsis in kinds:
        return tuple(value_of(kinds[0], name, each) for each in several)
    if len(several) == 1:
        several *= len(kinds)
    if len(several) != len(kinds):
        raise InputError(f"{name} takes {len(kinds)} values, got {value!r}")
    return tuple(value_of(kind, name, each) for kind, each in zip(kinds, several, strict=True))


def _plain(kind: Any, name: str, value: Any) -> Any:
    """Convert to a bool, int, float, str or Path; other types are taken as they are."""
    if kind is bool:
        if isinstance(value, str) and value.lower() in TRUTH:
            return TRUTH[value.lower()]
        if isinstance(value, bool):
            return value
    elif kind in (int, float):
        if isinstance(value, str) or (hasattr(value, "__float__") and not isinstance(value, bool)):
            try:
                number = kind(value)
                if isinstance(value, str) or number == float(value):
                    return number
            except (ValueError, TypeError, OverflowError):
                pass
    elif kind is str:
        if isinstance(value, PathLike):
            return fspath(value)
        if isinstance(value, (str, int)) and not isinstance(value, bool):
            return str(value)
    elif kind is Path:
        if isinstance(value, (str, PathLike)):
            return Path(value)
    else:
        return value
    raise InputError(f"{name} must be {KINDS[kind]}, got {value!r:.60}")


def values_of(kinds: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Convert every value to the type of its field."""
    return {name: value_of(kinds[name], name, value) for name, value in values.items()}
