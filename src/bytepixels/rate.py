"""How fast this machine multiplies matrices: the limit that a network's speed is held against."""

import time
from collections.abc import Callable

import torch


def matmul_rate(
    device: torch.device, dtype: torch.dtype, repeats: int = 10, clock: Callable[[], float] = time.perf_counter
) -> float:
    """GFLOP/s of large square matrix products, the best of `repeats`."""
    size = 2048 if device.type == "cpu" else 8192
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(repeats + 1):  # the first is slower
        began = clock()
        a @ b
        wait_for(device)
        seconds.append(clock() - began)
    return 2 * size**3 / min(seconds) / 1e9


def wait_for(device: torch.device) -> None:
    """Until the device has done all that it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
