"""The Gaussian's estimate and flow: against the formulas written out with a full covariance, and exact for its data."""

import math

import pytest
import torch

from bytepixels import CLEAN, SAMPLERS, EDMProcess, GaussianDiffusion, InputError, RectifiedFlow, trajectory
from bytepixels.core.gaussian_start import GaussianData, started

from .laws import log_snr_grid

PROCESSES = {"vp": GaussianDiffusion(), "edm": EDMProcess(), "flow": RectifiedFlow()}


def images(n=50, shape=(2, 3, 4), seed=0):
    """Correlated, around a mean that is not 0."""
    generator = torch.Generator().manual_seed(seed)
    pixels = math.prod(shape)
    mix = torch.randn(pixels, pixels, dtype=torch.float64, generator=generator) / pixels**0.5
    x = torch.randn(n, pixels, dtype=torch.float64, generator=generator) @ mix + torch.linspace(-0.5, 0.8, pixels)
    return x.view(n, *shape)


def moments(x0):
    flat = x0.flatten(1)
    return flat.mean(0), torch.cov(flat.T)


def test_the_moments_are_those_of_the_images():
    x0 = images()
    gaussian = GaussianData.of(x0)
    mean, covariance = moments(x0)
    torch.testing.assert_close(gaussian.mean.flatten(), mean)
    torch.testing.assert_close(gaussian.directions.T * gaussian.variances @ gaussian.directions, covariance)
    assert gaussian.rest == pytest.approx(0, abs=1e-12)
    assert (gaussian.variances.diff() <= 0).all()


@pytest.mark.parametrize("name", PROCESSES)
def test_the_estimate_is_bayes_formula(name):
    x0 = images()
    gaussian, (mean, covariance) = GaussianData.of(x0), moments(x0)
    x = torch.randn_like(x0[:3])
    for level in PROCESSES[name].levels(5)[:-1]:
        a, s = level.alpha, level.sigma
        gain = a * covariance @ torch.linalg.inv(a**2 * covariance + s**2 * torch.eye(len(mean)))
        expected = mean + (x.flatten(1) - a * mean) @ gain.T
        torch.testing.assert_close(gaussian.denoise(x, level).flatten(1), expected)


def test_at_pure_noise_the_estimate_is_the_mean():
    gaussian = GaussianData.of(images())
    first = RectifiedFlow().levels(3)[0]
    assert first.alpha == 0
    x = torch.randn(4, 2, 3, 4, dtype=torch.float64)
    torch.testing.assert_close(gaussian.denoise(x, first), gaussian.mean.expand_as(x))


@pytest.mark.parametrize("name", PROCESSES)
def test_the_flow_is_where_many_steps_with_its_estimate_lead(name):
    gaussian = GaussianData.of(images())
    levels = [*log_snr_grid(name, 200, -4.0, 4.0)]
    x = levels[0].sigma * torch.randn(2, 2, 3, 4, dtype=torch.float64)
    *_, last = trajectory(x, levels, gaussian.denoise, SAMPLERS["unipc_3"])
    torch.testing.assert_close(gaussian.flow(x, levels[0], levels[-1]), last, rtol=0, atol=1e-6)
    torch.testing.assert_close(gaussian.flow(x, levels[0], levels[0]), x)


def test_the_flow_gives_noise_the_moments_of_the_data():
    x0 = images(shape=(1, 2, 2))
    gaussian, (mean, covariance) = GaussianData.of(x0), moments(x0)
    first = RectifiedFlow().levels(1)[0]
    impulses = torch.cat([torch.zeros(1, 4), torch.eye(4)]).double().view(5, 1, 2, 2)
    ends = gaussian.flow(impulses, first, CLEAN).flatten(1)
    torch.testing.assert_close(ends[0], mean)
    turn = ends[1:] - ends[0]
    torch.testing.assert_close(turn.T @ turn, covariance)


def test_few_components_keep_the_largest_and_the_total_variance():
    """Three strong directions among 60, each told apart: subspace iteration finds them."""
    generator = torch.Generator().manual_seed(0)
    strong = torch.linalg.qr(torch.randn(60, 3, dtype=torch.float64, generator=generator)).Q.T
    weights = torch.randn(400, 3, dtype=torch.float64, generator=generator) * torch.tensor([5.0, 3.0, 2.0])
    flat = weights @ strong + 0.1 * torch.randn(400, 60, dtype=torch.float64, generator=generator)
    x0 = flat.view(400, 3, 4, 5)
    few, full = GaussianData.of(x0, components=8), GaussianData.of(x0)
    torch.testing.assert_close(few.variances[:3], full.variances[:3], rtol=1e-6, atol=0)
    assert few.directions.shape == (8, 60)
    torch.testing.assert_close(few.directions @ few.directions.T, torch.eye(8, dtype=torch.float64))
    total = float(few.variances.sum()) + few.rest * 52
    assert total == pytest.approx(float(full.variances.sum()), rel=1e-9)
    level = log_snr_grid("vp", 1, -2.0)[0]  # where no other direction is told from the rest
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(few.denoise(x, level), full.denoise(x, level), rtol=0, atol=3e-3)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 2, 5), (3, 4, 4)], ids=str)
def test_two_images_and_one_at_a_time(shape):
    gaussian = GaussianData.of(images(n=2, shape=shape).float())
    x = torch.randn(1, *shape)
    found = gaussian.denoise(x, log_snr_grid("vp", 1, -2.0)[0])
    assert found.shape == x.shape
    assert found.dtype == torch.float32
    assert found.isfinite().all()


def test_one_image_has_no_covariance():
    with pytest.raises(InputError, match="two images or more, got 1"):
        GaussianData.of(images(n=1))


def test_the_first_level_is_not_evaluated():
    gaussian, asked = GaussianData.of(images()), []
    levels = RectifiedFlow().levels(4)

    def denoise(x, level):
        asked.append(level)
        return gaussian.denoise(x, level)

    x = torch.randn(2, 2, 3, 4, dtype=torch.float64)
    with_it, without = (
        list(trajectory(x, levels, one, SAMPLERS["ddim"]))
        for one in (started(gaussian, denoise, levels[0]), gaussian.denoise)
    )
    assert asked == levels[1:-1]
    torch.testing.assert_close(with_it[-1], without[-1])
