"""DPM-Solver++ 2S, 3M and SDE-2M, UniPC, iPNDM, DEIS, churn: their formulas, and diffusers' where it has them."""

import csv
import math
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    UniPCMultistepScheduler,
)
from scipy.integrate import quad
from scipy.interpolate import lagrange

from bytepixels import (
    CLEAN,
    SAMPLERS,
    SPACINGS,
    Denoiser,
    EDMProcess,
    GaussianDiffusion,
    InputError,
    RectifiedFlow,
    churned,
    linear_schedule,
    trajectory,
    zero_terminal_snr,
)
from bytepixels.core.multistep import exponential_weights, unipc_step
from bytepixels.core.samplers import MAX_CHURN, best_sampler, diffuse
from bytepixels.registries import sampler_facts
from tests.core.laws import GAUSSIAN, PATHS, TWO_MODES, linear_alpha_bar, log_snr_grid
from tests.core.test_samplers import X, affine, fixed_noise, refuse, run

UNEVEN = [(-0.7, [-0.7, -1.1, -2.0]), (0.3, [1.0, 0.3, 0.1, -0.6]), (0.2, [0.2]), (5.0, [5.0, 4.9])]


@pytest.mark.parametrize("h", [1e-4, 0.03, 0.8, 4.0, 30.0])
@pytest.mark.parametrize(("start", "nodes"), UNEVEN)
def test_exponential_weights_integrate_lagrange_polynomials(start, nodes, h):
    """Each weight is the integral of exp(u - end) times the polynomial that is 1 at its node and 0 at the others."""
    end = start + h
    scaled = [(node - end) / h for node in nodes]
    for j, weight in enumerate(exponential_weights(nodes, start, end)):
        basis = lagrange(scaled, np.eye(len(nodes))[j])
        exact, _ = quad(lambda s, p=basis: h * math.exp(h * s) * p(s), -1, 0, epsabs=0, epsrel=1e-12)
        assert weight == pytest.approx(exact, rel=1e-6, abs=1e-9 * h)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["euler", "ddim"])
def test_euler_and_ddim_are_eulers_method_in_sigma_over_alpha(name, path):
    """d(x / alpha) / d(sigma / alpha) = eps (Karras et al. 2022, eq. 4), a straight line per step, to the clean end."""
    levels = [*log_snr_grid(path, 6), CLEAN]
    states = trajectory(X, levels, TWO_MODES.denoise, SAMPLERS[name], refuse)
    y = X / levels[0].alpha
    for (_, alpha, sigma), nxt, state in zip(levels[:-1], levels[1:], states, strict=True):
        x = (alpha * y).numpy()
        eps = torch.from_numpy((x - alpha * TWO_MODES.expected_x0(x, alpha, sigma)) / sigma)
        y = y + (nxt.sigma / nxt.alpha - sigma / alpha) * eps
        torch.testing.assert_close(state, nxt.alpha * y, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["dpmpp_3m", "unipc_2", "unipc_3"])
