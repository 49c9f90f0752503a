"""Each step against its paper, against diffusers, and against exact laws; all of them for every (alpha, sigma).

The methods that reuse earlier estimates have more in test_multistep.py.
"""

import math
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

from bytepixels import CLEAN, SAMPLERS, Denoiser, GaussianDiffusion, InputError, Level, trajectory, zero_terminal_snr
from bytepixels.core.prediction import PREDICTIONS
from bytepixels.core.schedules import linear_schedule
from bytepixels.registries import sampler_facts, stochastic_samplers
from tests.core.laws import (
    GAUSSIAN,
    PATHS,
    TWO_MODES,
    Mixture,
    levels_at,
    linear_alpha_bar,
    log_snr_grid,
    zero_snr_alpha_bar,
)

DDPM, DDIM, HEUN, DPMPP_2M = (SAMPLERS[name] for name in ("ddpm", "ddim", "heun", "dpmpp_2m"))
DETERMINISTIC = [name for name in SAMPLERS if not sampler_facts(name).stochastic]
X = torch.linspace(-2, 2, 16, dtype=torch.float64).view(1, 1, 4, 4)
PAIRS = [(999, 998), (500, 499), (1, 0), (999, 900), (600, 20), (20, 0)]  # neighbours, and respaced


def refuse(x):
    raise AssertionError("a deterministic step asked for noise")


