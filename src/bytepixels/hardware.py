"""How fast this machine multiplies matrices: the limit that a network's speed is held against."""

import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor

PAIRS, LEAST_PAIRS = 15, 3
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
    """How many times as fast as in float32 matrices are multiplied in bf16: the median of interleaved pairs.

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


def _seconds(a: Tensor, b: Tensor, clock: Callable[[], float]) -> float:
    """Of one product, until the device has it."""
    began = clock()
    a @ b
    wait_for(a.device)
    return clock() - began


def wait_for(device: torch.device) -> None:
    """Until the device has done all that it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
