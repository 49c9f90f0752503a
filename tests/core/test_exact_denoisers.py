"""The package's exact laws against tests/core/laws.py, which is made of scipy, and against definitions."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from bytepixels import CLEAN, Level
from bytepixels.core.exact_denoisers import GAUSSIAN, TWO_MODES
from bytepixels.metrics.optimal_denoiser import EmpiricalImages, OptimalDenoiser
from tests.core import laws

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


def optimal(images, dtype=torch.float64):
    """(x0, the optimal denoiser) of images uint8 [N, C, H, W]."""
    x0 = torch.from_numpy(images).to(dtype) / 127.5 - 1
    return x0, OptimalDenoiser(EmpiricalImages(images, None, False), x0.mean(0, keepdim=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_denoiser_answers_in_kind(dtype):
    x = torch.zeros(2, 1, 4, 4, dtype=dtype)
    for denoise in (TWO_MODES.denoise, optimal(np.full((3, 1, 4, 4), 200, np.uint8), dtype)[1]):
        answer = denoise(x, LEVELS[1])
        assert (answer.dtype, answer.shape) == (dtype, x.shape)


def posterior_mean(x, images, level):
    """The definition, one weight at a time."""
    rows = []
    for one in x:
        weight = [math.exp(-((one - level.alpha * p) ** 2).sum().item() / (2 * level.sigma**2)) for p in images]
        rows.append(sum(w * p for w, p in zip(weight, images, strict=True)) / sum(weight))
    return torch.stack(rows)


@pytest.mark.parametrize("level", LEVELS)
def test_the_optimal_denoiser_of_images_is_the_posterior_mean(level):
    images, denoise = optimal(np.random.default_rng(0).integers(100, 150, (5, 2, 3, 2), np.uint8))
    x = level.alpha * images[:4] + level.sigma * images[1:].flip(0)
    torch.testing.assert_close(denoise(x, level), posterior_mean(x, images, level), rtol=1e-6, atol=1e-6)


def test_one_number_per_image_is_a_mixture_of_points():
    """Two laws that know nothing of each other."""
    points = laws.Mixture((0.5, 0.5), (-1.0, 1.0), (0.0, 0.0))
    _, denoise = optimal(np.array([0, 255], np.uint8).reshape(2, 1, 1, 1))
    x = X.view(-1, 1, 1, 1)
    for level in LEVELS:
        torch.testing.assert_close(denoise(x, level), points.denoise(x, level), rtol=1e-9, atol=1e-12)


def test_pure_noise_says_nothing():
    images, denoise = optimal(np.random.default_rng(0).integers(0, 256, (4, 1, 2, 2), np.uint8))
    x, level = torch.randn(3, 1, 2, 2, dtype=torch.float64), Level(0.0, 0.0, 1.0)
    torch.testing.assert_close(denoise(x, level), images.mean(0).expand_as(x), rtol=0, atol=1e-7)
    assert TWO_MODES.denoise(x, level) == pytest.approx(0.4 * -1 + 0.6 * 0.8)
