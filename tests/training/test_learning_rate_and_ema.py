"""The learning rate and the moving average against their formulas."""

import math

import pytest
import torch
from torch import nn

from bytepixels.training.ema import ema_decay, update_ema
from bytepixels.training.learning_rate import learning_rate


def test_the_rate_rises_over_the_warm_up_and_stays():
    rates = [learning_rate(seen, 1000, 1.0, warmup=99) for seen in (0, 49, 99, 500, 999)]
    assert rates == pytest.approx([0.01, 0.5, 1.0, 1.0, 1.0])


def test_the_rate_falls_to_zero_at_the_end_of_the_budget():
    assert learning_rate(500, 1000, 2.0, decay="linear") == pytest.approx(1.0)
    assert learning_rate(250, 1000, 2.0, decay="cosine") == pytest.approx(1 + math.cos(math.pi / 4))
    for decay in ("linear", "cosine"):
        assert learning_rate(1000, 1000, 2.0, decay=decay) == pytest.approx(0.0)


def test_the_average_halves_old_weights_over_its_half_life():
    assert ema_decay(10**9, 100, 1000) ** 10 == pytest.approx(0.5)


def test_the_average_starts_warm():
    assert ema_decay(0, 64, 1000) == 0  # the first step replaces the initial weights
    early = ema_decay(2000, 64, 10**6)  # half-life 5% of 2000 images
    assert early == pytest.approx(0.5 ** (64 / 100))


def test_the_initial_weights_are_forgotten_after_twenty_thousand_steps():
    kept = math.prod(ema_decay(step * 128, 128, 887_000) for step in range(1, 2000))
    assert kept < 1e-6  # a constant 0.9999 would still hold 82% of them


def test_update_is_the_weighted_mean_of_every_weight():
    ema, model = nn.Linear(3, 2), nn.Linear(3, 2)
    expected = [
        0.75 * e.detach() + 0.25 * m.detach() for e, m in zip(ema.parameters(), model.parameters(), strict=True)
    ]
    before = [m.detach().clone() for m in model.parameters()]
    update_ema(ema, model, 0.75)
    for parameter, value in zip(ema.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.detach(), value)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))
