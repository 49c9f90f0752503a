"""The machine that a number was measured on: its name, its best rate of matrix products, and how a call is timed."""

import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from bytepixels.rate import matmul_rate

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}


def limits(device: torch.device, asked: str = "auto", clock: str = "wall") -> dict[str, float]:
    """The rates by precision; bf16 only where it is the faster one, or asked for."""
    rates = {name: matmul_rate(device, dtype, clock=CLOCKS[clock]) for name, dtype in DTYPES.items()}
    return rates if rates["bf16"] > rates["float32"] or asked == "bf16" else {"float32": rates["float32"]}


def seconds(call: Callable[[], object], clock: str = "wall") -> float:
    """What one call takes, until the device has done it. clock "cpu": of this process' time on the processors alone."""
    read = CLOCKS[clock]
    began = read()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return read() - began


def count_flops(call: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products and convolutions of one call."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def machine(device: torch.device) -> str:
    """The name of the processor or the card, and the threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor()
    threads = torch.get_num_threads()
    return f"{name}, {threads} thread{'s' if threads > 1 else ''}"
