"""Attention by the fused kernels, and in which arithmetic they are asked for it."""

import math

import pytest
import torch
from torch.nn import functional as F

from bytepixels.networks.blocks import WIDE, attention_of


def drawn(width, dtype=torch.float32, length=7, mask=False):
    """q [2, 3, 5, width], k and v [2, 3, length, width], and a mask that leaves out some."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, n, width).to(dtype).requires_grad_() for n in (5, length, length))
    return q, k, v, torch.arange(length).expand(2, 1, 1, length) < 4 if mask else None


def written(q, k, v, mask):
    """As the paper has it, in float64."""
    q, k, v = (one.detach().double().requires_grad_() for one in (q, k, v))
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    result = scores.softmax(-1) @ v
    return result, torch.autograd.grad(result.square().sum(), (q, k, v))


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("width", [8, WIDE])
@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
def test_it_is_the_papers(dtype, near, width, mask):
    *inputs, mask = drawn(width, dtype, mask=mask)
    result = attention_of(*inputs, mask)
    expected, slopes = written(*inputs, mask)
    assert result.dtype == dtype
    torch.testing.assert_close(result.double(), expected, rtol=near, atol=near)
    for own, slope in zip(torch.autograd.grad(result.float().square().sum(), inputs), slopes, strict=True):
        torch.testing.assert_close(own.double(), slope, rtol=near, atol=near)


@pytest.mark.parametrize(
    ("width", "dtype", "training", "asked"),
    [
        (8, torch.bfloat16, True, torch.float32),
        (WIDE - 8, torch.bfloat16, True, torch.float32),
        (WIDE, torch.bfloat16, True, torch.bfloat16),
        (8, torch.bfloat16, False, torch.bfloat16),
        (8, torch.float32, True, torch.float32),
    ],
)
def test_narrow_heads_that_learn_are_taken_in_float32(monkeypatch, width, dtype, training, asked):
    """Under autocast too, which would make bf16 of them again."""
    called, fused = [], F.scaled_dot_product_attention

    def seen(q, *others, **named):
        called.append((q.dtype, torch.is_autocast_enabled("cpu")))
        return fused(q, *others, **named)

    monkeypatch.setattr(F, "scaled_dot_product_attention", seen)
    q, k, v, _ = drawn(width, dtype)
    with torch.set_grad_enabled(training), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        result = attention_of(q, k, v)
    assert result.dtype == dtype
    assert called == [(asked, asked == torch.bfloat16)]


def test_in_float32_it_is_rounded_once():
    """bf16 from its inputs to its result: half a unit in the last place off at most, and a grain for float32."""
    *inputs, mask = drawn(8, torch.bfloat16, length=50)
    expected = written(*inputs, mask)[0]
    off = (attention_of(*inputs, mask).double() - expected).abs() / torch.exp2(torch.floor(torch.log2(expected.abs())))
    assert off.max() <= 2**-8 * 1.02
