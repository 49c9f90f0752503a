"""EDM and rectified flow: their papers' formulas, their times' laws, and grids shared between processes."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers import EDMEulerScheduler, FlowMatchEulerDiscreteScheduler
from scipy.stats import kstest

from bytepixels import (
    CLEAN,
    SAMPLERS,
    SCHEDULES,
    SPACINGS,
    Denoiser,
    EDMProcess,
    GaussianDiffusion,
    InputError,
    Level,
    RectifiedFlow,
    cosine_schedule,
    diffusion_loss,
    linear_schedule,
    sample,
    zero_terminal_snr,
)
from bytepixels.core.prediction import PREDICTIONS, coefficients, target
from tests.core.laws import GAUSSIAN, TWO_MODES
from tests.core.test_samplers import X, run

EDM, FLOW = EDMProcess(), RectifiedFlow()
CONTINUOUS = {"edm": EDM, "flow": FLOW, "logit_normal": RectifiedFlow("logit_normal", mean=-0.4, std=0.7)}
ALL = {"linear": GaussianDiffusion(1000), "cosine": GaussianDiffusion(1000, cosine_schedule), **CONTINUOUS}
EVERY = {**{name: GaussianDiffusion(1000, schedule) for name, schedule in SCHEDULES.items()}, **CONTINUOUS}


# ---- the papers


def test_edm_grid_is_karras_eq_5():
    sigmas = [level.sigma for level in EDM.levels(18)]
    i = np.arange(18)
    expected = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    np.testing.assert_allclose(sigmas, [*expected, 0], rtol=1e-12)
    assert all(level.alpha == 1 for level in EDM.levels(18))
    assert [level.t for level in EDM.levels(18)[:-1]] == pytest.approx(np.log(expected) / 4)
    assert EDM.levels() == EDM.levels(18, "karras")


@pytest.mark.parametrize("sigma", [0.002, 0.3, 5.0, 80.0])
def test_v_is_karras_preconditioning(sigma):
    """Table 1, with the network's sign turned: c_skip, c_out, c_in, c_noise."""
    c_in, c_skip, c_out = coefficients("v", 1.0, sigma, 0.5)
    assert c_skip == pytest.approx(0.25 / (sigma**2 + 0.25))
    assert c_out == pytest.approx(-sigma * 0.5 / math.sqrt(0.25 + sigma**2))
    assert c_in == pytest.approx(1 / math.sqrt(0.25 + sigma**2))
    assert EDM.level(-math.log(sigma)).t == pytest.approx(math.log(sigma) / 4)


def test_edm_loss_is_karras_eq_8():
    """lambda(sigma) ||D(x0 + n) - x0||^2, with lambda = (sigma^2 + sigma_data^2) / (sigma sigma_data)^2."""
    torch.manual_seed(0)
    x0, noise, t = torch.randn(3, 1, 4, 4).double(), torch.randn(3, 1, 4, 4).double(), torch.tensor([-1.0, 0.0, 0.7])
    network = lambda x, t: (3 * x).sin() + t.double().view(-1, 1, 1, 1)  # noqa: E731
    loss, _ = diffusion_loss(network, EDM, x0, "v", t=t, noise=noise)
    sigma = torch.exp(4 * t.double()).view(-1, 1, 1, 1)
    y = x0 + sigma * noise
    F = -network(y / torch.sqrt(0.25 + sigma**2), t)
    D = 0.25 / (sigma**2 + 0.25) * y + sigma * 0.5 / torch.sqrt(sigma**2 + 0.25) * F
    weight = (sigma**2 + 0.25) / (sigma * 0.5) ** 2
    torch.testing.assert_close(loss, (weight * (D - x0) ** 2).mean((1, 2, 3)), rtol=1e-5, atol=1e-6)


def test_flow_is_a_straight_line():
    torch.manual_seed(0)
    x0, noise = torch.randn(4, 1, 2, 2).double(), torch.randn(4, 1, 2, 2).double()
    t = torch.tensor([0.0, 0.25, 0.5, 1.0], dtype=torch.float64)
    x_t, _ = FLOW.add_noise(x0, t, noise)
    torch.testing.assert_close(x_t, torch.lerp(x0, noise, t.view(-1, 1, 1, 1)))
    levels = FLOW.levels(4)
    assert [tuple(level) for level in levels] == [
        (1, 0, 1),
        (0.75, 0.25, 0.75),
        (0.5, 0.5, 0.5),
        (0.25, 0.75, 0.25),
        CLEAN,
    ]


