"""Resolve a label to a class: by name, or by number if no class is named by a number."""

import re
import unicodedata
from collections.abc import Sequence

from ..errors import InputError, check_choice

_NUMBER = re.compile(r"[-+]?\d+")


def find_class(flag: str, name: str, classes: Sequence[str]) -> int:
    """The position of the class of that name, whether its accents are composed (NFC) or decomposed (NFD).

    InputError with the nearest name where there is none.
    """
    if name in classes:
        return classes.index(name)
    composed = [_composed(one) for one in classes]
    if _composed(name) in composed:
        return composed.index(_composed(name))
    if _NUMBER.fullmatch(name):  # 1 is nearest to 001, and not to 11
        same = [one for one in classes if _NUMBER.fullmatch(one) and int(one) == int(name)]
        if same:
            raise InputError(f"{flag} {name}: no class has this name; did you mean {same[0]!r}?")
    return classes.index(check_choice(flag, name, classes))


def find_label(flag: str, label: str, classes: Sequence[str]) -> int:
    """Resolve a label: a class name or, if no class is named by a number, a position from 0."""
    if label.isdecimal() and int(label) < len(classes) and not any(map(_NUMBER.fullmatch, classes)):
        return int(label)
    return find_class(flag, label, classes)


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)