def test_an_x0_that_is_a_polynomial_in_lambda_is_integrated_exactly(name, path):
    """After its start: degree 2 for three estimates, one more for UniPC's corrector; the integral by quad."""
    degree = {"dpmpp_3m": 2, "unipc_2": 2, "unipc_3": 3}[name]
    levels = [level for i, level in enumerate(log_snr_grid(path, 12)) if i not in (4, 7)]  # uneven steps
    x0 = lambda lam: sum((lam / 3) ** k for k in range(degree + 1))  # noqa: E731

    def denoise(x, level):
        return torch.full_like(x, x0(level.half_log_snr))

    def exact(x, now, nxt):
        lam, end = now.half_log_snr, nxt.half_log_snr
        integral = quad(lambda u: math.exp(u) * x0(u), lam, end, epsrel=1e-12)[0]
        return nxt.sigma / now.sigma * x + nxt.sigma * integral

    states = [X, *trajectory(X, levels, denoise, SAMPLERS[name], refuse)]
    begin = degree + 1
    if name == "dpmpp_3m":
        for i in range(begin, len(levels) - 1):
            torch.testing.assert_close(states[i + 1], exact(states[i], levels[i], levels[i + 1]), rtol=1e-8, atol=1e-8)
        return
    memory, x, corrected = None, X, []
    for now, nxt in pairwise(levels):
        x, memory = SAMPLERS[name](x, now, nxt, denoise, refuse, memory)
        corrected.append(memory.x)
    for i in range(begin, len(levels) - 2):
        wanted = exact(corrected[i], levels[i], levels[i + 1])
        torch.testing.assert_close(corrected[i + 1], wanted, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("path", PATHS)
def test_deis_integrates_a_parabola_in_sigma_over_alpha_exactly(path):
    levels = [level for i, level in enumerate(log_snr_grid(path, 10)) if i != 5]
    eps = lambda rho: 0.3 - 0.2 * rho + 0.1 * rho**2  # noqa: E731

    def denoise(x, level):
        return (x - level.sigma * eps(level.sigma / level.alpha)) / level.alpha

    states = [X, *trajectory(X, levels, denoise, SAMPLERS["deis"], refuse)]
    for i in range(2, len(levels) - 1):
        now, nxt = levels[i], levels[i + 1]
        integral = quad(eps, now.sigma / now.alpha, nxt.sigma / nxt.alpha)[0]
        torch.testing.assert_close(states[i + 1], nxt.alpha * (states[i] / now.alpha + integral), rtol=1e-9, atol=1e-9)


def test_ipndm_has_the_weights_of_adams_and_bashforth():
    """Four constant slopes of 1 at one level each in turn: the last step's weight of each."""
    expected = [55 / 24, -59 / 24, 37 / 24, -9 / 24]
    levels = log_snr_grid("edm", 4)
    for back, weight in enumerate(expected):
        pulses = iter([float(3 - back == i) for i in range(4)])
        states = [
            X * 0,
            *trajectory(X * 0, levels, lambda x, level, p=pulses: x - level.sigma * next(p), SAMPLERS["ipndm"], refuse),
        ]
        moved = (states[4] - states[3]) / (levels[4].sigma - levels[3].sigma)
        torch.testing.assert_close(moved, torch.full_like(X, weight))


# ---- against diffusers, whose tables are float32


def diffusers_loop(scheduler, x, network, steps, **options):
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps:
        x = scheduler.step(network(x, t.expand(len(x))), t, x, **options).prev_sample
    return x, [int(t) for t in scheduler.timesteps]


COMMON = {"timestep_spacing": "trailing", "final_sigmas_type": "zero"}


@pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")
@pytest.mark.parametrize(
    ("name", "scheduler", "steps"),
    [
        ("dpmpp_2s", DPMSolverSinglestepScheduler(1000, solver_order=2, final_sigmas_type="zero"), 21),
        ("dpmpp_3m", DPMSolverMultistepScheduler(1000, solver_order=3, **COMMON), 60),
        ("unipc_3", UniPCMultistepScheduler(1000, solver_order=3, **COMMON), 60),
        ("unipc_2", UniPCMultistepScheduler(1000, solver_order=2, **COMMON), 60),
        ("deis", DEISMultistepScheduler(1000, solver_order=3, timestep_spacing="trailing"), 100),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_whole_loop_is_near_diffusers(name, scheduler, steps):
    """Theirs uses other expansions of the same order for 3M, UniPC and DEIS: both are near the exact answer."""
    network = TWO_MODES.network(linear_alpha_bar(1000), "eps")
    expected, times = diffusers_loop(scheduler, X, network, steps)
    got = run(X, GaussianDiffusion(1000).levels(times=times), Denoiser(network), SAMPLERS[name])
    tolerance = 2e-3 if name == "dpmpp_2s" else 0.02
    torch.testing.assert_close(got, expected.double(), rtol=0, atol=tolerance)


@pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")
def test_sde_2m_is_diffusers_on_the_same_noise():
    network = TWO_MODES.network(linear_alpha_bar(1000), "eps")
    scheduler = DPMSolverMultistepScheduler(1000, algorithm_type="sde-dpmsolver++", solver_order=2, **COMMON)
    scheduler.set_timesteps(20)
    generator = torch.Generator().manual_seed(0)
    x = X.float()
    for t in scheduler.timesteps:
        x = scheduler.step(network(x, t.expand(len(x))), t, x, generator=generator).prev_sample
    generator = torch.Generator().manual_seed(0)
    levels = GaussianDiffusion(1000).levels(times=[int(t) for t in scheduler.timesteps])
    draw = lambda like: torch.randn(like.shape, generator=generator)  # noqa: E731
    got = run(X.float(), levels, Denoiser(network), SAMPLERS["dpmpp_sde_2m"], draw)
    torch.testing.assert_close(got, x, rtol=1e-3, atol=2e-3)


# ---- stochastic methods in law


@pytest.mark.parametrize("path", PATHS)
def test_sde_2m_converges_to_the_moments_of_gaussian_data(path):
    """Moments by recursion over the measured affine maps of (x, last estimate, noise): mean and covariance of the two.

    The mean is exact, and the variance of order 2: with one estimate alone it would be of order 1.
    """
    (m,), (S,) = GAUSSIAN.means, GAUSSIAN.variances
    step, errors = SAMPLERS["dpmpp_sde_2m"], []
    for n in (20, 40, 80):
        levels = log_snr_grid(path, n)
        (_, a, s), (_, a_end, s_end) = levels[0], levels[-1]
        mean, covariance = np.array([a * m, 0.0]), np.diag([a**2 * S + s**2, 0.0])
        memory = None
        for now, nxt in pairwise(levels):

            def go(x, past, z, now=now, nxt=nxt, memory=memory):
                past = None if memory is None else (torch.full((1, 1, 1, 1), past, dtype=torch.float64), memory)
                x = torch.full((1, 1, 1, 1), x, dtype=torch.float64)
                x, (x0, h) = step(x, now, nxt, GAUSSIAN.denoise, lambda like: torch.full_like(like, z), past)
                return np.array([x.item(), x0.item()]), h

            origin, h = go(0.0, 0.0, 0.0)
            A = np.stack([go(1.0, 0.0, 0.0)[0] - origin, go(0.0, 1.0, 0.0)[0] - origin], axis=1)
            C = go(0.0, 0.0, 1.0)[0] - origin
            mean, covariance, memory = A @ mean + origin, A @ covariance @ A.T + np.outer(C, C), h
        assert mean[0] == pytest.approx(a_end * m, abs=1e-12)
        errors.append(abs(covariance[0, 0] - (a_end**2 * S + s_end**2)))
    assert [math.log2(coarse / fine) for coarse, fine in pairwise(errors)] == pytest.approx([2, 2], abs=0.15)
    assert errors[-1] < 5e-4


@pytest.mark.parametrize("process", [GaussianDiffusion(1000), EDMProcess(), RectifiedFlow()], ids=["vp", "edm", "flow"])
def test_churn_adds_the_noise_of_the_process_and_tells_the_network(process):
    """x at the raised level has the law of the process there, and the network is asked at its t, alpha and sigma."""
    now, nxt = process.level(0.5), process.level(0.9)
    seen = []

    def denoise(x, level):
        seen.append((x, level))
        return torch.zeros_like(x)

    z = torch.ones_like(X)
    churned(SAMPLERS["euler"], process, 0.2)(X, now, nxt, denoise, lambda x: z)
    ((x, level),) = seen
    assert level == pytest.approx(process.level(0.5 - math.log(1.2)))
    added = level.sigma**2 - (level.alpha / now.alpha * now.sigma) ** 2
    torch.testing.assert_close(x, level.alpha / now.alpha * X + math.sqrt(added) * z, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(x, diffuse(X, now, level, lambda x: z))


def test_churn_is_karras_algorithm_2():
    """alpha = 1: sigma^ = (1 + gamma) sigma and x + sqrt(sigma^^2 - sigma^2) S_noise eps, then Heun from there."""
    process = EDMProcess()
    now, nxt = process.level(-1.0), process.level(-0.4)
    z, gamma, s_noise = X.flip(-1), 0.3, 1.007
    got, _ = churned(SAMPLERS["heun"], process, gamma, noise_scale=s_noise)(X, now, nxt, TWO_MODES.denoise, lambda x: z)
    hat = (1 + gamma) * now.sigma
    x = X + math.sqrt(hat**2 - now.sigma**2) * s_noise * z
    level = lambda sigma: now._replace(sigma=sigma)  # noqa: E731
    d = (x - TWO_MODES.denoise(x, level(hat))) / hat
    end = x + (nxt.sigma - hat) * d
    d2 = (end - TWO_MODES.denoise(end, level(nxt.sigma))) / nxt.sigma
    torch.testing.assert_close(got, x + (nxt.sigma - hat) * (d + d2) / 2, rtol=1e-9, atol=1e-9)


def test_churn_acts_in_its_interval_and_never_above_the_noisiest_level():
    process = GaussianDiffusion(1000)
    levels = process.levels(6)
    calls = []

    def noise(x):
        calls.append(1)
        return torch.zeros_like(x)

    run(X, levels, TWO_MODES.denoise, churned(SAMPLERS["heun"], process, 0.1), noise)
    assert len(calls) == 5  # not at the first level, which is the noisiest there is
    calls.clear()
    low, high = levels[3].sigma / levels[3].alpha, levels[2].sigma / levels[2].alpha
    run(X, levels, TWO_MODES.denoise, churned(SAMPLERS["heun"], process, 0.1, (low, high)), noise)
    assert len(calls) == 2
    run(X, levels, TWO_MODES.denoise, churned(SAMPLERS["heun"], process, 0.0), refuse)
    with pytest.raises(InputError, match=r"churn must be in 0\.\.0\.414.*, got 0\.5"):
        churned(SAMPLERS["heun"], process, 0.5)


def test_churned_heun_keeps_gaussian_data():
    """Moments by recursion: with the largest churn and many steps, the data's own."""
    (m,), (S,) = GAUSSIAN.means, GAUSSIAN.variances
    process = EDMProcess()
    levels = process.levels(200)
    mean, var = 0.0, S + levels[0].sigma ** 2
    mean = m
    step = churned(SAMPLERS["heun"], process, MAX_CHURN / 4)
    for now, nxt in pairwise(levels):
        A, B, C = affine(step, now, nxt, GAUSSIAN.denoise)
        mean, var = A * mean + B, A**2 * var + C**2
    assert (mean, var) == pytest.approx((m, S), rel=0.02)


# ---- the choice


@pytest.mark.parametrize("steps", [1, 2, 5, 8, 10, 20, 50, 1000])
def test_auto_names_a_deterministic_sampler_and_a_grid(steps):
    sampler, spacing = best_sampler(steps)
    assert sampler in SAMPLERS
    assert not sampler_facts(sampler).stochastic
    assert spacing in SPACINGS


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_works_at_one_step_and_on_every_process(name):
    for process in (GaussianDiffusion(1000), EDMProcess(), RectifiedFlow()):
        for steps in (1, 2, 3, 5):
            for spacing in SPACINGS:
                levels = process.levels(steps, spacing)
                x = math.hypot(levels[0].alpha * 0.8, levels[0].sigma) * X
                last = run(x, levels, TWO_MODES.denoise, SAMPLERS[name], fixed_noise())
                assert last.isfinite().all()
                assert name == "heun" or last.abs().max() < 30  # the exact estimate of a mixture is not bounded


@pytest.mark.parametrize("path", PATHS)
def test_the_order_is_bound_with_partial(path):
    """UniPC-1 by hand: ddim's step, then again with the line through both ends' estimates before the next one."""
    first, middle, last = log_snr_grid(path, 2, -1.0, 1.0)
    h = middle.half_log_snr - first.half_log_snr
    x0, c = TWO_MODES.denoise(X, first), -math.expm1(-h)  # c: the integral of exp(u - end) over the step
    guess = middle.sigma / first.sigma * X + middle.alpha * c * x0
    x1 = TWO_MODES.denoise(guess, middle)
    corrected = guess + middle.alpha * (1 - c / h) * (x1 - x0)  # and of exp(u - end) times the share of the way
    end = last.sigma / middle.sigma * corrected - last.alpha * math.expm1(-h) * x1
    states = trajectory(X, [first, middle, last], TWO_MODES.denoise, partial(unipc_step, order=1), refuse)
    torch.testing.assert_close(torch.stack([*states]), torch.stack([guess, end]), rtol=1e-9, atol=1e-9)


def test_churn_on_a_chain_that_ends_in_pure_noise():
    process = GaussianDiffusion(1000, lambda T: zero_terminal_snr(linear_schedule(T)))
    step = churned(SAMPLERS["heun"], process, MAX_CHURN)
    last = run(X, process.levels(500), TWO_MODES.denoise, step, fixed_noise())
    assert last.isfinite().all()


MEASURED = Path(__file__).parents[2] / "docs" / "results" / "distances.csv"
AUTO_RUNS = ("cifar10", "emoji", "digits")  # those that the rule was made from; one of them may be missing


def distances_within(budget):
    """{run: {(sampler, spacing): distance}}, each pair with the most evaluations that the budget allows."""
    with open(MEASURED, newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["run"] in AUTO_RUNS and int(row["evaluations"]) <= budget]
    found = {}
    for row in sorted(rows, key=lambda row: int(row["evaluations"])):
        found.setdefault(row["run"], {})[row["sampler"], row["spacing"]] = float(row["distance"])
    return found


@pytest.mark.parametrize("budget", [5, 6, 8, 10, 15, 20, 50])
def test_auto_follows_the_measurements(budget):
    """LOG.md: of all pairs of sampler and grid it has the least geometric mean over the runs of distance / best.

    A tolerance of 15% lets the table be measured anew without a change of rule for every pair that draws level.
    """
    runs = distances_within(budget).values()
    assert len(runs) >= 2  # the rule is about what several runs have in common
    means = {
        pair: math.exp(np.mean([math.log(distances[pair] / min(distances.values())) for distances in runs]))
        for pair in set.intersection(*map(set, runs))
    }
    assert len(means) > 20  # there is a choice
    assert means[best_sampler(budget)] <= 1.15 * min(means.values())
