"""How fast matrices are multiplied in bf16, beside float32."""

from itertools import cycle

import pytest
import torch

from bytepixels import hardware as rate
from bytepixels.hardware import LEAST_PAIRS, PAIRS, bf16_gain

CPU = torch.device("cpu")


def gain(monkeypatch, float32, bf16):
    """bf16_gain where products take these seconds, the first of them to warm up; and how many pairs there were."""
    now, pairs = [0.0], [-1]
    times = {torch.float32: cycle(float32), torch.bfloat16: cycle(bf16)}

    def seconds(a, b, clock):
        now[0] += (took := next(times[a.dtype]))
        pairs[0] += a.dtype == torch.bfloat16
        return took

    monkeypatch.setattr(rate, "_seconds", seconds)
    return bf16_gain(CPU, lambda: now[0]), pairs[0]


def test_the_gain_is_that_of_most_pairs(monkeypatch):
    busy = 0.001, 0.004, 0.004, 0.8, 0.004, 0.004, 0.004  # once it waits for another program
    assert gain(monkeypatch, busy, [0.002]) == (pytest.approx(2), LEAST_PAIRS)
    assert gain(monkeypatch, [0.001], [0.004]) == (pytest.approx(0.25), 10)  # as many as fit into 0.05 s
    assert gain(monkeypatch, [0.0002], [0.0001]) == (pytest.approx(2), PAIRS)
    assert gain(monkeypatch, [2.0], [3.0]) == (pytest.approx(2 / 3), LEAST_PAIRS)


def test_with_more_threads_the_products_are_larger(monkeypatch):
    """Eight times the operations for eight threads, and the threads stay as they are."""
    sizes, threads = {}, torch.get_num_threads()

    def seconds(a, b, clock):
        sizes[torch.get_num_threads()] = len(a)
        return 1.0

    monkeypatch.setattr(rate, "_seconds", seconds)
    try:
        for count in (1, 8):
            torch.set_num_threads(count)
            assert bf16_gain(CPU) == 1
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert sizes == {1: 256, 8: 512}
