"""The machine that a number was measured on: its name, its best rate of matrix products, and how a call is timed."""

import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bytepixels.hardware import bf16_gain, matmul_rate

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}


def limits(device: torch.device, asked: str = "auto", clock: str = "wall") -> dict[str, float]:
    """The rates by precision; bf16 only where it is the faster one, or asked for: to imitate it takes minutes."""
    read = CLOCKS[clock]
    names = DTYPES if asked == "bf16" or bf16_gain(device, read) > 1 else ["float32"]
    return {name: matmul_rate(device, DTYPES[name], clock=read) for name in names}


def seconds(call: Callable[[], object], clock: str = "wall") -> float:
    """What one call takes, until the device has done it. clock "cpu": of this process' time on the processors alone."""
    read = CLOCKS[clock]
    began = read()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return read() - began


def count_flops(call: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products and convolutions of one call; of attention too, which torch
    does not count in a CPU's fused kernel."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
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
