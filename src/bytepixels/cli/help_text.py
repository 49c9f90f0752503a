"""The help of a verb, written from the dataclass of its flags: their types, defaults and the texts below them."""

import inspect
import re
import shutil
import textwrap
from collections.abc import Iterator
from functools import cache
from typing import Any

from docstring_parser import parse_from_object

from .. import choices, registries
from .flags import Flag, flags_of

INDENT = " " * 6


def help_of(verb: str, kind: Any, default: Any = None) -> str:
    """Write the text of `bytepixels VERB --help`. `default`: an instance with the default values."""
    width = max(60, min(120, shutil.get_terminal_size().columns))
    flags = sorted(flags_of(kind, default), key=lambda flag: (flag.is_flag, flag.is_flag and not flag.required))
    places = [flag.metavar if flag.required else f"[{flag.metavar}]" for flag in flags if not flag.is_flag]
    places += [f"{flag.name} {flag.metavar}" for flag in flags if flag.is_flag and flag.required]
    said = [" ".join(["usage: bytepixels", verb, *places, "[FLAGS]"]), ""]
    said += [paragraph for each in _paragraphs(kind) for paragraph in (textwrap.fill(each, width), "")]
    group = kind
    for flag in flags:
        if flag.group is not group:
            group = flag.group
            said += ["", textwrap.fill(_paragraphs(group)[0], width)]
        said += _entry(flag, width)
    return "\n".join(said)


def _entry(flag: Flag, width: int) -> Iterator[str]:
    """Write the entry of one flag: its spelling, and below it its meaning and default."""
    if flag.pair:
        yield f"  {flag.name}, {flag.negative}"
    else:
        short = "-n, " if flag.name == "--n" else "-o, " if flag.name == "--out" else ""
        yield f"  {short}{flag.name} {flag.metavar}" if flag.is_flag else f"  {flag.metavar}"
    text = " ".join([_texts(flag.group).get(flag.field, ""), _default(flag)]).strip()
    yield textwrap.fill(text, width, initial_indent=INDENT, subsequent_indent=INDENT, break_on_hyphens=False)


def _default(flag: Flag) -> str:
    if flag.required:
        return "(required)" if flag.is_flag else ""
    if flag.default in (None, ()):  # its text says what that means
        return ""
    value = " ".join(map(str, flag.default)) if isinstance(flag.default, tuple) else flag.default
    return f"(default: {({True: 'yes', False: 'no'}[value]) if isinstance(value, bool) else value})"


def _paragraphs(kind: Any) -> list[str]:
    return [" ".join(each.split()) for each in inspect.cleandoc(kind.__doc__ or "").split("\n\n")]


def _names(found: re.Match[str]) -> str:
    """Replace {SAMPLERS} and the like in a help text by the names in that registry."""
    return registries.one_of(getattr(registries if hasattr(registries, found[1]) else choices, found[1]))


@cache
def _texts(kind: Any) -> dict[str, str]:
    """Read the help text below each field in the source of a dataclass and its bases."""
    return {
        each.arg_name: re.sub(r"\{([A-Z]+)\}", _names, " ".join((each.description or "").split()))
        for base in reversed(kind.__mro__)
        if base is not object
        for each in parse_from_object(base).params
    }
