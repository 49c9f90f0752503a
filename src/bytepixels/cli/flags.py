"""The flags of a verb, read from the fields of its request."""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from tyro.conf import FlagConversionOff, OmitArgPrefixes, Positional, Suppress
from tyro.constructors import PrimitiveConstructorSpec


@dataclasses.dataclass(frozen=True)
class Flag:
    """A flag of a verb and the type of its values; a flag without -- is a positional argument."""

    name: str
    kind: Any  # without None
    optional: bool  # None is a value
    required: bool
    default: Any
    pair: bool  # --name and --no-name stand for true and false
    checked: bool  # by its type alone
    metavar: str
    field: str  # its name in its dataclass
    group: Any  # the dataclass

    @property
    def is_flag(self) -> bool:
        return self.name.startswith("--")

    @property
    def negative(self) -> str:
        """The spelling that turns the flag off: --no-NAME, or --PART.no-NAME."""
        return re.sub(r"^(--.*\.|--)", r"\1no-", self.name)


def flags_of(group: Any, default: Any = None, prefix: str = "--", bare: bool = False) -> Iterator[Flag]:
    """List the flags of a dataclass, as tyro names them. `default`: an instance whose values are the defaults."""
    hints = get_type_hints(group, include_extras=True)
    for field in dataclasses.fields(group):
        hint: Any = hints[field.name]
        marks: tuple[Any, ...] = ()
        if get_origin(hint) is Annotated:
            hint, *marks = get_args(hint)  # type: ignore[assignment]
        if Suppress in marks:
            continue
        argument = next((mark for mark in marks if hasattr(mark, "metavar") and hasattr(mark, "aliases")), None)
        own = getattr(argument, "name", None) or field.name.replace("_", "-")
        kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        one = next(each for each in kinds if each is not type(None))
        missing = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        value = getattr(default, field.name) if default is not None else field.default
        if value is dataclasses.MISSING and not missing:
            value = field.default_factory()  # type: ignore[operator]
        if dataclasses.is_dataclass(one):
            alone = bare or OmitArgPrefixes in marks
            yield from flags_of(one, value, prefix if alone else f"{prefix}{own}.", alone)
            continue
        pair = one is bool and len(kinds) == 1 and FlagConversionOff not in marks
        name = own if Positional in marks else prefix + own
        reader = next((mark for mark in marks if isinstance(mark, PrimitiveConstructorSpec)), None)
        metavar = getattr(argument, "metavar", None) or (reader.metavar if reader else _metavar(one, own))
        optional = type(None) in kinds
        yield Flag(name, one, optional, missing, value, pair, reader is None, metavar, field.name, group)


def _metavar(kind: Any, name: str) -> str:
    """The placeholder of a value in the help: its choices, N for a number, else the name of its type."""
    if get_origin(kind) is Literal:
        return "|".join(map(str, get_args(kind)))
    if get_origin(kind) is tuple:
        first, *others = (_metavar(each, name) for each in get_args(kind) if each is not Ellipsis)
        return " ".join([first, *others] if others else [first, "..."])
    return {bool: "yes|no", int: "N", float: "X", Path: "PATH"}.get(kind, name.upper())
