"""Forecast the duration of a training in one sentence: train prints it after the first steps, data doctor before."""

import torch

from ..wording import many

LONG = 30 * 60  # seconds, from which a first look with a smaller budget is worth it
SOON = 3.0  # seconds of training after which its rate is worth saying


def forecast(images: int, rate: float, device: torch.device) -> str:
    """Describe how long so many images take at `rate` images per second."""
    seconds = images / rate
    where = f"{many(torch.get_num_threads(), 'CPU thread')}" if device.type == "cpu" else str(device)
    said = f"About {in_words(seconds)} for {many(images, 'image')} at {rate:,.3g} images/s on {where}"
    return f"{said}; --budget 20m for a first look" if seconds > LONG else said


def in_words(seconds: float) -> str:
    """Format seconds as "2 h 50 min", "3 min" or "20 s"; long times are rounded."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        hours, minutes = divmod(10 * round(minutes / 10), 60)
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{minutes / 1440:.1f} days"
