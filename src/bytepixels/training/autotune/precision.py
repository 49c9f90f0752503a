"""Resolve --precision: "auto" decides by a measurement, and prints one line."""

import torch

from ...config.training import Precision
from ...hardware import bf16_gain

CLEARLY = 1.2  # times as fast: for less, bf16's rounding is not worth it


def choose_precision(asked: Precision, device: torch.device) -> tuple[Precision, str]:
    """Resolve --precision on this machine, and the reason: "" if nothing was measured."""
    if asked != "auto":
        return asked, ""
    if not _can_multiply_bf16(device):
        return "float32", ""
    gain = bf16_gain(device)
    precision = decided(gain)
    return precision, f"Using {precision}: {_compared(gain)} here"


def _compared(gain: float) -> str:
    """Describe the speed of bf16 relative to float32; `gain` is the factor."""
    if gain >= CLEARLY:
        return f"bf16 is {gain:.1f} times as fast as float32"
    if gain > 1 / CLEARLY:
        return "bf16 is about as fast"
    return f"bf16 is {1 / gain:.2g} times slower" if gain > 0.01 else "bf16 is more than 100 times slower"


def decided(gain: float) -> Precision:
    """Choose bf16 if it is clearly faster; `gain` is the factor."""
    return "bf16" if gain >= CLEARLY else "float32"


def _can_multiply_bf16(device: torch.device) -> bool:
    """Whether the device supports bf16. A CPU always does, if slowly."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu"