def test_flow_euler_is_diffusers():
    """x + (t_next - t) * velocity, over an exact velocity."""
    scheduler = FlowMatchEulerDiscreteScheduler(1000)
    scheduler.set_timesteps(sigmas=[1.0, 0.8, 0.6, 0.4, 0.2])
    x = X.float()
    for t, sigma in zip(scheduler.timesteps, scheduler.sigmas, strict=False):
        s = sigma.item()
        x0 = TWO_MODES.denoise(x, Level(s, 1 - s, s))
        x = scheduler.step((x - x0) / s, t, x).prev_sample
    got = run(X.float(), FLOW.levels(5), TWO_MODES.denoise, SAMPLERS["euler"])
    torch.testing.assert_close(got, x, rtol=1e-4, atol=1e-4)


def test_edm_euler_is_diffusers():
    scheduler = EDMEulerScheduler(sigma_min=0.002, sigma_max=80.0, sigma_data=0.5)
    scheduler.set_timesteps(10)
    x = (80 * X).float()
    for t, sigma in zip(scheduler.timesteps, scheduler.sigmas, strict=False):
        scheduler.scale_model_input(x, t)
        x0 = TWO_MODES.denoise(x, Level(0.0, 1.0, sigma.item())).double()
        _, c_skip, c_out = coefficients("v", 1.0, sigma.item(), 0.5)
        x = scheduler.step(-((x0 - c_skip * x) / c_out).float(), t, x).prev_sample
    got = run(80 * X, EDM.levels(10), TWO_MODES.denoise, SAMPLERS["euler"])
    torch.testing.assert_close(got, x.double(), rtol=1e-3, atol=1e-3)


# ---- times


def test_times_have_their_laws():
    n, generator = 20_000, torch.Generator().manual_seed(0)
    log_sigma = 4 * EDM.draw_times(n, generator).double()
    assert kstest(log_sigma, "norm", (-1.2, 1.2)).pvalue > 0.01
    assert kstest(FLOW.draw_times(n, generator).double(), "uniform").pvalue > 0.01
    logit = torch.logit(CONTINUOUS["logit_normal"].draw_times(n, generator).double())
    assert kstest(logit, "norm", (-0.4, 0.7)).pvalue > 0.01