def fixed_noise(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return lambda x: torch.randn(x.shape, dtype=x.dtype, generator=generator)


def run(x, levels, denoise, step, noise=refuse):
    *_, last = trajectory(x, levels, denoise, step, noise)
    return last


def affine(step, now, nxt, denoise):
    """(A, B, C) of x_nxt = A x + B + C z, measured, for an affine denoiser."""

    def at(x, z):
        x, z = (torch.full((1, 1, 1, 1), value, dtype=torch.float64) for value in (x, z))
        return step(x, now, nxt, denoise, lambda like: z)[0].item()

    origin = at(0.0, 0.0)
    return at(1.0, 0.0) - origin, origin, at(0.0, 1.0) - origin


# ---- DDPM


@pytest.mark.parametrize(("now", "nxt"), PAIRS)
@pytest.mark.parametrize("variance", ["small", "large"])
def test_ddpm_is_the_posterior_of_ho_et_al(now, nxt, variance):
    """Eq. 6 and 7 with the betas of the chain that visits only these times: 1 - abar_now / abar_nxt."""
    abar, abar_prev = linear_alpha_bar(1000)[[now, nxt]]
    alpha = abar / abar_prev
    beta = 1 - alpha
    levels = GaussianDiffusion(1000).levels(times=[now, nxt])[:2]
    x0, z = X.cos(), X.flip(-1)
    mean = math.sqrt(abar_prev) * beta / (1 - abar) * x0 + math.sqrt(alpha) * (1 - abar_prev) / (1 - abar) * X
    std = math.sqrt((1 - abar_prev) / (1 - abar) * beta if variance == "small" else beta)
    got, memory = DDPM(X, *levels, lambda x, level: x.cos(), lambda x: z, variance=variance)
    torch.testing.assert_close(got, mean + std * z, rtol=1e-9, atol=1e-9)
    assert memory is None


@pytest.mark.parametrize("t", [999, 500, 1, 0])
def test_ddpm_mean_is_the_articles_formula(t):
    """(x - b_t / sqrt(1 - abar_t) eps) / sqrt(a_t), and no noise at t = 0."""
    beta, abar = np.linspace(1e-4, 0.02, 1000)[t], linear_alpha_bar(1000)[t]
    now, nxt = GaussianDiffusion(1000).levels()[999 - t : 1001 - t]
    denoise = Denoiser(lambda x, t: x.sin() + t.double().view(-1, 1, 1, 1) / 1000)
    noise = torch.zeros_like if t > 0 else refuse
    eps = X.sin() + t / 1000
    torch.testing.assert_close(
        DDPM(X, now, nxt, denoise, noise)[0], (X - beta / math.sqrt(1 - abar) * eps) / math.sqrt(1 - beta)
    )


def test_ddpm_is_small_unless_told():
    now, nxt = log_snr_grid("vp", 3)[:2]
    default, small, large = (
        DDPM(X, now, nxt, TWO_MODES.denoise, fixed_noise(), **kwargs)[0]
        for kwargs in ({}, {"variance": "small"}, {"variance": "large"})
    )
    assert torch.equal(default, small)
    assert not torch.allclose(default, large)
    with pytest.raises(InputError, match="did you mean 'large'"):
        DDPM(X, now, nxt, TWO_MODES.denoise, fixed_noise(), variance="larg")


@pytest.mark.parametrize("path", PATHS)
def test_ddpm_step_has_the_exact_moments_of_the_reverse_conditional(path):
    """Gaussian data: A E[x_t] + B = E[x_s] and A^2 Var(x_t) + C^2 + c^2 mmse = Var(x_s), for any two levels."""
    (m,), (S,) = GAUSSIAN.means, GAUSSIAN.variances
    for now, nxt in pairwise(log_snr_grid(path, 6)):
        A, B, C = affine(DDPM, now, nxt, GAUSSIAN.denoise)
        V_now, V_nxt = (level.alpha**2 * S + level.sigma**2 for level in (now, nxt))
        mmse = 1 / (1 / S + now.alpha**2 / now.sigma**2)
        added = now.sigma**2 - (now.alpha / nxt.alpha * nxt.sigma) ** 2
        posterior = 1 / (1 / nxt.sigma**2 + (now.alpha / nxt.alpha) ** 2 / added)  # Bayes: precisions add
        c = posterior * nxt.alpha / nxt.sigma**2
        assert pytest.approx(posterior, rel=1e-9) == C**2
        assert A * now.alpha * m + B == pytest.approx(nxt.alpha * m, rel=1e-9)
        assert A**2 * V_now + C**2 + c**2 * mmse == pytest.approx(V_nxt, rel=1e-9)


@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("steps", [10, 100, 1000])
def test_ancestral_moments_by_recursion(steps, variance):
    """Mean and variance of the samples, from measured steps, against the recursion in betas and alpha_bar."""
    (m,), (S,) = GAUSSIAN.means, GAUSSIAN.variances
    levels = GaussianDiffusion(1000).levels(steps)
    abar = [*linear_alpha_bar(1000)[[int(level.t) for level in levels[:-1]]], 1.0]
    mean, var = expected_mean, expected_var = 0.0, 1.0
    for (now, nxt), (a_t, a_s) in zip(pairwise(levels), pairwise(abar), strict=True):
        A, B, C = affine(partial(DDPM, variance=variance), now, nxt, GAUSSIAN.denoise)
        mean, var = A * mean + B, A**2 * var + C**2
        beta = 1 - a_t / a_s
        gain = math.sqrt(a_t) * S / (a_t * S + 1 - a_t)  # E[x0 | x] = m + gain (x - sqrt(a_t) m)
        c0, ct = math.sqrt(a_s) * beta / (1 - a_t), math.sqrt(1 - beta) * (1 - a_s) / (1 - a_t)
        noise = 0 if a_s == 1 else beta * ((1 - a_s) / (1 - a_t) if variance == "small" else 1)
        slope = c0 * gain + ct
        expected_mean = slope * expected_mean + c0 * m * (1 - gain * math.sqrt(a_t))
        expected_var = slope**2 * expected_var + noise
    assert (mean, var) == pytest.approx((expected_mean, expected_var), rel=1e-8)
    if steps == 1000:  # and a fine chain ends at the data
        assert (mean, var) == pytest.approx((m, S), rel=0.02)


# ---- DDIM


@pytest.mark.parametrize(("now", "nxt"), PAIRS)
@pytest.mark.parametrize("eta", [0, 0.3, 1])
def test_ddim_is_eq_12(now, nxt, eta):
    abar, abar_prev = linear_alpha_bar(1000)[[now, nxt]]
    levels = GaussianDiffusion(1000).levels(times=[now, nxt])[:2]
    std = eta * math.sqrt((1 - abar_prev) / (1 - abar)) * math.sqrt(1 - abar / abar_prev)  # eq. 16
    eps, z = X.sin() + now / 1000, X.flip(-1)
    predicted_x0 = (X - math.sqrt(1 - abar) * eps) / math.sqrt(abar)
    expected = math.sqrt(abar_prev) * predicted_x0 + math.sqrt(1 - abar_prev - std**2) * eps + std * z
    denoise = Denoiser(lambda x, t: x.sin() + t.double().view(-1, 1, 1, 1) / 1000)
    got, memory = DDIM(X, *levels, denoise, (lambda x: z) if eta else refuse, eta=eta)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    assert memory is None


@pytest.mark.parametrize("path", PATHS)
def test_ddim_with_eta_one_is_ddpm_on_the_same_noise(path):
    levels = [*log_snr_grid(path, 8), CLEAN]
    ddim = run(3 * X, levels, TWO_MODES.denoise, partial(DDIM, eta=1), fixed_noise())
    ddpm = run(3 * X, levels, TWO_MODES.denoise, DDPM, fixed_noise())
    torch.testing.assert_close(ddim, ddpm, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("eta", [-0.1, 1.1, float("nan")])
def test_eta_is_checked(eta):
    with pytest.raises(InputError, match=r"eta must be in 0\.\.1"):
        DDIM(X, *log_snr_grid("vp", 1), TWO_MODES.denoise, refuse, eta=eta)


# ---- against diffusers, whose tables are float32


def diffusers_loop(scheduler, x, network, steps, **options):
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps:
        x = scheduler.step(network(x, t.expand(len(x))), t, x, **options).prev_sample
    return x, scheduler.timesteps.tolist()


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # of diffusers, under numpy 2
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize(
    ("name", "scheduler", "options"),
    [
        ("ddim", DDIMScheduler, {"clip_sample": False, "timestep_spacing": "trailing"}),
        ("ddpm", DDPMScheduler, {"clip_sample": False, "timestep_spacing": "trailing", "variance_type": "fixed_small"}),
        ("ddpm", DDPMScheduler, {"clip_sample": False, "timestep_spacing": "leading", "variance_type": "fixed_large"}),
        ("dpmpp_2m", DPMSolverMultistepScheduler, {"timestep_spacing": "trailing", "final_sigmas_type": "zero"}),
        ("dpmpp_2m", DPMSolverMultistepScheduler, {"timestep_spacing": "linspace", "final_sigmas_type": "zero"}),
    ],
)
def test_a_whole_loop_agrees_with_diffusers(name, scheduler, options, prediction):
    theirs = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}[prediction]
    network = TWO_MODES.network(linear_alpha_bar(1000), prediction)
    draws = {} if name == "dpmpp_2m" else {"generator": torch.Generator().manual_seed(0)}
    expected, times = diffusers_loop(scheduler(1000, prediction_type=theirs, **options), X, network, 20, **draws)
    step = partial(DDPM, variance=options["variance_type"].removeprefix("fixed_")) if name == "ddpm" else SAMPLERS[name]
    levels = GaussianDiffusion(1000).levels(times=[int(t) for t in times])
    got = run(X, levels, Denoiser(network, prediction), step, fixed_noise())
    torch.testing.assert_close(got, expected.double(), rtol=1e-3, atol=2e-3)


def test_zero_terminal_snr_agrees_with_diffusers():
    network = TWO_MODES.network(zero_snr_alpha_bar(1000), "v")
    options = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "clip_sample": False}
    scheduler = DDIMScheduler(1000, prediction_type="v_prediction", **options)
    expected, _ = diffusers_loop(scheduler, X, network, 20)
    levels = GaussianDiffusion(1000, lambda T: zero_terminal_snr(linear_schedule(T))).levels(20)
    got = run(X, levels, Denoiser(network, "v"), DDIM)
    torch.testing.assert_close(got, expected.double(), rtol=1e-3, atol=2e-3)


