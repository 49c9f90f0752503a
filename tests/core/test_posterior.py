"""One step back when x0 is known, and the bound's terms: against other libraries' normals, and to the far tails."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch.distributions import Normal, kl_divergence

from bytepixels import CLEAN, GaussianDiffusion, cosine_schedule, linear_schedule
from bytepixels.core.posterior import (
    Posterior,
    bound_term,
    interpolated_log_variance,
    log_likelihood_of_bins,
    log_ndtr,
    posterior,
    posteriors,
)
from tests.core.laws import PATHS, linear_alpha_bar

BINS = torch.arange(256, dtype=torch.float64) / 127.5 - 1


def random(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# ---- q(x_s | x_t, x0)


@pytest.mark.parametrize("path", PATHS)
def test_the_posterior_is_bayes_rule(path):
    """Precisions of q(x_s | x0) and q(x_t | x_s) add; the mean weighs what both say."""
    for lam, gap in ((-3.0, 0.1), (0.0, 2.0), (4.0, 0.5)):
        alpha, sigma = PATHS[path](lam)
        alpha_s, sigma_s = PATHS[path](lam + gap)
        ratio = alpha / alpha_s
        added = sigma**2 - ratio**2 * sigma_s**2
        precision = 1 / sigma_s**2 + ratio**2 / added
        q = posterior(alpha, sigma, alpha_s, sigma_s)
        assert q.beta == pytest.approx(added, rel=1e-12)
        assert q.variance == pytest.approx(1 / precision, rel=1e-9)
        assert q.coef_xt == pytest.approx(ratio / added / precision, rel=1e-9)
        assert q.coef_x0 == pytest.approx(alpha_s / sigma_s**2 / precision, rel=1e-9)


@pytest.mark.parametrize("T", [1, 2, 3, 1000])
def test_the_table_of_a_chain_is_ho_et_als(T):
    """Eq. 6 and 7 in betas; `small` of t = 0 is that of t = 1, never 1e-20, and beta where there is no t = 1."""
    beta = np.linspace(1e-4, 0.02, T) if T > 1 else linear_schedule(1).numpy()
    abar = np.cumprod(1 - beta)
    before = np.append(1.0, abar[:-1])
    small = (1 - before) / (1 - abar) * beta
    small[0] = small[1] if T > 1 else beta[0]
    q = GaussianDiffusion(T).posterior(torch.arange(T), torch.float64)
    for got, expected in zip(
        q,
        (np.sqrt(1 - beta) * (1 - before) / (1 - abar), np.sqrt(before) * beta / (1 - abar), small, beta),
        strict=True,
    ):
        assert got.shape == (T, 1, 1, 1)
        np.testing.assert_allclose(got.flatten(), expected, rtol=1e-9)
    assert q.coef_x0[0] == pytest.approx(1, rel=1e-12)  # the last step goes to the estimate itself


def test_posteriors_of_any_grid_are_those_of_its_steps():
    levels = GaussianDiffusion(1000).levels(7, "log_snr")
    table = posteriors(levels)
    for i in range(6):
        expected = posterior(*levels[i][1:], *levels[i + 1][1:])
        for got, one in zip(table, expected, strict=True):
            assert got[i].item() == pytest.approx(one, rel=1e-9)
    assert levels[-1] == CLEAN
    assert table.variance[6] == table.variance[5]


@pytest.mark.parametrize("schedule", [linear_schedule, cosine_schedule])
def test_a_chain_of_thousands_keeps_small_below_large(schedule):
    q = GaussianDiffusion(4000, schedule).posterior(torch.arange(4000), torch.float64)
    assert (q.variance[1:] <= q.beta[1:]).all()  # equal where float64 finds nothing left of the image
    assert (q.variance[1:1000] < q.beta[1:1000]).all()
    assert (q.variance > 1e-10).all()


def test_the_network_chooses_between_small_and_large():
    """Nichol & Dhariwal 2021, eq. 15: exp(v log beta + (1 - v) log beta~), v from 0 to 1."""
    small, large = math.log(1e-4), math.log(4e-4)
    fraction = torch.tensor([-1.0, 0.0, 1.0, 0.5])
    got = interpolated_log_variance(fraction, small, large).exp()
    torch.testing.assert_close(got, torch.tensor([1e-4, 2e-4, 4e-4, 1e-4 * 4**0.75]))


# ---- the terms


def test_the_kl_is_that_of_the_two_normals():
    x0, estimate, log_variance = random(5, 2, 3, 3), random(5, 2, 3, 3, seed=1), random(5, 2, 3, 3, seed=2)
    q = Posterior(*(random(5, 1, 1, 1, seed=3 + i).exp() for i in range(4)))
    x_t = random(5, 2, 3, 3, seed=9)
    kl = kl_divergence(
        Normal(q.coef_xt * x_t + q.coef_x0 * x0, q.variance.sqrt()),
        Normal(q.coef_xt * x_t + q.coef_x0 * estimate, (log_variance / 2).exp()),
    )
    last = torch.zeros(5, 1, 1, 1, dtype=torch.bool)
    got = bound_term(x0, estimate, q, log_variance, last)
    torch.testing.assert_close(got, kl.mean(dim=(1, 2, 3)) / math.log(2), rtol=1e-12, atol=0)
    nothing = bound_term(x0, x0, q, q.variance.log().expand_as(x0), last)
    torch.testing.assert_close(nothing, torch.zeros(5, dtype=torch.float64), rtol=0, atol=1e-15)


def test_the_last_step_is_the_likelihood_of_the_bins():
    x0 = BINS[torch.randint(256, (4, 1, 5, 5), generator=torch.Generator().manual_seed(0))]
    estimate, log_variance = x0 + 0.01 * random(4, 1, 5, 5), torch.full_like(x0, math.log(1e-4))
    q = Posterior(*(torch.full((4, 1, 1, 1), value, dtype=torch.float64) for value in (0.0, 1.0, 1e-4, 2e-4)))
    last = torch.tensor([True, False, True, False]).view(4, 1, 1, 1)
    got = bound_term(x0, estimate, q, log_variance, last)
    below = np.where(x0 < -0.999, -np.inf, x0 - 1 / 255)
    above = np.where(x0 > 0.999, np.inf, x0 + 1 / 255)
    share = norm.cdf(above, estimate, 0.01) - norm.cdf(below, estimate, 0.01)
    bits = -np.log2(share).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(got[::2], bits[::2], rtol=1e-6)
    kl = ((x0 - estimate).square() / 1e-4 / 2).mean(dim=(1, 2, 3)) / math.log(2)
    torch.testing.assert_close(got[1::2], kl[1::2], rtol=1e-9, atol=0)


@pytest.mark.parametrize("mean", [-30.0, -1.0, -0.3, 0.0, 0.999, 1.0, 2.0])
@pytest.mark.parametrize("std", [1e-4, 0.01, 0.3, 5.0, 100.0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_the_bins_share_out_all_there_is(mean, std, dtype, tolerance):
    """The sum of P over the 256 bins is 1, wherever the normal lies."""
    given = (torch.full((256,), value, dtype=dtype) for value in (mean, 2 * math.log(std)))
    log_p = log_likelihood_of_bins(BINS.to(dtype), *given)
    assert log_p.logsumexp(0).exp().item() == pytest.approx(1, abs=tolerance)


def tail(low, high):
    """log(Phi(high) - Phi(low)) for 0 < low < high, from scipy's log of the tail."""
    first, second = norm.logsf(low), norm.logsf(high)
    return first + np.log1p(-np.exp(second - first))


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize("away", [0.02, 0.1, 0.5, 1.3])
@pytest.mark.parametrize("std", [1e-3, 0.01, 0.1])
def test_far_tails_are_right_where_the_difference_of_cdfs_is_zero(side, away, std):
    """The mean far above or below its bin: up to 1300 standard deviations, log P = -850,000."""
    x0 = BINS[128 - 20 * side]
    mean, log_variance = x0 + side * away, torch.tensor(2 * math.log(std), dtype=torch.float64)
    got = log_likelihood_of_bins(x0, mean, log_variance).item()
    assert got == pytest.approx(tail((away - 1 / 255) / std, (away + 1 / 255) / std), rel=1e-9)
    in_float32 = log_likelihood_of_bins(x0.float(), mean.float(), log_variance.float()).item()
    assert in_float32 == pytest.approx(got, rel=1e-4)


