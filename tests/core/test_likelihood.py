"""The bound and the density against closed forms for Gaussian data, exact densities, and the order of the method."""

import math
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch

from bytepixels import CLEAN, Denoiser, EDMProcess, GaussianDiffusion, InputError, RectifiedFlow, SeededNoise
from bytepixels.core.likelihood import (
    bound_terms,
    noise_range,
    ode_bits,
    ode_log_likelihood,
    prior_term,
    variational_bound,
)
from bytepixels.core.posterior import posteriors
from bytepixels.core.schedules import cosine_schedule, linear_schedule, zero_terminal_snr
from tests.core.laws import GAUSSIAN, TWO_MODES, Mixture

LN2 = math.log(2)
SMALL = Mixture((1.0,), (0.1,), (0.04,))  # five standard deviations lie within -1..1


def exact(law, fraction=None):
    """E[x0 | x_t] that autograd sees through; with a fraction, the estimate of a network that learned the variance."""
    weights, means, variances = (
        torch.tensor(row, dtype=torch.float64) for row in (law.weights, law.means, law.variances)
    )

    def denoise(x, level):
        mean, variance = level.alpha * means, level.alpha**2 * variances + level.sigma**2
        off = x[..., None] - mean
        share = torch.softmax(weights.log() - variance.log() / 2 - off**2 / variance / 2, dim=-1)
        return (share * (means + level.alpha * variances / variance * off)).sum(-1)

    return denoise if fraction is None else lambda x, level: (denoise(x, level), torch.full_like(x, fraction))


def density(law, x, level):
    """log p_t(x), elementwise, in numpy's float64."""
    mean, variance = law.at(level.alpha, level.sigma)
    logs = np.log(law.weights) - np.log(2 * np.pi * variance) / 2 - (x.numpy()[..., None] - mean) ** 2 / variance / 2
    return torch.from_numpy(np.logaddexp.reduce(logs, axis=-1))


def draws(law, count, shape=(1, 4, 4), seed=0):
    """x0 [count, *shape] of a law, float64."""
    rng = np.random.default_rng(seed)
    which = rng.choice(len(law.weights), p=law.weights, size=(count, *shape))
    x0 = rng.normal(np.array(law.means)[which], np.sqrt(np.array(law.variances)[which]))
    return torch.from_numpy(x0)