# ---- the probability-flow map


ORDERS = {"ddim": 1, "euler": 1, "heun": 2, "dpmpp_2s": 2, "dpmpp_2m": 2, "dpmpp_3m": 3}
ORDERS |= {"unipc_2": 3, "unipc_3": 4, "deis": 3, "ipndm": 2}  # ipndm's weights are for steps alike in sigma / alpha
ORDERS |= {"exp_euler": 1, "exp_2m": 2, "exp_2c": 3}


def order_of(name, grid):
    """The slope of the error against x_s = F_s^-1(F_t(x_t)) over 128 to 512 steps, for data with two modes."""
    first, last = grid(1)
    p = np.linspace(0.05, 0.95, 16).reshape(1, 1, 4, 4)
    x = torch.from_numpy(TWO_MODES.quantile(p, *first[1:]))
    exact = torch.from_numpy(TWO_MODES.quantile(p, *last[1:]))
    errors = [(run(x, grid(n), TWO_MODES.denoise, SAMPLERS[name]) - exact).abs().mean().item() for n in (128, 512)]
    return math.log(errors[0] / errors[1], 4)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_convergence_order(name, path):
    """Uniform log-SNR grid, from so much noise that the low order of the first steps does not show."""
    assert order_of(name, lambda n: log_snr_grid(path, n, -4)) == pytest.approx(ORDERS[name], abs=0.15)


