"""Every example runs as it stands, in a few steps of its training, and is as short as it says."""

import runpy
from itertools import pairwise
from pathlib import Path

import examples
import pytest
import torch
from examples import digits

from bytepixels import Level

OWN = sorted(path.stem for path in Path(examples.__file__).parent.glob("own_*.py"))


@pytest.mark.parametrize("name", OWN)
def test_an_example_runs_and_draws(name, monkeypatch):
    monkeypatch.setattr(digits, "STEPS", 3)
    torch.manual_seed(0)
    x = runpy.run_module(f"examples.{name}")["x"]
    assert x.shape == (16, 1, 8, 8)
    assert x.isfinite().all()
    assert x.std() > 0.05


def test_there_is_one_for_each_part():
    assert OWN == ["own_loss", "own_network", "own_process", "own_sampler", "own_schedule"]


@pytest.mark.parametrize("name", OWN)
def test_an_example_is_short(name):
    assert len((Path(examples.__file__).parent / f"{name}.py").read_text().splitlines()) <= 40


@pytest.fixture
def example(monkeypatch):
    monkeypatch.setattr(digits, "STEPS", 0)
    return lambda name: runpy.run_module(f"examples.{name}")


def test_the_levels_of_the_own_process_are_those_of_its_times(example):
    process = example("own_process")["process"]
    for level in process.levels(7)[:-1]:
        alpha, sigma = process.alpha_sigma(torch.tensor([level.t], dtype=torch.float64), torch.float64)
        assert (alpha.item(), sigma.item()) == pytest.approx((level.alpha, level.sigma), abs=1e-12)
        assert level.alpha**2 + level.sigma**2 == pytest.approx(1)
        assert process.time_at(torch.tensor(level.angle())).item() == pytest.approx(level.t, abs=1e-6)


def test_the_own_sampler_is_of_second_order(example):
    """On Gaussian data, where x0 = x / (1 + sigma^2) for a variance of 1: half the step, a quarter of the error."""
    step = example("own_sampler")["midpoint_step"]

    def error(steps):
        sigmas = torch.logspace(1, -1, steps + 1, dtype=torch.float64, base=10).tolist()
        levels = [Level(0.0, 1.0, sigma) for sigma in sigmas]
        x = torch.full((1,), 101**0.5, dtype=torch.float64)
        for now, nxt in pairwise(levels):
            x, _ = step(x, now, nxt, lambda x, level: x / (1 + level.sigma**2), None)
        return abs(x.item() - 1.01**0.5)

    assert error(40) / error(80) == pytest.approx(4, rel=0.1)
