"""The package's exact laws against tests/laws.py, which is made of scipy, and against definitions."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from bytepixels import CLEAN, Level
from bytepixels.core.exact_denoisers import GAUSSIAN, TWO_MODES, Empirical

from . import laws

LEVELS = [laws.log_snr_grid(path, 4, -4, 3)[i] for path in laws.PATHS for i in (0, 2, 4)]
X = torch.linspace(-4, 4, 33, dtype=torch.float64)
P = torch.linspace(0.01, 0.99, 25, dtype=torch.float64)
PAIRS = [(TWO_MODES, laws.TWO_MODES), (GAUSSIAN, laws.GAUSSIAN)]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("ours", "reference"), PAIRS, ids=["two modes", "gaussian"])
def test_a_mixture_is_scipys(ours, reference, level):
    _, alpha, sigma = level
    np.testing.assert_allclose(ours.denoise(X, level), reference.expected_x0(X.numpy(), alpha, sigma), atol=1e-12)
    np.testing.assert_allclose(ours.cdf(X, level), reference.cdf(X.numpy(), alpha, sigma), atol=1e-14)
    np.testing.assert_allclose(ours.quantile(P, level), reference.quantile(P.numpy(), alpha, sigma), rtol=1e-11)


@pytest.mark.parametrize("x", [-1.5, 0.0, 0.9])
def test_the_denoiser_is_bayes_rule(x):
    """E[x0 | x] by numerical integration of the definition."""
    level = Level(0.0, 0.6, 0.8)
    modes = list(zip(TWO_MODES.weights, TWO_MODES.means, TWO_MODES.variances, strict=True))

    def joint(x0):
        return sum(w * norm.pdf(x0, m, math.sqrt(v)) for w, m, v in modes) * norm.pdf(x, 0.6 * x0, 0.8)

    expected = quad(lambda x0: x0 * joint(x0), -4, 4, epsabs=1e-13)[0] / quad(joint, -4, 4, epsabs=1e-13)[0]
    assert TWO_MODES.denoise(torch.tensor([x], dtype=torch.float64), level).item() == pytest.approx(expected, rel=1e-8)


def test_the_flow_keeps_quantiles_and_comes_back():
    first, last = LEVELS[0], LEVELS[2]
    x = TWO_MODES.quantile(P, first)
    there = TWO_MODES.flow(x, first, last)
    np.testing.assert_allclose(TWO_MODES.cdf(there, last), P, atol=1e-13)
    np.testing.assert_allclose(TWO_MODES.flow(there, last, first), x, rtol=1e-9)


@pytest.mark.parametrize("path", laws.PATHS)
def test_the_flow_of_a_gaussian_is_affine(path):
    """x_s = a_s m + sqrt(V_s / V_t) (x_t - a_t m)."""
    first, last = laws.log_snr_grid(path, 1)
    V, W = (level.alpha**2 * 0.25 + level.sigma**2 for level in (first, last))
    x = first.alpha * 0.3 + math.sqrt(V) * torch.linspace(-3, 3, 13, dtype=torch.float64)
    expected = last.alpha * 0.3 + math.sqrt(W / V) * (x - first.alpha * 0.3)
    np.testing.assert_allclose(GAUSSIAN.flow(x, first, last), expected, rtol=1e-10)


def test_the_flow_ends_at_the_data():
    np.testing.assert_allclose(
        GAUSSIAN.flow(torch.zeros(1), Level(0.0, 0.0, 1.0), CLEAN), [0.3], rtol=1e-12, err_msg="median to median"
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_denoiser_answers_in_kind(dtype):
    x = torch.zeros(2, 1, 4, 4, dtype=dtype)
    for denoise in (TWO_MODES.denoise, Empirical(torch.ones(3, 1, 4, 4))):
        answer = denoise(x, LEVELS[1])
        assert (answer.dtype, answer.shape) == (dtype, x.shape)


def empirical(x, pictures, level):
    """The definition, one weight at a time."""
    rows = []
    for one in x:
        weight = [math.exp(-((one - level.alpha * p) ** 2).sum().item() / (2 * level.sigma**2)) for p in pictures]
        rows.append(sum(w * p for w, p in zip(weight, pictures, strict=True)) / sum(weight))
    return torch.stack(rows)


@pytest.mark.parametrize("level", LEVELS)
def test_the_empirical_denoiser_is_the_posterior_mean(level):
    pictures = torch.randn(5, 2, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = level.alpha * pictures[:4] + level.sigma * pictures[1:].flip(0)
    torch.testing.assert_close(Empirical(pictures)(x, level), empirical(x, pictures, level), rtol=1e-9, atol=1e-11)


def test_one_number_per_picture_is_a_mixture_of_points():
    """Two laws of the package that know nothing of each other."""
    points = laws.Mixture((0.5, 0.5), (-1.0, 0.8), (0.0, 0.0))
    x = X.view(-1, 1, 1, 1)
    for level in LEVELS:
        got = Empirical(torch.tensor([-1.0, 0.8], dtype=torch.float64).view(2, 1, 1, 1))(x, level)
        torch.testing.assert_close(got, points.denoise(x, level), rtol=1e-9, atol=1e-12)


def test_blocks_change_nothing(monkeypatch):
    pictures = torch.randn(6, 1, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x, level = pictures[:5] / 2, Level(0.0, 0.6, 0.8)
    whole = Empirical(pictures)(x, level)
    monkeypatch.setattr("bytepixels.core.exact_denoisers.MOST_SHARES", 12)  # two rows at a time
    torch.testing.assert_close(Empirical(pictures)(x, level), whole, rtol=1e-12, atol=1e-12)


def test_pure_noise_says_nothing():
    pictures = torch.rand(4, 1, 2, 2, dtype=torch.float64)
    x, level = torch.randn(3, 1, 2, 2, dtype=torch.float64), Level(0.0, 0.0, 1.0)
    torch.testing.assert_close(Empirical(pictures)(x, level), pictures.mean(0).expand_as(x))
    assert TWO_MODES.denoise(x, level) == pytest.approx(0.4 * -1 + 0.6 * 0.8)