@pytest.mark.parametrize("path", PATHS)
def test_ipndm_has_order_four_where_steps_are_alike(path):
    """Even in sigma / alpha, and with exact estimates of eps at the three levels before the first."""
    p = np.linspace(0.05, 0.95, 16).reshape(1, 1, 4, 4)
    errors = []
    for n in (256, 1024):
        ratio = np.linspace(3, 0.5, n + 1)
        *before, first = levels_at(path, -np.log(ratio[0] + (ratio[0] - ratio[1]) * np.arange(3, -1, -1)))
        memory = []
        for level in before:
            x = torch.from_numpy(TWO_MODES.quantile(p, *level[1:]))
            memory.insert(0, (x - level.alpha * TWO_MODES.denoise(x, level)) / level.sigma)
        x = torch.from_numpy(TWO_MODES.quantile(p, *first[1:]))
        levels = levels_at(path, -np.log(ratio))
        for now, nxt in pairwise(levels):
            x, memory = SAMPLERS["ipndm"](x, now, nxt, TWO_MODES.denoise, refuse, memory)
        errors.append((x - torch.from_numpy(TWO_MODES.quantile(p, *levels[-1][1:]))).abs().mean().item())
    assert math.log(errors[0] / errors[1], 4) == pytest.approx(4, abs=0.15)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_gaussian_data_follows_its_exact_map(name, path):
    """x_s = a_s m + sqrt(V_s / V_t) (x_t - a_t m)."""
    levels = log_snr_grid(path, 400)
    (m,), (S,) = GAUSSIAN.means, GAUSSIAN.variances
    (_, a, s), (_, a_end, s_end) = levels[0], levels[-1]
    scale = math.sqrt((a_end**2 * S + s_end**2) / (a**2 * S + s**2))
    expected = a_end * m + scale * (X - a * m)
    error = (run(X, levels, GAUSSIAN.denoise, SAMPLERS[name]) - expected).abs().max()
    assert error < (5e-3 if name in ("ddim", "euler", "exp_euler") else 5e-5)


LANDING = [
    name for name in SAMPLERS if not sampler_facts(name).sigma_data
]  # those turn on to the clean end: test_exponential


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", LANDING)
def test_the_last_step_lands_on_the_estimate_of_x0(name, path):
    """To CLEAN every other method returns E[x0 | x], without noise and without a call at sigma = 0."""
    last = log_snr_grid(path, 2)[-1]
    calls = []

    def denoise(x, level):
        calls.append(level)
        return TWO_MODES.denoise(x, level)

    step, memory = SAMPLERS[name], None
    for now, nxt in pairwise(log_snr_grid(path, 2)):  # what went before does not matter
        _, memory = step(X.sin(), now, nxt, TWO_MODES.denoise, fixed_noise(), memory)
    got, _ = step(X, last, CLEAN, denoise, refuse, memory)
    torch.testing.assert_close(got, TWO_MODES.denoise(X, last), rtol=1e-12, atol=1e-12)
    assert calls == [last]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", LANDING)
def test_pure_point_data_is_hit_exactly(name, path):
    """One training image: whatever the noise, every sampler ends on it that lands on the estimate of x0."""
    point = Mixture((1.0,), (0.4,), (0.0,))
    last = run(X, [*log_snr_grid(path, 5), CLEAN], point.denoise, SAMPLERS[name], fixed_noise())
    torch.testing.assert_close(last, torch.full_like(X, 0.4))


@pytest.mark.parametrize("name", SAMPLERS)
def test_zero_terminal_snr_gives_the_data_from_pure_noise(name):
    network = TWO_MODES.network(zero_snr_alpha_bar(1000), "v")
    diffusion = GaussianDiffusion(1000, lambda T: zero_terminal_snr(linear_schedule(T)))
    p = (torch.arange(400, dtype=torch.float64) + 0.5).view(1, 1, 20, 20) / 400
    x = torch.special.ndtri(p)  # a perfect standard normal
    last = run(x, diffusion.levels(100), Denoiser(network, "v"), SAMPLERS[name], fixed_noise())
    exact = torch.from_numpy(TWO_MODES.quantile(p.numpy(), 1.0, 0.0))
    if sampler_facts(name).stochastic:  # only in law
        assert last.mean().item() == pytest.approx(exact.mean().item(), abs=5 * 0.9 / 20)
        assert last.std().item() == pytest.approx(exact.std().item(), abs=0.1)
    else:
        assert (last - exact).abs().mean() < 0.05


