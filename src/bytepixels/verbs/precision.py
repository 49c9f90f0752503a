"""--precision: the arithmetic of a run's network. "auto" is decided by a measurement, and said in one line."""

import torch

from ..rate import bf16_gain
from ..runs.config import Precision

CLEARLY = 1.2  # times as fast: for less, bf16's rounding is not worth it


def choose_precision(asked: Precision, device: torch.device) -> tuple[Precision, str]:
    """What --precision comes to on this machine, and why: "" where nothing was measured."""
    if asked != "auto":
        return asked, ""
    if not _can_multiply_bf16(device):
        return "float32", ""
    gain = bf16_gain(device)
    precision = decided(gain)
    return precision, f"{precision}: this machine multiplies bf16 {gain:.2f} times as fast as float32"


def decided(gain: float) -> Precision:
    """bf16 where it is clearly the faster one; `gain` is how many times as fast."""
    return "bf16" if gain >= CLEARLY else "float32"


def _can_multiply_bf16(device: torch.device) -> bool:
    """Whether there is anything to measure. A CPU can always, if slowly."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu"
