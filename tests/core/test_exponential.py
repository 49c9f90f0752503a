"""Exponential integration: exact for Gaussian data, of known order elsewhere, and what it is next to its neighbours."""

import math
from collections import deque
from functools import partial

import numpy as np
import pytest
import torch

from bytepixels import CLEAN, Denoiser, EDMProcess, GaussianDiffusion, Level, RectifiedFlow, trajectory
from bytepixels.core.exponential import exponential_step, polar
from bytepixels.core.multistep import deis_step
from bytepixels.core.samplers import ddim_step

from .laws import PATHS, TWO_MODES, Mixture, levels_at, log_snr_grid

METHODS = [(order, correct) for order in (1, 2, 3) for correct in (False, True)]
PROCESSES = {"vp": GaussianDiffusion(), "edm": EDMProcess(), "flow": RectifiedFlow()}


def method(order, correct=False, sigma_data=1.0):
    return partial(exponential_step, order=order, correct=correct, sigma_data=sigma_data)


def end_of(x, levels, denoise, step):
    (last,) = deque(trajectory(x, levels, denoise, step), maxlen=1)
    return last


@pytest.mark.parametrize("shape", [(4, 1, 3, 5), (1, 3, 4, 4)], ids=str)
@pytest.mark.parametrize("steps", [1, 2, 3, 7])
@pytest.mark.parametrize("name", PROCESSES)
def test_any_number_of_steps_is_exact_for_gaussian_data(name, steps, shape):
    """From the noisiest level, pure noise for the flow, to the clean end: x0 = s / R_T x_T, bar rounding."""
    spread, process = 0.37, PROCESSES[name]
    levels = process.levels(steps)
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    start = math.hypot(levels[0].alpha * spread, levels[0].sigma)
    data = Mixture((1.0,), (0.0,), (spread**2,))
    for order, correct in METHODS:
        found = end_of(start * x, levels, data.denoise, method(order, correct, spread))
        assert torch.allclose(found, spread * x, rtol=0, atol=1e-12)
    if steps > 1:  # which other steps are not
        assert (end_of(start * x, levels, data.denoise, ddim_step) - spread * x).abs().max() > 1e-3


@pytest.mark.parametrize("sigma_data", [0.5, 1.0, 2.0])
@pytest.mark.parametrize(("order", "correct"), METHODS)
@pytest.mark.parametrize("name", PATHS)
def test_order(name, order, correct, sigma_data):
    """From 128 to 512 steps; the corrector adds one."""
    p = np.linspace(0.05, 0.95, 16).reshape(1, 1, 4, 4)
    errors = []
    for steps in (128, 512):
        levels = log_snr_grid(name, steps, -4.0, 3.0)
        x, exact = (torch.from_numpy(TWO_MODES.quantile(p, *at[1:])) for at in (levels[0], levels[-1]))
        found = end_of(x, levels, TWO_MODES.denoise, method(order, correct, sigma_data))
        errors.append(float((found - exact).abs().mean()))
    assert math.log(errors[0] / errors[1]) / math.log(4) == pytest.approx(order + correct, abs=0.15)


@pytest.mark.parametrize("name", PROCESSES)
def test_the_slope_is_the_networks_output(name):
    """And Euler's step turns y by it."""
    process, x = PROCESSES[name], torch.randn(2, 3, 4, 6, dtype=torch.float64)
    now, nxt = process.levels(4)[1:3]
    output = torch.randn_like(x)
    denoise = Denoiser(lambda x, t: output, "v", process.sigma_data)
    after, memory = method(1, sigma_data=process.sigma_data)(x, now, nxt, denoise, None)
    ((angle, slope),) = memory.slopes
    assert torch.allclose(slope, output, rtol=1e-9, atol=1e-9)
    (radius, _), (radius_after, angle_after) = (polar(level, process.sigma_data) for level in (now, nxt))
    assert torch.allclose(after, radius_after * (x / radius + (angle_after - angle) * output), rtol=1e-9)


@pytest.mark.parametrize("sigma_data", [1e-5, 1e5])
@pytest.mark.parametrize("name", PATHS)
def test_euler_with_a_deviation_far_from_the_datas_is_ddim(name, sigma_data):
    """Which is exact where x0 stays, and where eps does."""
    now, nxt = log_snr_grid(name, 1, -1.0, 0.5)
    x = torch.linspace(-2, 2, 16, dtype=torch.float64).view(1, 1, 4, 4)
    mine, theirs = (
        step(x, now, nxt, TWO_MODES.denoise, None)[0] for step in (method(1, sigma_data=sigma_data), ddim_step)
    )
    assert torch.allclose(mine, theirs, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", PATHS)
def test_order_three_with_a_large_deviation_is_deis(name):
    levels = log_snr_grid(name, 8)
    x = torch.linspace(-2, 2, 16, dtype=torch.float64).view(1, 1, 4, 4)
    steps = method(3, sigma_data=1e5), deis_step
    mine, theirs = (end_of(x, levels, TWO_MODES.denoise, step) for step in steps)
    assert torch.allclose(mine, theirs, rtol=0, atol=1e-7)


@pytest.mark.parametrize(("order", "correct"), METHODS)
@pytest.mark.parametrize("name", PATHS)
def test_the_last_step_turns_on_to_the_clean_end(name, order, correct):
    """One training image is neared, not hit: the last step, from an angle a, leaves less than a^2."""
    point = Mixture((1.0,), (0.4,), (0.0,))
    x = torch.linspace(-2, 2, 16, dtype=torch.float64).view(1, 1, 4, 4)
    levels = [*log_snr_grid(name, 64, -3.0, 3.0), CLEAN]
    far = float((end_of(x, levels, point.denoise, method(order, correct)) - 0.4).abs().max())
    assert 1e-12 < far < polar(levels[-2], 1.0)[1] ** 2


def test_the_angle_goes_from_a_right_angle_to_nothing():
    assert polar(Level(1.0, 0.0, 1.0), 0.5) == (1.0, math.pi / 2)
    assert polar(CLEAN, 0.5) == (0.5, 0.0)
    for name in PATHS:
        (level,) = levels_at(name, np.array([-math.log(0.5)]))  # sigma = 0.5 alpha
        assert polar(level, 0.5)[1] == pytest.approx(math.pi / 4)


@pytest.mark.parametrize("name", PROCESSES)
def test_in_single_precision_nothing_is_lost(name):
    """Ten steps in float32 against float64."""
    process = PROCESSES[name]
    levels = process.levels(10)
    x = levels[0].sigma * torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    step = method(3, True, process.sigma_data)
    low, high = (end_of(start, levels, TWO_MODES.denoise, step) for start in (x, x.double()))
    assert low.dtype == torch.float32
    assert torch.allclose(low.double(), high, rtol=0, atol=1e-4)