@pytest.mark.parametrize("mean", [-3.0, 0.0, 3.0])
def test_the_outer_bins_reach_to_infinity(mean):
    log_p = log_likelihood_of_bins(BINS, torch.tensor(mean).double(), torch.tensor(0.0).double())
    assert log_p[0].item() == pytest.approx(norm.logcdf(-1 + 1 / 255, mean, 1), rel=1e-12)
    assert log_p[-1].item() == pytest.approx(norm.logsf(1 - 1 / 255, mean, 1), rel=1e-12)


@pytest.mark.parametrize("log_variance", [-40.0, -25.0, -10.0, 0.0, 10.0, 25.0])
@pytest.mark.parametrize("mean", [-1e3, -1.0, 0.0, 1.0, 1e3])
def test_no_extreme_gives_a_gradient_that_is_not_finite(mean, log_variance):
    """float32, and both branches of the bound at once: what is masked must not leak a NaN into the gradient."""
    x0 = BINS.float().view(256, 1, 1, 1)
    estimate = torch.full_like(x0, mean, requires_grad=True)
    chosen = torch.full_like(x0, log_variance, requires_grad=True)
    log_p = log_likelihood_of_bins(x0, estimate, chosen)
    assert log_p.isfinite().all()
    assert (log_p <= 0).all()
    q = GaussianDiffusion(1000).posterior(torch.arange(256))
    for last in (True, False):
        term = bound_term(x0, estimate, q, chosen, torch.full_like(x0, last, dtype=torch.bool))
        assert term.isfinite().all()
        for gradient in torch.autograd.grad(term.sum(), (estimate, chosen)):
            assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_log_of_the_normals_distribution_and_its_gradient(dtype):
    """The gradient is the density over the distribution; x to a billion standard deviations out."""
    x = torch.tensor([-1e9, -1e6, -1e4, -300, -21, -20.0001, -20, -19.9999, -5, 0, 3, 30, 1e9], dtype=dtype)
    x.requires_grad_()
    log_p = log_ndtr(x)
    (slope,) = torch.autograd.grad(log_p.sum(), x)
    at = x.detach().double().numpy()
    exact = np.exp(norm.logpdf(at[2:]) - norm.logcdf(at[2:]))
    tolerance = 1e-5 if dtype == torch.float32 else 1e-10
    np.testing.assert_allclose(log_p.detach(), norm.logcdf(at), rtol=tolerance, atol=1e-30)
    np.testing.assert_allclose(slope[2:], exact, rtol=1e-4 if dtype == torch.float32 else 1e-8, atol=1e-30)
    np.testing.assert_allclose(slope[:2], -at[:2], rtol=tolerance)  # there logpdf and logcdf cancel


