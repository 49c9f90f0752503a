"""The betas against the papers' formulas, written again in plain Python and numpy, and against diffusers."""

import math

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr

from bytepixels import (
    SCHEDULES,
    GaussianDiffusion,
    InputError,
    cosine_schedule,
    linear_schedule,
    sigmoid_schedule,
    zero_terminal_snr,
)

TIMESTEPS = [1, 2, 10, 1000, 4000]


def even(start, end, T):
    return [start + (end - start) * i / max(T - 1, 1) for i in range(T)]


def capped(alpha_bar, T):
    """Betas of a curve alpha_bar(u), as improved-diffusion's betas_for_alpha_bar."""
    return [min(1 - alpha_bar((i + 1) / T) / alpha_bar(i / T), 0.999) for i in range(T)]


def jabri(u, start=-3, end=3, tau=1.0):
    """Jabri et al. 2022, Algorithm 2."""
    v_start, v_end = 1 / (1 + math.exp(-start / tau)), 1 / (1 + math.exp(-end / tau))
    return (v_end - 1 / (1 + math.exp(-(u * (end - start) + start) / tau))) / (v_end - v_start)


FORMULAS = {
    "linear": lambda T: even(1e-4, 0.02, T),
    "scaled_linear": lambda T: [root**2 for root in even(math.sqrt(0.00085), math.sqrt(0.012), T)],
    "cosine": lambda T: capped(lambda u: math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2, T),
    "sigmoid": lambda T: capped(jabri, T),
}


@pytest.mark.parametrize("T", TIMESTEPS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_betas_follow_the_paper(name, T):
    betas = SCHEDULES[name](T)
    assert betas.dtype == torch.float64
    assert betas.shape == (T,)
    np.testing.assert_allclose(betas, FORMULAS[name](T), rtol=1e-9, atol=1e-13)
    assert ((betas > 0) & (betas <= 0.999)).all()


@pytest.mark.parametrize(
    ("name", "theirs"), [("linear", "linear"), ("scaled_linear", "scaled_linear"), ("cosine", "squaredcos_cap_v2")]
)
def test_betas_are_those_of_diffusers(name, theirs):
    ends = {"beta_start": 0.00085, "beta_end": 0.012} if name == "scaled_linear" else {}
    expected = DDPMScheduler(1000, beta_schedule=theirs, **ends).betas
    torch.testing.assert_close(SCHEDULES[name](1000).float(), expected, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize(("name", "left"), [("linear", 4.0358e-05), ("cosine", 2.4288e-09)])
def test_signal_left_at_the_end_of_1000_steps(name, left):
    assert GaussianDiffusion(1000, SCHEDULES[name]).alpha_bar[-1].item() == pytest.approx(left, rel=1e-4)


def test_options_of_a_schedule_are_read():
    np.testing.assert_allclose(linear_schedule(5, 0.1, 0.5), [0.1, 0.2, 0.3, 0.4, 0.5])
    np.testing.assert_allclose(
        cosine_schedule(7, s=0.1), capped(lambda u: math.cos((u + 0.1) / 1.1 * math.pi / 2) ** 2, 7), rtol=1e-9
    )
    np.testing.assert_allclose(sigmoid_schedule(7, 0, 3, 0.7), capped(lambda u: jabri(u, 0, 3, 0.7), 7), rtol=1e-9)


def test_cosine_is_clamped_at_its_end_only():
    betas = cosine_schedule(1000)
    assert betas[-1] == 0.999
    assert (betas[:-1] < 0.999).all()


def test_linear_is_not_rescaled_for_another_number_of_steps():
    assert linear_schedule(10)[[0, -1]].tolist() == [1e-4, 0.02]


@pytest.mark.parametrize("T", TIMESTEPS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_zero_terminal_snr_ends_in_pure_noise_and_keeps_the_first_level(name, T):
    betas = SCHEDULES[name](T)
    rescaled = zero_terminal_snr(betas)
    assert rescaled.dtype == torch.float64
    alpha_bar = torch.cumprod(1 - rescaled, dim=0)
    assert rescaled[-1] == 1
    assert alpha_bar[-1] == 0
    assert ((rescaled > 0) & (rescaled <= 1)).all()
    if T > 1:
        assert alpha_bar[0].item() == pytest.approx(1 - betas[0].item(), rel=1e-12)
        torch.testing.assert_close(rescaled, rescale_zero_terminal_snr(betas), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(zero_terminal_snr(rescaled), rescaled, rtol=1e-9, atol=1e-12)


def test_zero_terminal_snr_leaves_the_betas_it_was_given():
    betas = linear_schedule(10)
    zero_terminal_snr(betas)
    assert torch.equal(betas, linear_schedule(10))


@pytest.mark.parametrize("schedule", [*SCHEDULES.values(), GaussianDiffusion])
@pytest.mark.parametrize("timesteps", [0, -1, 2.5, float("nan")])
def test_bad_timesteps_are_refused_in_one_sentence(schedule, timesteps):
    with pytest.raises(InputError, match=rf"timesteps must be .*{timesteps}") as error:
        schedule(timesteps)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("betas", "message"),
    [([0.1, 0.2], "3 betas"), ([0.0, 0.1, 0.2], "3 betas"), ([0.1, 0.2, 1.1], "3 betas"), ([0.1, 1.0, 0.2], "last")],
)
def test_a_schedule_of_ones_own_is_checked(betas, message):
    with pytest.raises(InputError, match=message):
        GaussianDiffusion(3, lambda T: torch.tensor(betas))
