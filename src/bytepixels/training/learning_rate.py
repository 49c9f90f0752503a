"""The learning rate as a pure function of the images seen."""

import math


def learning_rate(seen: int, total: int, peak: float, warmup: float = 0, decay: str = "none") -> float:
    """In 0..peak: linear warm-up over `warmup` images, times the decay ("none", "cosine", "linear") to 0 at `total`."""
    rise = min(1.0, (seen + 1) / (warmup + 1))
    done = min(1.0, seen / total)
    fall = {"none": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[decay]
    return peak * rise * fall