def test_gradients_are_those_of_the_finite_differences():
    x0 = BINS[::15].clone()
    mean = (x0 + 0.05 * random(len(x0))).requires_grad_()
    log_variance = (-4 + random(len(x0), seed=1)).requires_grad_()
    assert torch.autograd.gradcheck(lambda m, v: log_likelihood_of_bins(x0, m, v), (mean, log_variance))


# ---- the whole bound, for Gaussian data

M, S = 0.3, 0.25


def bound(T, choose):
    """sum_t L_t + L_T in nats per dimension, at the exact denoiser, for log s^2 = choose(q, mmse).

    L_0 is that of a density, and L_T has no network in it: both by hand. The rest is bound_term at an error of
    sqrt(mmse), which is what it is in the mean.
    """
    abar = torch.from_numpy(linear_alpha_bar(T)).view(T, 1, 1, 1)
    mmse = S * (1 - abar) / (abar * S + 1 - abar)
    q = GaussianDiffusion(T).posterior(torch.arange(T), torch.float64)
    log_variance = choose(q, mmse)
    estimate = mmse.sqrt()
    terms = bound_term(
        torch.zeros_like(estimate), estimate, q, log_variance, torch.zeros_like(q.coef_x0, dtype=torch.bool)
    )
    first = (math.log(2 * math.pi) + log_variance[0] + mmse[0] / log_variance[0].exp()) / 2
    end = abar[-1].item()
    prior = (end * (S + M**2) - end - math.log(1 - end)) / 2
    return terms[1:].sum().item() * math.log(2) + first.item() + prior


def entropy_and_prior(T):
    """H(x0) + KL(q(x_T) || N(0, 1)): what no bound can be below."""
    end = linear_alpha_bar(T)[-1]
    variance = end * S + 1 - end
    return math.log(2 * math.pi * math.e * S) / 2 + (variance + end * M**2 - 1 - math.log(variance)) / 2


def optimal(q, mmse):
    small = torch.cat([torch.zeros_like(q.variance[:1]), q.variance[1:]])  # of t = 0: the estimate's error
    return (small + q.coef_x0**2 * mmse).log()


@pytest.mark.parametrize("T", [10, 100, 1000, 4000])
def test_with_the_best_variance_the_bound_is_tight(T):
    assert bound(T, optimal) == pytest.approx(entropy_and_prior(T), abs=1e-9)


def test_what_a_fixed_variance_loses():
    """In nats per dimension, of a linear chain of 1000: the case for learning it."""
    floor = entropy_and_prior(1000)
    assert bound(1000, lambda q, mmse: q.beta.log()) - floor == pytest.approx(0.0010923, rel=1e-4)
    assert bound(1000, lambda q, mmse: q.variance.log()) - floor == pytest.approx(0.570, abs=0.001)
