"""Errors of the user, in one sentence: the value, the limit, and the nearest valid choice."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

from .spellings import OTHER_VALUES

LISTED = 40  # choices that a sentence names


class InputError(ValueError):
    """A mistake in the request. The command line prints it as one line and exits with 2."""


class JobError(RuntimeError):
    """A valid request that this machine or run cannot fulfil. One line, and exit code 1."""


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP: the process was asked to end, and unwinds as after Ctrl-C."""

    def __init__(self, signal: int = 15):
        super().__init__()
        self.signal = signal


def check_choice(name: str, value: str, choices: Iterable[str]) -> str:
    """Return `value` when it is one of `choices`; raise InputError with the nearest one otherwise."""
    known = list(choices)
    if value in known:
        return value
    near = _nearest(str(value), known)
    hint = f"; did you mean {near!r}?" if near else ""
    more = f" and {len(known) - LISTED:,} more" if len(known) > LISTED else ""
    raise InputError(f"{name} must be one of {', '.join(known[:LISTED])}{more}; got {value!r}{hint}")


def _nearest(value: str, known: list[str]) -> str | None:
    """The nearest choice: by another spelling, by letters and digits alone ("DPM++ 2M"), or by edit distance."""
    plain = {_letters(str(choice)): choice for choice in known}
    word = _letters(value)
    forms = [word, word.removeprefix("k"), word.removesuffix("karras")]
    meant = [choice for form in forms if (choice := OTHER_VALUES.get(form, plain.get(form))) in known]
    near = [plain[name] for form in forms if form for name in get_close_matches(form, plain, n=1)]
    return next(iter(meant + near), None)


def _letters(text: str) -> str:
    return re.sub(r"[\W_]", "", text.lower().replace("+", "p"))


def check_count(name: str, value: float, low: int, high: float = float("inf")) -> None:
    """Raise InputError unless `value` is a whole number in low..high."""
    check_range(name, value, low, high)
    if value != int(value):
        raise InputError(f"{name} must be a whole number, got {value}")


def check_range(name: str, value: float, low: float, high: float = float("inf")) -> None:
    """Raise InputError unless low <= value <= high (NaN and infinity never pass)."""
    if not low <= value <= high or value == float("inf"):
        limit = f"in {low}..{high}" if high < float("inf") else f"at least {low}"
        raise InputError(f"{name} must be {limit}{' and finite' if value == float('inf') else ''}, got {value}")