def fixed_noise(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return lambda x: torch.randn(x.shape, dtype=x.dtype, generator=generator)


# ---- the bound in closed form: FIELD's law, from the posterior that the code steps with


def gaussian_bound(levels, m, S, variance):
    """Terms in nats per dimension, noisiest first and L_0 (with a density for its decoder) last, for Normal(m, S)."""
    a, s = levels[0].alpha, levels[0].sigma
    prior = (a**2 * (S + m**2) + s**2 - 1 - math.log(s**2)) / 2
    terms, rows = [], [row.tolist() for row in posteriors(levels)[1:]]
    for (now, nxt), pull, small, large in zip(pairwise(levels), *rows, strict=True):
        missed = pull**2 * S * now.sigma**2 / (now.alpha**2 * S + now.sigma**2)  # pull^2 mmse
        optimal = missed + (small if nxt.sigma else 0)
        chosen = {"optimal": optimal, "small": small, "large": large}[variance]
        spread = small / chosen - 1 - math.log(small / chosen) if nxt.sigma else math.log(2 * math.pi * chosen)
        terms.append((spread + missed / chosen) / 2)
    return prior, terms


@pytest.mark.parametrize("schedule", [linear_schedule, cosine_schedule])
@pytest.mark.parametrize("T", [10, 100, 1000, 4000])
def test_with_the_optimal_variance_the_bound_is_the_entropy_plus_the_mismatch_of_the_prior(T, schedule):
    m, S = 0.3, 0.25
    levels = GaussianDiffusion(T, schedule).levels()
    prior, terms = gaussian_bound(levels, m, S, "optimal")
    a, s = levels[0].alpha, levels[0].sigma
    V = a**2 * S + s**2
    mismatch = (V + (a * m) ** 2 - 1 - math.log(V)) / 2
    assert prior + sum(terms) == pytest.approx(math.log(2 * math.pi * math.e * S) / 2 + mismatch, abs=1e-10)


@pytest.mark.parametrize(
    ("T", "variance", "gap"),
    [(10, "large", 0.08274), (100, "large", 0.010961), (1000, "large", 0.0010923), (1000, "small", 0.570)],
)
def test_what_a_fixed_variance_costs(T, variance, gap):
    """Of the linear schedule whose ends are scaled by 1000 / T, the last beta at most 0.999."""
    levels = GaussianDiffusion(
        T, lambda T: torch.linspace(0.1 / T, min(20 / T, 0.999), T, dtype=torch.float64)
    ).levels()
    (_, best), (_, terms) = (gaussian_bound(levels, 0.3, 0.25, name) for name in ("optimal", variance))
    assert sum(terms) - sum(best) == pytest.approx(gap, rel=1e-3)


@pytest.mark.parametrize("variance", ["small", "large", "learned"])
@pytest.mark.parametrize("times", [[999, 700, 400, 200, 100, 50], [600, 30]], ids=["six", "two"])
def test_every_term_agrees_with_the_closed_form(times, variance):
    """Within four standard errors, for the means over images; L_0's bins are narrow beside its noise."""
    levels = GaussianDiffusion().levels(times=times)
    x0 = draws(SMALL, 4000)
    fraction = -1.0 if variance == "learned" else None
    estimate = exact(SMALL, fraction) if fraction else lambda x, level: (exact(SMALL)(x, level), None)
    bound = variational_bound(x0, levels, estimate, fixed_noise(), variance)
    prior, terms = gaussian_bound(levels, 0.1, 0.04, "small" if variance == "learned" else variance)
    terms[-1] -= math.log(2 / 255)  # a bin's probability, not a density
    got, error = bound.terms.mean(1) * LN2, bound.terms.std(1) * LN2 / math.sqrt(len(x0))
    assert (got - torch.tensor(terms)).abs().le(4 * error + 1e-9).all()
    assert (error < 0.02 * torch.tensor(terms).abs()).all()  # tight enough to tell
    assert bound.prior.mean().item() * LN2 == pytest.approx(prior, abs=4 * bound.prior.std().item() * LN2 / 63)
    torch.testing.assert_close(bound.total, bound.prior + bound.terms.sum(0))


def test_the_learned_variance_lies_between_the_fixed_ones():
    levels, x0 = GaussianDiffusion().levels(6), draws(SMALL, 8)
    for fraction, variance in ((-1.0, "small"), (1.0, "large")):
        learned = variational_bound(x0, levels, exact(SMALL, fraction), fixed_noise(), "learned")
        fixed = variational_bound(x0, levels, exact(SMALL, fraction), fixed_noise(), variance)
        torch.testing.assert_close(learned, fixed)


def test_several_variances_come_from_one_evaluation():
    levels, x0, calls = GaussianDiffusion().levels(5), draws(SMALL, 3).float(), []

    def estimate(x, level):
        calls.append(level)
        return exact(SMALL)(x.double(), level).float(), None

    both = torch.stack(list(bound_terms(x0, levels, estimate, fixed_noise(), ("small", "large"))), dim=1)
    assert both.shape == (2, 5, 3)
    assert calls == levels[:-1]
    for row, variance in zip(both, ("small", "large"), strict=True):
        assert torch.equal(row, variational_bound(x0, levels, estimate, fixed_noise(), variance).terms)


def test_the_terms_are_lazy_and_hold_no_gradient():
    calls = []
    weight = torch.ones((), dtype=torch.float64, requires_grad=True)

    def estimate(x, level):
        calls.append(level)
        return weight * x, None

    terms = bound_terms(draws(SMALL, 2), GaussianDiffusion(10).levels(), estimate, fixed_noise())
    assert calls == []
    assert not next(terms).requires_grad
    assert len(calls) == 1


@pytest.mark.parametrize("sigma_data", [1.0, 0.5])
@pytest.mark.parametrize("process", [GaussianDiffusion(20), EDMProcess(), RectifiedFlow()], ids=["vp", "edm", "flow"])
def test_the_prior_is_the_kl_divergence_of_two_normals(process, sigma_data):
    level, x0 = process.levels(5)[1], draws(GAUSSIAN, 3)
    start = torch.distributions.Normal(0.0, math.hypot(level.alpha * sigma_data, level.sigma))
    noised = torch.distributions.Normal(level.alpha * x0, level.sigma)
    expected = torch.distributions.kl_divergence(noised, start).mean((1, 2, 3)) / LN2
    torch.testing.assert_close(prior_term(x0, level, sigma_data), expected)


def test_pure_noise_is_a_prior_that_costs_nothing():
    levels = GaussianDiffusion(50, lambda T: zero_terminal_snr(linear_schedule(T))).levels()
    x0 = draws(SMALL, 2)
    assert torch.equal(prior_term(x0, levels[0]), torch.zeros(2, dtype=torch.float64))
    bound = variational_bound(x0, levels, lambda x, level: (exact(SMALL)(x, level), None), fixed_noise())
    assert bound.total.isfinite().all()


@pytest.mark.parametrize("variance", ["small", "large"])
def test_a_chain_of_one_step_is_its_decoder_and_its_prior(variance):
    levels, x0 = GaussianDiffusion().levels(1), draws(SMALL, 2)
    bound = variational_bound(x0, levels, lambda x, level: (exact(SMALL)(x, level), None), fixed_noise(), variance)
    assert bound.terms.shape == (1, 2)
    assert bound.total.isfinite().all()


@pytest.mark.parametrize(
    ("levels", "options", "sentence"),
    [
        (GaussianDiffusion(10).levels()[::-1], {}, "from noisy levels to CLEAN"),
        (GaussianDiffusion(10).levels()[:-1], {}, "from noisy levels to CLEAN"),
        ([CLEAN], {}, "from noisy levels to CLEAN"),
        (GaussianDiffusion(10).levels(), {"variance": "learned"}, "twice the channels"),
        (GaussianDiffusion(10).levels(), {"variance": "larg"}, "did you mean 'large'"),
    ],
    ids=["backwards", "not to the end", "one", "not learned", "misspelt"],
)
def test_what_the_bound_refuses(levels, options, sentence):
    with pytest.raises(InputError, match=sentence):
        variational_bound(draws(SMALL, 2), levels, lambda x, level: (x, None), fixed_noise(), **options)


# ---- the density along the ODE

FAR = EDMProcess(sigma_min=0.05, sigma_max=1e8)  # so noisy that the prior is exact to 1e-8


@pytest.mark.parametrize("law", [GAUSSIAN, TWO_MODES], ids=["gaussian", "two modes"])
def test_the_density_is_exact_and_of_order_4(law):
    x = draws(law, 3, (1, 2, 2)) + 0.05 * fixed_noise()(torch.zeros(3, 1, 2, 2, dtype=torch.float64))
    expected = density(law, x, FAR.level(noise_range(FAR)[1])).flatten(1).sum(1)
    errors = []
    for steps in (64, 128, 256):
        got = ode_log_likelihood(x, FAR, exact(law), steps, probes=0)
        assert torch.equal(got.standard_error, torch.zeros(3, dtype=torch.float64))
        errors.append((got.value - expected).abs().max().item())
    assert errors[-1] < 1e-3
    assert [math.log2(coarse / fine) for coarse, fine in pairwise(errors)] == pytest.approx([4, 4], abs=0.35)


@pytest.mark.parametrize(
    ("process", "ends"),
    [(GaussianDiffusion(1000, cosine_schedule), None), (RectifiedFlow(), (-9.0, 3.0)), (EDMProcess(), (-9.0, 3.0))],
    ids=["vp", "flow", "edm"],
)
def test_the_density_on_every_process(process, ends):
    """alpha falls on the way of the first two: the change of variables counts."""
    _, cleanest = noise_range(process) if ends is None else ends
    level = process.level(cleanest)
    x = level.alpha * draws(TWO_MODES, 3, (1, 2, 2)) + level.sigma * fixed_noise()(torch.zeros(3, 1, 2, 2).double())
    got = ode_log_likelihood(x, process, exact(TWO_MODES), 400, probes=0, ends=ends).value
    torch.testing.assert_close(got, density(TWO_MODES, x, level).flatten(1).sum(1), rtol=0, atol=2e-3)


def coupled(x, level):
    """A denoiser whose Jacobian has large parts off its diagonal, which the probes must average away."""
    return torch.tanh(x + x.roll(1, -1) + 0.5 * x.roll(1, -2)) / (1 + level.sigma)


def test_hutchinsons_estimate_is_unbiased_and_knows_its_error():
    process, x = EDMProcess(sigma_min=0.3, sigma_max=20), draws(TWO_MODES, 1, (1, 3, 3))
    expected = ode_log_likelihood(x, process, coupled, 8, probes=0).value
    got = ode_log_likelihood(x.expand(40, -1, -1, -1), process, coupled, 8, probes=100, noise=fixed_noise())
    offs = (got.value - expected) / got.standard_error
    assert got.standard_error.mean() > 0.02  # there is something to average
    assert abs(offs.mean()) < 3.5 / math.sqrt(40)
    assert 0.7 < offs.std() < 1.35  # the error that is said is the error there is
    one = ode_log_likelihood(x, process, coupled, 8, probes=1, noise=fixed_noise())
    assert one.standard_error.isnan().all()


def test_float32_comes_back_as_it_went_in_and_nothing_keeps_a_gradient():
    x = draws(TWO_MODES, 2).float()
    with torch.no_grad():
        got = ode_log_likelihood(x, FAR, coupled, 4, noise=fixed_noise())
    assert got.value.dtype == torch.float32
    assert not got.value.requires_grad


@pytest.mark.parametrize(
    ("options", "sentence"),
    [({"steps": 0}, "steps must be at least 1, got 0"), ({"probes": -1}, "probes must be at least 0, got -1")],
)
def test_what_the_ode_refuses(options, sentence):
    with pytest.raises(InputError, match=sentence):
        ode_log_likelihood(draws(SMALL, 1), FAR, coupled, **options)


def test_one_level_is_no_range():
    with pytest.raises(InputError, match="needs two levels with some image left, the process has 1"):
        noise_range(GaussianDiffusion(1))


# ---- bits


def on_grey_levels(x0):
    return (x0.clamp(-1, 1) * 127.5 + 127.5).round() / 127.5 - 1


def test_the_bits_of_wide_gaussian_data_are_its_entropy():
    """Data smooth beside a grey level: bits = H / ln 2 + log2(127.5), and dequantising with noise is nearly tight."""
    x0 = on_grey_levels(draws(SMALL, 400))
    process = EDMProcess(sigma_min=0.01, sigma_max=1000)
    bits = ode_bits(x0, process, exact(SMALL), 60, 0, fixed_noise()).value
    level = process.level(noise_range(process)[1])
    entropy = math.log(2 * math.pi * math.e * 0.04) / 2 / LN2 + math.log2(127.5)
    error = bits.std().item() / math.sqrt(len(bits))
    assert error < 0.02
    assert level.sigma == pytest.approx(0.01)
    assert bits.mean().item() == pytest.approx(entropy, abs=4 * error + 0.01)


@pytest.mark.parametrize(
    ("process", "ends"),
    [(EDMProcess(sigma_min=0.0005, sigma_max=100), None), (RectifiedFlow(), (-9.0, 5.5))],
    ids=["edm", "flow"],
)
def test_uniform_bits_of_narrow_gaussian_data_see_how_wide_the_dequantiser_is(process, ends):
    """N(m, (1/255)^2) beside a grey level of 1/127.5, in closed form: u of no width, or of half, is 0.2 bits less.

    The noise is a fine grid of the normal's quantiles: any draw that is even over one grey level has that mean of u^2.
    """
    m, s, n = 1 / 255, 1 / 255, 400  # m: grey level 128
    level = process.level(noise_range(process)[1] if ends is None else ends[1])
    even = torch.special.ndtri((torch.arange(n, dtype=torch.float64) + 0.5) / n).view(n, 1, 1, 1)
    narrow = exact(Mixture((1.0,), (m,), (s**2,)))
    bits = ode_bits(torch.full_like(even, m), process, narrow, 60, 0, lambda x: even, "uniform", ends).value
    v, u2 = s**2 + (level.sigma / level.alpha) ** 2, (1 / 127.5) ** 2 / 12
    expected = (math.log(2 * math.pi * v) / 2 + u2 / (2 * v)) / LN2 + math.log2(127.5)
    assert bits.mean().item() == pytest.approx(expected, abs=2e-4)


def test_the_ode_and_the_full_chain_bound_the_same_thing():
    """On the same decoder and an exact denoiser, the chain is above the ODE by no more than its variance costs."""
    x0, process = on_grey_levels(draws(SMALL, 300)), GaussianDiffusion(1000)
    chain = variational_bound(x0, process.levels(), lambda x, level: (exact(SMALL)(x, level), None), fixed_noise(1))
    ode = ode_bits(x0, process, exact(SMALL), 60, 0, fixed_noise()).value
    off = chain.total - ode
    m, S = 0.1, 0.04
    levels = process.levels()
    cost = (sum(gaussian_bound(levels, m, S, "large")[1]) - sum(gaussian_bound(levels, m, S, "optimal")[1])) / LN2
    assert off.mean().item() == pytest.approx(cost, abs=4 * off.std().item() / math.sqrt(len(x0)) + 0.01)


def test_an_image_has_its_own_bits_whatever_comes_with_it():
    x0, process = on_grey_levels(draws(SMALL, 3)).float(), EDMProcess()
    denoise = Denoiser(lambda x, t: 0.3 * x + t.view(-1, 1, 1, 1), "v", process.sigma_data)
    measure = partial(ode_bits, process=process, denoise=denoise, steps=4, probes=2)
    together = measure(x0, noise=SeededNoise([4, 5, 6]))
    alone = measure(x0[1:2], noise=SeededNoise([5]))
    torch.testing.assert_close(together.value[1:2], alone.value)
    torch.testing.assert_close(together.standard_error[1:2], alone.standard_error)


def test_a_misspelt_dequantisation_is_refused():
    with pytest.raises(InputError, match="did you mean 'uniform'"):
        ode_bits(draws(SMALL, 1), FAR, coupled, dequantisation="unifrom")
