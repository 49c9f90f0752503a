"""Parse the words of a command line into a request: in any order, and in the spellings that people use.

A mistake is an InputError of one sentence. tyro makes the request; `helptext` writes the help from the same dataclass.
"""

import io
import re
from contextlib import redirect_stderr
from difflib import get_close_matches
from typing import Any, Generic, Literal, NoReturn, TypeVar, get_args, get_origin

import tyro

from ..errors import InputError, check_choice
from ..spellings import ELSEWHERE, OTHER_FLAGS, TRUTH
from .flags import Flag, flags_of

Request = TypeVar("Request")


class Line(Generic[Request]):
    """A parsed command line: its positional words, and the values of each flag that was given."""

    def __init__(self, verb: str, kind: type[Request], argv: list[str]):
        """Raises InputError for a flag that the verb does not have, and for a value that is not of its type."""
        self.verb, self.kind = verb, kind
        every = list(flags_of(kind))
        self.flags = {flag.name: flag for flag in every if flag.is_flag}
        self.places = [flag for flag in every if not flag.is_flag]
        self.words: list[str] = []
        self.given: dict[str, list[str]] = {}
        self.help = False
        rest = list(argv)
        while rest:
            word = rest.pop(0)
            if word in ("-h", "--help"):
                self.help = True
            elif _is_flag(word):
                name, equals, value = word.partition("=")
                self._take(name, [value] if equals else [], rest)
            else:
                self.words.append(word)
        self._give_back()
        if not self.help:
            self._check_complete()

    def get(self, flag: str) -> str | None:
        """The value of a flag, None where it was not given."""
        return self.given[flag][0] if flag in self.given else None

    def request(self, default: Request | None = None) -> Request:
        """Build the request; flags that were not given come from `default`. Prints the help and exits on --help."""
        if self.help:
            from .help_text import help_of

            print(help_of(self.verb, self.kind, default))
            raise SystemExit(0)
        extra = {} if default is None else {"default": default}
        argv = list(self.words)
        for flag, values in self.given.items():  # a value may look like a flag: --label=--gif
            argv += [f"{flag}={values[0]}"] if len(values) == 1 and values[0][:1] == "-" else [flag, *values]
        said = io.StringIO()
        try:
            with redirect_stderr(said):
                return tyro.cli(self.kind, args=argv, **extra)  # type: ignore[call-overload]
        except SystemExit as stop:
            error: BaseException | None = stop  # our own sentence is below it, where a value is out of range
            while error is not None and not isinstance(error, InputError):
                error = error.__cause__ or error.__context__
            raise error or InputError(" ".join(re.sub("[╭╮╰╯│─]", " ", said.getvalue()).split())) from None

    def _find(self, name: str) -> tuple[Flag, bool]:
        """Look up a flag by its spelling, and whether it is negated (--no-NAME)."""
        own = name.lstrip("-").replace("_", "-")
        plain = f"--{own}" if f"--{own}" in self.flags else f"--{own.lower()}"
        if plain in self.flags:
            return self.flags[plain], False
        for flag in self.flags.values():
            if flag.kind is bool and plain in (flag.negative, flag.name.replace("--", "--no-", 1)):
                return flag, True
        others = {other: flag for flag, names in OTHER_FLAGS.items() if flag in self.flags for other in names.split()}
        if plain[2:] in others:
            return self.flags[others[plain[2:]]], False
        meant = {flag[2:]: flag for flag in self.flags} | others
        near = get_close_matches(plain[2:], meant, n=1)
        hint = f"did you mean {meant[near[0]]}?" if near else f"see bytepixels {self.verb} --help"
        raise InputError(f"{self.verb} has no flag {name}; {ELSEWHERE.get(own, hint)}")

    def _take(self, name: str, values: list[str], rest: list[str]) -> None:
        """Read one flag and its values; the first value may follow a =."""
        flag, denied = self._find(name)
        if flag.kind is bool:
            if not values and rest and rest[0].lower() in TRUTH:
                values = [rest.pop(0)]
            word = values[0].lower() if values else "true"
            if word not in TRUTH:
                self._refuse(flag, "is true or false", values)
            self.given.pop(flag.name, None)
            self.given.pop(flag.negative, None)
            if flag.pair:
                self.given[flag.negative if TRUTH[word] == denied else flag.name] = []
            else:
                self.given[flag.name] = [str(TRUTH[word] != denied)]
            return
        elements = get_args(flag.kind) if get_origin(flag.kind) is tuple else (flag.kind,)
        most = float("inf") if Ellipsis in elements else len(elements)
        while rest and len(values) < most and self._is_value(rest[0], flag, elements):
            values.append(rest.pop(0))
        if 1 < len(values) == most and rest and _is_number(rest[0]) and len(self.words) >= len(self.places):
            self._refuse(flag, f"takes {most} numbers", [*values, rest[0]])
        if flag.optional and flag.kind is not str and [value.lower() for value in values] == ["none"]:
            values = ["None"]
        else:
            if not values and Ellipsis not in elements:
                needed = "a value" if len(elements) == 1 else f"{len(elements)} numbers"
                self._refuse(flag, f"needs {needed}", [word for word in rest[:1] if not _is_flag(word)])
            values = self._checked(flag, elements, values)
        self.given[flag.name] = values

    def _is_value(self, word: str, flag: Flag, elements: tuple[Any, ...]) -> bool:
        """Whether the next word is one more value; numbers end at the first word that is none, so SOURCE may follow."""
        if len(elements) == 1 or elements[0] is str:
            return not _is_flag(word)
        return _is_number(word) or (flag.optional and word.lower() == "none")

    def _checked(self, flag: Flag, elements: tuple[Any, ...], values: list[str]) -> list[str]:
        """Check the values as tyro reads them. One side stands for both: --size 64."""
        if elements == (int, int) and len(values) == 1:
            values = values[0].lower().split("x") if "x" in values[0].lower() else values * 2
        if Ellipsis not in elements and len(values) != len(elements):
            self._refuse(flag, f"takes {len(elements)} numbers", values)
        return [self._one(flag, elements[0], value) for value in values]

    def _one(self, flag: Flag, kind: Any, value: str) -> str:
        if get_origin(kind) is Literal:
            choices = get_args(kind)
            if {"yes", "no"} <= set(choices) and value.lower() in TRUTH:
                value = "yes" if TRUTH[value.lower()] else "no"
            return check_choice(flag.name, value, choices)
        if kind in (int, float) and flag.checked:
            try:
                kind(value)
            except ValueError:
                self._refuse(flag, f"must be a {'whole ' if kind is int else ''}number", [value])
        return value

    def _refuse(self, flag: Flag, rule: str, values: list[str]) -> NoReturn:
        raise InputError(f"{flag.name} {rule}, got {' '.join(map(repr, values)) or 'none'}")

    def _give_back(self) -> None:
        """Return the last value of a flag that took every word that followed, where the verb itself misses one."""
        for name, values in self.given.items():
            takes_any = name in self.flags and get_args(self.flags[name].kind)[:1] == (str,)
            if takes_any and len(values) > 1 and self.places and not self.words:
                self.words.append(values.pop())

    def _check_complete(self) -> None:
        """Raise InputError for missing words and flags, and for words too many."""
        missing = [place.metavar for place in self.places[len(self.words) :] if place.required]
        flags = [flag for flag in self.flags.values() if flag.required and flag.name not in self.given]
        missing += [f"{flag.name} {flag.metavar}" for flag in flags]
        if missing:
            raise InputError(f"{self.verb} needs {' '.join(missing)} (bytepixels {self.verb} --help)")
        many = any(get_origin(place.kind) is tuple for place in self.places)
        if len(self.words) > len(self.places) and not many:
            what = " ".join(place.metavar for place in self.places) or "flags alone"
            got = " ".join(self.words)
            if f"{self.verb} {self.words[0]}" in ("train latent", "train autoencoder"):
                raise InputError(f"write {self.verb} {self.words[0]} first, then the flags; got {got} after a flag")
            raise InputError(f"{self.verb} takes {what}, got {got}")


def _is_flag(word: str) -> bool:
    return re.match(r"--?[A-Za-z]", word) is not None and word.lower() not in ("-inf", "-nan")


def _is_number(word: str) -> bool:
    return re.fullmatch(r"-?(\d+(x\d+)+|(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf|nan)", word.lower()) is not None