@pytest.mark.parametrize("name", CONTINUOUS)
def test_times_are_a_function_of_the_generator(name):
    draws = [CONTINUOUS[name].draw_times(5, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert CONTINUOUS[name].draw_times(3).shape == (3,)


@pytest.mark.parametrize("name", ALL)
def test_density_of_log_snr_is_that_of_the_drawn_times(name):
    """E[f(log SNR)] over draws equals the integral of f times the density, for an f that is 1 on an interval."""
    process, n = ALL[name], 40_000
    t = process.draw_times(n, torch.Generator().manual_seed(0))
    alpha, sigma = process.alpha_sigma(t, torch.float64)
    log_snr = (2 * torch.log(alpha / sigma)).flatten().numpy()
    for low in (-4.0, -1.0, 1.0, 3.0):
        inside = (log_snr > low) & (log_snr < low + 0.5)
        mean_density = process.log_snr_density(t)[torch.from_numpy(inside)].mean().item()
        share = inside.mean()
        assert 0.5 * mean_density == pytest.approx(share, abs=4 * math.sqrt(share / n) + 2e-3)


# ---- every process and every schedule


def defined(process, levels):
    """alpha and sigma [2, levels] from t alone: the product of 1 - beta up to t, exp(4 t) for EDM, 1 - t and t."""
    t = np.array([level.t for level in levels])
    if isinstance(process, GaussianDiffusion):
        alpha_bar = np.array([math.prod((1 - process.betas[: int(each) + 1]).tolist()) for each in t])
        return np.sqrt([alpha_bar, 1 - alpha_bar])
    return np.array([np.ones_like(t), np.exp(4 * t)] if process is EDM else [1 - t, t])


def noisy(process, levels):
    """(x0, noise, t, x_t) of one image at each level, float64."""
    x0, noise = torch.randn(2, len(levels), 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = torch.tensor([level.t for level in levels], dtype=torch.int64 if process.whole_times else torch.float64)
    return x0, noise, t, process.add_noise(x0, t, noise)[0]


@pytest.mark.parametrize("name", EVERY)
def test_levels_alpha_sigma_and_add_noise_are_what_t_stands_for(name):
    process = EVERY[name]
    levels = process.levels(40)[:-1]
    x0, noise, t, x_t = noisy(process, levels)
    alpha, sigma = expected = defined(process, levels)
    tables = torch.stack(process.alpha_sigma(t, torch.float64)).flatten(1)
    for found in (np.array([level[1:] for level in levels]).T, tables.numpy()):
        np.testing.assert_allclose(found[0], alpha, rtol=0, atol=1e-12)
        np.testing.assert_allclose(found[1], sigma, rtol=1e-12)
    alpha, sigma = torch.from_numpy(expected)[..., None, None, None]
    torch.testing.assert_close((x_t - alpha * x0) / sigma, noise, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_network_that_answers_with_its_target_gives_x0_back(name, prediction):
    process = EVERY[name]
    levels = process.levels(40)[:-1]
    levels = [level for level in levels if level.alpha > 0 or prediction != "eps"]  # of x0 noise alone says nothing
    x0, noise, t, x_t = noisy(process, levels)
    answers = target(prediction, x0, noise, *process.alpha_sigma(t, torch.float64), process.sigma_data)
    for k, level in enumerate(levels):
        denoise = Denoiser(lambda x, t, k=k: answers[k : k + 1], prediction, process.sigma_data)
        torch.testing.assert_close(denoise(x_t[k : k + 1], level), x0[k : k + 1], rtol=0, atol=1e-9)


# ---- levels


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("half_log_snr", [-4.5, -1.0, 0.0, 0.123, 2.0, 4.4])
def test_level_has_the_log_snr_asked_for_and_the_t_of_the_process(name, half_log_snr):
    process = ALL[name]
    level = process.level(half_log_snr)
    assert level.half_log_snr == pytest.approx(half_log_snr, abs=1e-9)
    if name in CONTINUOUS:
        alpha, sigma = process.alpha_sigma(torch.tensor([level.t], dtype=torch.float64), torch.float64)
        assert (alpha.item(), sigma.item()) == pytest.approx(level[1:])
    else:
        assert level.alpha**2 + level.sigma**2 == pytest.approx(1)
        below, above = math.floor(level.t), math.ceil(level.t)
        alpha, _ = process.alpha_sigma(torch.tensor([below, above]), torch.float64)
        assert alpha[0] >= level.alpha >= alpha[1]


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", [1, 2, 7, 50])
def test_grids_descend_and_are_of_the_process(name, spacing, steps):
    process = EVERY[name]
    levels = process.levels(steps, spacing)
    assert len(levels) == steps + 1
    assert levels[-1] == CLEAN
    assert all(a.half_log_snr < b.half_log_snr for a, b in pairwise(levels))
    for mine, again in zip(levels, process.match_levels(levels), strict=True):
        assert again == pytest.approx(mine, rel=1e-6, abs=1e-12)
    if spacing == "log_snr" and steps > 2:
        inner = np.diff([level.half_log_snr for level in levels[1:-1]])
        assert name not in CONTINUOUS or inner.max() / inner.min() < 1 + 1e-9


def test_grids_are_even_in_what_they_say():
    assert [level.t for level in FLOW.levels(4, "linspace")[:-1]] == pytest.approx([1, 0.667, 0.334, 0.001], abs=1e-3)
    assert [level.t for level in FLOW.levels(4, "leading")[:-1]] == pytest.approx([0.75025, 0.5005, 0.25075, 0.001])
    assert [level.t for level in FLOW.levels(3, "quadratic")[:-1]] == pytest.approx([1, 0.25075, 0.001])
    log_sigma = [math.log(level.sigma) for level in EDM.levels(5, "trailing")[:-1]]
    assert np.diff(log_sigma) == pytest.approx([-math.log(80 / 0.002) / 5] * 4)
    times = FLOW.levels(times=[0.9, 0.5, 0.1])
    assert [level.t for level in times] == pytest.approx([0.9, 0.5, 0.1, 0])


def test_a_network_can_be_sampled_on_the_grid_of_another_process():
    """Trained on the linear schedule, sampled on the cosine one's levels: the same images as on its own fine grid."""
    linear, cosine = ALL["linear"], ALL["cosine"]
    grid = [level for level in cosine.levels(400) if linear.noisiest < level.half_log_snr < 4.5]
    retimed = linear.match_levels([*grid, CLEAN])
    for theirs, mine in zip(grid, retimed, strict=False):
        assert mine[1:] == pytest.approx(theirs[1:])
        assert mine.t == pytest.approx(
            np.interp(-theirs.half_log_snr, [-level.half_log_snr for level in linear.levels()[-2::-1]], range(1000))
        )
    seen = []

    def network(x, t):
        seen.append(t[0].item())
        return torch.zeros_like(x)

    sample(network, linear, (1, 1, 2, 2), "ddim", levels=[*grid, CLEAN])
    assert seen == pytest.approx([level.t for level in retimed[:-1]], rel=1e-6)


@pytest.mark.parametrize(("one", "other"), [("linear", "edm"), ("edm", "linear"), ("flow", "linear"), ("edm", "flow")])
def test_the_grid_of_another_relation_is_refused(one, other):
    with pytest.raises(InputError, match="relates alpha and sigma otherwise"):
        ALL[one].match_levels(ALL[other].levels(5, "log_snr")[2:3])


def test_levels_that_no_network_learned_are_refused():
    with pytest.raises(InputError, match=r"log\(alpha / sigma\) must be in -5.*\.\.4\.6.*, got -9"):
        ALL["linear"].match_levels(ALL["cosine"].levels(5))
    with pytest.raises(InputError, match=r"ln\(sigma\) must be in"):
        EDM.level(-math.inf)


def test_zero_terminal_snr_has_a_level_at_pure_noise():
    process = GaussianDiffusion(1000, lambda T: zero_terminal_snr(linear_schedule(T)))
    assert process.level(-math.inf) == (999, 0, 1)
    assert FLOW.level(-math.inf) == (1, 0, 1)


# ---- end to end, with exact networks


def exact_network(process, law, prediction):
    """The network that would be learned: from its scaled input and t alone."""

    def network(x, t, label=None):
        alpha, sigma = process.alpha_sigma(t.double(), torch.float64)
        c_in, _, _ = coefficients(prediction, alpha, sigma, process.sigma_data)
        x_t = x.double() / c_in
        level = Level(0.0, alpha.flatten()[0].item(), sigma.flatten()[0].item())
        x0 = law.denoise(x_t, level)
        return target(prediction, x0, (x_t - alpha * x0) / sigma, alpha, sigma, process.sigma_data).to(x.dtype)

    return network


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
@pytest.mark.parametrize("name", ["edm", "flow"])
@pytest.mark.parametrize("sampler", ["ddim", "heun", "unipc_3", "ddpm", "dpmpp_sde_2m"])
def test_every_prediction_samples_the_data(name, prediction, sampler):
    if name == "flow" and prediction == "eps":
        with pytest.raises(InputError, match="zero terminal SNR"):
            sample(lambda x, t: x, FLOW, (1, 1, 2, 2), sampler, 5)
        return
    process = CONTINUOUS[name]
    network = exact_network(process, GAUSSIAN, prediction)
    torch.manual_seed(0)
    got = sample(network, process, (1, 1, 64, 64), sampler, 100, prediction=prediction, spacing="log_snr")
    law = torch.distributions.Normal(0.3, 0.5)
    quantiles = [law.cdf(value).item() for value in got.flatten().quantile(torch.tensor([0.1, 0.5, 0.85]))]
    assert quantiles == pytest.approx([0.1, 0.5, 0.85], abs=0.03)


def test_denoiser_of_edm_reads_x0():
    network = exact_network(EDM, GAUSSIAN, "v")
    for level in EDM.levels(6)[:-1]:
        got = Denoiser(network, "v", EDM.sigma_data)(X.float(), level)
        torch.testing.assert_close(got, GAUSSIAN.denoise(X, level).float(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: EDMProcess(sigma_min=0), "0 < sigma_min < sigma_max must hold, got 0 and 80"),
        (lambda: EDMProcess(sigma_min=3, sigma_max=2), "0 < sigma_min < sigma_max"),
        (lambda: EDMProcess(sigma_data=0), "sigma_data and p_std must be above 0"),
        (lambda: RectifiedFlow("logitnormal"), "did you mean 'logit_normal'"),
        (lambda: RectifiedFlow(std=0), "std must be above 0, got 0"),
        (lambda: FLOW.levels(0), "steps must be at least 1, got 0"),
        (lambda: FLOW.levels(2.5), "steps must be a whole number"),
        (lambda: FLOW.levels(3, "karas"), "did you mean 'karras'"),
        (lambda: FLOW.levels(times=[0.1, 0.5]), "descend"),
        (lambda: FLOW.levels(times=[]), "times"),
        (lambda: FLOW.levels(times=[1.5, 0.5]), r"t must be above 0 and at most 1, got 1.5"),
        (lambda: FLOW.alpha_sigma(torch.tensor([1.2])), r"t must be in 0\.\.1, got 1\.2"),
        (lambda: FLOW.add_noise(torch.zeros(1, 1, 2, 2), torch.tensor([1])), "floating-point times"),
        (lambda: GaussianDiffusion(10).add_noise(torch.zeros(1, 1, 2, 2), torch.tensor([1.0])), "integers"),
    ],
)
def test_mistakes_are_one_sentence(make, sentence):
    with pytest.raises(InputError, match=sentence):
        make()