@pytest.mark.parametrize("name", SAMPLERS)
def test_zero_terminal_snr_refuses_noise_prediction(name):
    levels = GaussianDiffusion(10, lambda T: zero_terminal_snr(linear_schedule(T))).levels()
    with pytest.raises(InputError, match="zero terminal SNR"):
        run(X, levels, Denoiser(lambda x, t: x), SAMPLERS[name], fixed_noise())


# ---- the loop


STEPS = {**SAMPLERS, "ddim eta": partial(DDIM, eta=0.5)}


@pytest.mark.parametrize("name", STEPS)
def test_how_often_noise_and_network_are_called(name):
    noises = 6 if name in (*stochastic_samplers(), "ddim eta") else 0
    evaluations = 13 if name == "heun" else 7
    step = STEPS[name]
    calls = {"noise": 0, "denoise": 0}

    def noise(x):
        calls["noise"] += 1
        return torch.randn_like(x)

    def denoise(x, level):
        calls["denoise"] += 1
        return TWO_MODES.denoise(x, level)

    states = list(trajectory(X, GaussianDiffusion(1000).levels(7), denoise, step, noise))
    assert len(states) == 7
    assert calls == {"noise": noises, "denoise": evaluations}


def test_every_deterministic_state_is_near_the_exact_one():
    """What is yielded after i steps is x at levels[i]: not only the end is right."""
    levels = log_snr_grid("vp", 100)
    p = np.linspace(0.1, 0.9, 16).reshape(1, 1, 4, 4)
    x = torch.from_numpy(TWO_MODES.quantile(p, *levels[0][1:]))
    for level, state in zip(levels[1:], trajectory(x, levels, TWO_MODES.denoise, DPMPP_2M, refuse), strict=True):
        if level.t % 20 == 0:
            np.testing.assert_allclose(state, TWO_MODES.quantile(p, *level[1:]), atol=0.01)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_network_is_asked_at_the_place_where_x_is(name):
    """t and x as the network sees them: every (t, x) pair is one level and a state of the trajectory there."""
    levels = GaussianDiffusion(1000).levels(5)
    asked = []

    def network(x, t):
        asked.append((t[0].item(), x.clone()))
        return 0.1 * x + t.view(-1, 1, 1, 1) / 1000

    states = [X, *trajectory(X, levels, Denoiser(network), SAMPLERS[name], fixed_noise())]
    own = asked if name != "heun" else asked[::2]
    for level, state, (t, x) in zip(levels[:-1], states[:-1], own, strict=True):
        assert t == level.t
        torch.testing.assert_close(x, state, rtol=1e-10, atol=1e-10)  # c_in is 1 but for rounding
    if name == "heun":
        assert [t for t, _ in asked[1::2]] == [level.t for level in levels[1:-1]]


@pytest.mark.parametrize("name", SAMPLERS)
def test_x_comes_back_as_it_went_in(name):
    x = X.float().clone()
    (state, *_) = trajectory(x, log_snr_grid("vp", 2), TWO_MODES.denoise, SAMPLERS[name])
    assert state.dtype == torch.float32
    assert torch.equal(x, X.float())


def test_the_trajectory_is_lazy_and_holds_no_gradient():
    asked = []
    weight = torch.ones((), dtype=torch.float64, requires_grad=True)

    def denoise(x, level):
        asked.append(level)
        return weight * x

    states = trajectory(X.clone().requires_grad_(), GaussianDiffusion(10).levels(), denoise, DDIM)
    assert asked == []
    first = next(states)
    assert len(asked) == 1
    assert not first.requires_grad
    assert torch.is_grad_enabled()  # between the states the caller's own setting holds
    assert not any(state.requires_grad for state in states)


@pytest.mark.parametrize(
    "levels",
    [
        [],
        [CLEAN],
        [CLEAN, CLEAN],
        GaussianDiffusion(10).levels()[::-1],
        [Level(5.0, 0.6, 0.8), Level(5.0, 0.6, 0.8), CLEAN],
        [Level(5.0, float("nan"), 0.8), CLEAN],
    ],
    ids=["none", "one", "clean twice", "ascending", "twice the same", "nan"],
)
def test_levels_must_go_from_noisy_to_clean(levels):
    with pytest.raises(InputError, match="noisy to clean"):
        next(trajectory(X, levels, TWO_MODES.denoise, DDIM))
