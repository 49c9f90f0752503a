"""--precision: the arithmetic of a run's network. "auto" is decided by a measurement, and said in one line."""

import torch

from ...config.training import Precision
from ...hardware import bf16_gain

CLEARLY = 1.2  # times as fast: for less, bf16's rounding is not worth it


def choose_precision(asked: Precision, device: torch.device) -> tuple[Precision, str]:
    """What --precision comes to on this machine, and why: "" where nothing was measured."""
    if asked != "auto":
        return asked, ""
    if not _can_multiply_bf16(device):
        return "float32", ""
    gain = bf16_gain(device)
    precision = decided(gain)
    return precision, f"Using {precision}: {_compared(gain)} here"


def _compared(gain: float) -> str:
    """bf16 beside float32; `gain` is how many times as fast."""
    if gain >= CLEARLY:
        return f"bf16 is {gain:.1f} times as fast as float32"
    if gain > 1 / CLEARLY:
        return "bf16 is about as fast"
    return f"bf16 is {1 / gain:.2g} times slower" if gain > 0.01 else "bf16 is more than 100 times slower"


def decided(gain: float) -> Precision:
    """bf16 where it is clearly the faster one; `gain` is how many times as fast."""
    return "bf16" if gain >= CLEARLY else "float32"


def _can_multiply_bf16(device: torch.device) -> bool:
    """Whether there is anything to measure. A CPU can always, if slowly."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu"
