"""Measured denoisers: of Gaussian data the exact posterior, of any data consistent with what was measured."""

from collections import deque

import numpy as np
import pytest
import torch
from scipy.fft import idctn

from bytepixels import SAMPLERS, InputError, Level, clipped, trajectory
from bytepixels.core.inverse_problems import (
    GREY_LEVEL,
    conjugate_gradients,
    consistent,
    isotropic,
    measured,
    photographs,
)
from bytepixels.core.linear_operators import LinearOperator, blur, downscale, grayscale, masked, separable
from tests.core.laws import PATHS, levels_at

SHAPE = (3, 4, 6)
N = 3 * 4 * 6
SIZE = SHAPE[1:]
KEEP = (torch.arange(24).view(1, 4, 6) % 4 > 1).double()
OPERATORS = {
    "downscale": downscale(SIZE, 2),
    "blur": blur(SIZE, 1.0),
    "grayscale": grayscale(),
    "mask": masked(KEEP),
    "everything": masked(torch.ones(1, *SIZE)),
    "nothing": masked(torch.zeros(1, *SIZE)),
    "separable": separable(*(torch.randn(2, n, generator=torch.Generator().manual_seed(n)) for n in SIZE)),
}


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spectral_covariance():
    """The covariance that `photographs` stands for, [N, N], from scipy's cosine transform."""
    k, m = np.mgrid[: SIZE[0], : SIZE[1]]
    spectrum = 1 / (1 + k**2 + m**2)
    spectrum *= 0.25 / spectrum.mean()
    basis = np.stack([idctn(one.reshape(SIZE), norm="ortho").ravel() for one in np.eye(k.size)], 1)
    pixels = basis * spectrum.ravel() @ basis.T
    return torch.from_numpy(np.kron(0.125 * np.eye(3) + 0.875, pixels))


DATA = {  # covariance of the data, and of x0 given x_t as a wrapper is told
    "independent": (0.36 * torch.eye(N, dtype=torch.float64), isotropic(0.6)),
    "photographs": (spectral_covariance(), photographs),
}


class Gaussian:
    """x0 ~ N(mean, covariance), [N] and [N, N], with dense matrices."""

    def __init__(self, mean, covariance):
        self.mean, self.covariance = mean, covariance

    def denoise(self, x, level):
        """E[x0 | x_t]."""
        noisy = level.alpha**2 * self.covariance + level.sigma**2 * torch.eye(N, dtype=torch.float64)
        away = x.flatten(1) - level.alpha * self.mean
        return (self.mean + level.alpha * away @ torch.linalg.solve(noisy, self.covariance)).view_as(x)

    def given(self, matrix, y, std):
        """The law of x0 once y = matrix x0 + noise was measured."""
        gain = torch.linalg.solve(
            matrix @ self.covariance @ matrix.T + std**2 * torch.eye(len(matrix)).double(), matrix @ self.covariance
        ).T
        return Gaussian(self.mean + gain @ (y - matrix @ self.mean), self.covariance - gain @ matrix @ self.covariance)


