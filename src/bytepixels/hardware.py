"""The matrix-multiplication speed of this machine, as a limit for a network's speed."""

import time
from collections.abc import Callable
from functools import cache
from statistics import median

import torch
from torch import Tensor

from .errors import InputError

LEAST_TO_COMPILE = 1200.0  # seconds of work below which compiling is not tried: that takes a minute or more itself
COMPILE_TRIALS = 3

PAIRS, LEAST_PAIRS = 15, 3
SLOW = 0.5  # of the speed of float32: real bf16 is faster than float32, imitated bf16 is below a tenth of it
PAIRS_SECONDS = 0.05  # after which no pair beyond the least is begun


def matmul_rate(
    device: torch.device, dtype: torch.dtype, repeats: int = 10, clock: Callable[[], float] = time.perf_counter
) -> float:
    """GFLOP/s of large square matrix products, the best of `repeats`."""
    size = 2048 if device.type == "cpu" else 8192
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    seconds = [_seconds(a, b, clock) for _ in range(repeats + 1)]  # the first is slower
    return 2 * size**3 / min(seconds) / 1e9


def bf16_gain(device: torch.device, clock: Callable[[], float] = time.perf_counter) -> float:
    """The speed-up of bf16 over float32 in matrix products: the median of interleaved pairs.

    On a CPU by this process' threads, so many as training has, in a tenth of a second.
    """
    size = 64 * round(4 * torch.get_num_threads() ** (1 / 3)) if device.type == "cpu" else 4096  # about a ms or two
    single = torch.randn(size, size, device=device)
    half = single.bfloat16()
    for one in (single, half):  # the first is slower
        _seconds(one, one, clock)
    ratios, began = list[float](), clock()
    while len(ratios) < LEAST_PAIRS or (len(ratios) < PAIRS and clock() - began < PAIRS_SECONDS):
        ratios.append(_seconds(single, single, clock) / _seconds(half, half, clock))
    return median(ratios)


@cache
def is_slow_in_bf16(device: torch.device) -> bool:
    """Whether this device imitates bf16, as a CPU without instructions for it does: ten times slower and more."""
    return device.type == "cpu" and bf16_gain(device) < SLOW


def _seconds(a: Tensor, b: Tensor, clock: Callable[[], float]) -> float:
    """Seconds for one matrix product, device synchronised."""
    began = clock()
    a @ b
    wait_for(a.device)
    return clock() - began


def wait_for(device: torch.device) -> None:
    """Block until queued device work has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def best_device(name: str) -> torch.device:
    """ "auto": a CUDA device, else Apple's, else the CPU. InputError for one that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"--device {name} is not on this machine; try auto or cpu") from error
    return device


def missing_compiler(device: torch.device) -> str | None:
    """Name what torch.compile needs and this machine lacks, in a few words."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler
    from torch.utils._triton import has_triton

    if device.type == "cuda":
        return None if has_triton() else "torch.compile needs Triton for this device, and it is not there"
    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return "torch.compile needs a C++ compiler, and there is none on this machine"
    return None
