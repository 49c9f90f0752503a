"""Parse numbers as people write them: 5M images, 1h30m."""

import math
import re
from typing import Annotated, Any

from tyro.constructors import PrimitiveConstructorSpec

from ..errors import InputError

MULTIPLES = {"k": 10**3, "m": 10**6, "g": 10**9}
SECONDS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}


def images_of(text: str) -> int:
    """Parse a number of images: "5M" -> 5,000,000. InputError unless it is a whole number."""
    unit = MULTIPLES.get(text[-1:].lower(), 1)
    try:
        count = float(text[:-1] if unit > 1 else text) * unit
    except ValueError:
        count = math.nan
    if not count.is_integer():
        raise InputError(f"--images must be a whole number such as 2000000, 500k or 5M, got {text!r}")
    return int(count)


def length_of(text: str) -> float:
    """Parse a length: "5%" or "0.05" -> 0.05, a share of the budget; "20k" -> 20,000 images; else InputError."""
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = math.inf
    if 0 <= share < 1:
        return share
    try:
        return images_of(text)
    except InputError:
        raise InputError(f"a length is a share of the budget such as 5%, or images such as 20k; got {text!r}") from None


def images_in(length: float, total: int) -> float:
    """Convert a length to images, given the budget `total`: lengths below 1 are shares of it."""
    return length * total if length < 1 else length


def seconds_of(text: str) -> float:
    """Parse a duration: "1h30m" -> 5,400 seconds. InputError unless it is a time above 0."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([dhms])", text.lower())
    seconds = sum(float(number) * SECONDS[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text.lower() or not 0 < seconds < 1e9:
        raise InputError(f"--budget must be a time such as 2h, 90m or 1h30m (units d, h, m, s), got {text!r}")
    return seconds


Length = Annotated[
    float,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="5%|20k",
        instance_from_str=lambda words: length_of(words[0]),
        is_instance=lambda value: isinstance(value, int | float),
        str_from_instance=lambda length: [f"{100 * length:g}%" if 0 < length < 1 else f"{length:g}"],
    ),
]
Images = Annotated[
    int,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="N|5M",
        instance_from_str=lambda words: images_of(words[0]),
        is_instance=lambda value: isinstance(value, int),
        str_from_instance=lambda count: [str(count)],
    ),
]


def plain_value(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)