def dense(operator):
    return operator.apply(torch.eye(N, dtype=torch.float64).view(N, *SHAPE)).flatten(1).T


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("name", OPERATORS)
def test_of_gaussian_data_it_is_the_exact_denoiser_of_the_posterior(path, data, name):
    """E[x0 | x_t, y], at every level and for every x: the whole law, not its mean alone."""
    covariance, told = DATA[data]
    prior, operator, std = Gaussian(0.3 * normal(N), covariance), OPERATORS[name], 0.1
    x, y = normal(4, *SHAPE, seed=1), operator.apply(normal(1, *SHAPE, seed=2))
    posterior = prior.given(dense(operator), y.flatten(), std)
    denoise = measured(prior.denoise, operator, y, std, told, iterations=500)
    for level in levels_at(path, np.array([-6.0, -1.0, 0.5, 4.0])):
        torch.testing.assert_close(denoise(x, level), posterior.denoise(x, level), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("path", PATHS)
def test_at_pure_noise_too(path):
    prior = Gaussian(normal(N), DATA["photographs"][0])
    operator, x = OPERATORS["downscale"], normal(2, *SHAPE)
    y = operator.apply(normal(1, *SHAPE, seed=2))
    level = Level(1.0, 0.0, 1.0)
    own = measured(prior.denoise, operator, y, 0.05, photographs, 500)(x, level)
    known = prior.given(dense(operator), y.flatten(), 0.05).mean.view(1, *SHAPE).expand_as(x)
    torch.testing.assert_close(own, known, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("path", PATHS)
def test_samples_have_the_posteriors_mean_and_variance(path):
    """One pixel, half of it noise: the ODE's map from x_T is linear, so two starts say all; the error is the step's."""
    mean, variance, std, y = 0.3, 0.25, 0.5, torch.tensor([[[[0.9]]]], dtype=torch.float64)
    gain = variance / (variance + std**2)
    expected, spread = mean + gain * (0.9 - mean), variance * (1 - gain)
    levels = levels_at(path, np.linspace(-8, 8, 401))

    def denoise(x, level):
        return mean + level.alpha * variance / (level.alpha**2 * variance + level.sigma**2) * (x - level.alpha * mean)

    own = measured(denoise, masked(torch.ones(1, 1, 1)), y, std, isotropic(variance**0.5))
    starts = torch.tensor([0.0, 1.0], dtype=torch.float64).view(2, 1, 1, 1) * levels[0].sigma
    ends = deque(trajectory(starts, levels, own, SAMPLERS["unipc_3"]), maxlen=1)[0].flatten().tolist()
    first, last = levels[0], levels[-1]
    scale = ((last.alpha**2 * spread + last.sigma**2) / (first.alpha**2 * spread + first.sigma**2)) ** 0.5
    known = [last.alpha * expected + scale * (x - first.alpha * expected) for x in starts.flatten().tolist()]
    assert ends == pytest.approx(known, abs=2e-5)
    assert abs(ends[0] - expected) < 2e-3  # at this noise a thousandth of the image is left in x_T
    assert (ends[1] - ends[0]) ** 2 == pytest.approx(spread, rel=1e-3)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", OPERATORS)
def test_without_noise_the_estimate_is_what_was_measured(batch, name):
    operator = OPERATORS[name]
    y = operator.apply(normal(batch, *SHAPE, seed=2))
    x0 = measured(lambda x, level: 0.1 * x, operator, y, 0.0, iterations=300)(
        normal(batch, *SHAPE), Level(0.5, 0.6, 0.8)
    )
    torch.testing.assert_close(operator.apply(x0), y, rtol=1e-6, atol=1e-6)


def test_measured_is_as_inpainted_where_pixels_are_known():
    """DDNM: independent pixels, no noise."""
    known, x = normal(1, *SHAPE, seed=2), normal(2, *SHAPE)
    x0 = measured(lambda x, level: 0.1 * x, masked(KEEP), KEEP * known, 0.0, isotropic(1.0))(x, Level(0.5, 0.6, 0.8))
    torch.testing.assert_close(x0, torch.lerp(0.1 * x, known, KEEP), rtol=1e-12, atol=1e-12)


def test_each_image_of_a_batch_has_its_own_measurement():
    operator, x, level = OPERATORS["blur"], normal(3, *SHAPE), Level(0.5, 0.6, 0.8)
    y = operator.apply(normal(3, *SHAPE, seed=2)) * torch.tensor([1e-6, 1, 100]).view(3, 1, 1, 1)
    together = measured(lambda x, level: 0.1 * x, operator, y)(x, level)
    for k in range(3):
        alone = measured(lambda x, level: 0.1 * x, operator, y[k : k + 1])(x[k : k + 1], level)
        torch.testing.assert_close(together[k : k + 1], alone, rtol=1e-9, atol=1e-12)


def test_float32_of_one_channel_and_another_shape():
    operator, x = downscale((2, 10), 2), normal(1, 1, 2, 10).float()
    x0 = measured(clipped(lambda x, level: x), operator, torch.zeros(1, 1, 1, 5), 0.0)(x, Level(0.5, 0.6, 0.8))
    assert x0.dtype == torch.float32
    assert operator.apply(x0).abs().max() < 1e-5


@pytest.mark.parametrize("name", OPERATORS)
def test_consistent_is_within_a_grey_level_and_within_range(name):
    """Of images that are black, white or between, measured and then lost."""
    operator = OPERATORS[name]
    truth = (2 * normal(5, *SHAPE)).clamp(-1, 1)
    y = operator.apply(truth)
    x0 = consistent(3 * normal(5, *SHAPE, seed=1).float(), operator, y)
    assert x0.abs().max() <= 1
    assert (operator.apply(x0.double()) - y).abs().max() < GREY_LEVEL * (0.6 if name == "blur" else 0.5)


def test_consistent_leaves_alone_what_is_consistent():
    truth = normal(2, *SHAPE).clamp(-1, 1)
    assert (consistent(truth, OPERATORS["blur"], OPERATORS["blur"].apply(truth)) == truth).all()


def test_consistent_leaves_alone_what_rounding_may_have_done():
    """y is known to half a grey level: a blur's is not sharpened into noise to come nearer."""
    truth, operator = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(0)), OPERATORS["blur"]
    y = (operator.apply(truth) / GREY_LEVEL).round() * GREY_LEVEL
    assert (consistent(truth, operator, y) - truth).abs().max() < GREY_LEVEL
    y += 3 * GREY_LEVEL
    assert (operator.apply(consistent(truth, operator, y)) - y).abs().max() < 0.5 * GREY_LEVEL


def test_consistent_ends_where_no_image_fulfils_both():
    x0 = consistent(normal(1, *SHAPE), downscale(SIZE, 2), torch.full((1, 3, 2, 3), 1.5, dtype=torch.float64))
    torch.testing.assert_close(x0, torch.ones_like(x0), rtol=0, atol=1e-3)


def test_conjugate_gradients_solve_what_torch_solves():
    root = normal(20, 20)
    matrix, b = root @ root.T + 0.1 * torch.eye(20), normal(3, 20)
    b[1] = 0
    z = conjugate_gradients(lambda z: z @ matrix, b, 200)
    torch.testing.assert_close(z, torch.linalg.solve(matrix, b.T).T, rtol=1e-7, atol=1e-7)
    assert (z[1] == 0).all()


@pytest.mark.parametrize(
    ("y", "settings", "sentence"),
    [
        (torch.zeros(1, 3, 4, 6), {}, r"must return what was measured, \[1, 3, 4, 6\], got \[2, 3, 2, 3\]"),
        (torch.zeros(3, 3, 2, 3), {}, r"must return what was measured, \[3, 3, 2, 3\], got \[2, 3, 2, 3\]"),
        (torch.zeros(1, 3, 2, 3), {"noise_std": -1.0}, "noise_std must be at least 0, got -1.0"),
        (torch.zeros(1, 3, 2, 3), {"iterations": 0}, "iterations must be at least 1, got 0"),
    ],
)
def test_what_is_refused(y, settings, sentence):
    with pytest.raises(InputError, match=sentence):
        measured(lambda x, level: x, OPERATORS["downscale"], y, **settings)(normal(2, *SHAPE), Level(0.5, 0.6, 0.8))


def test_what_the_operator_cannot_see_is_left_as_it_was():
    """y says something where A is 0: there is no such image, and nothing becomes NaN."""
    blind = LinearOperator(lambda x: 0 * x, lambda y: 0 * y)
    x = normal(1, *SHAPE)
    assert (measured(lambda x, level: x, blind, torch.ones(1, *SHAPE), 0.0)(x, Level(0.5, 0.6, 0.8)) == x).all()
