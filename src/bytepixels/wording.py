"""Format numbers for sentences."""

import math
from datetime import datetime


def many(number: int, one: str, several: str | None = None) -> str:
    """Format a count: "1 image", "2,000 images"."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def bytes_of(count: int) -> str:
    """Format bytes: 1234567 -> 1.2 MB."""
    power = min(4, int(math.log10(max(count, 1))) // 3)
    return f"{count} bytes" if power == 0 else f"{count / 1000**power:.1f} {' kMGT'[power]}B"


def time_of(seconds: float) -> str:
    """Format seconds since 1970 as local date and time; 0 is unknown."""
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M") if seconds else "-"
