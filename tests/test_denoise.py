"""Denoisers: the same x0 whatever the network predicts, and wrappers that do what they say."""

import numpy as np
import pytest
import torch

from bytepixels import Denoiser, GaussianDiffusion, Level, clipped, guided
from bytepixels.prediction import PREDICTIONS

from .laws import TWO_MODES, linear_alpha_bar

X = torch.randn(3, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
LEVEL = Level(t=400.0, alpha=0.6, sigma=0.8)


def constant(value):
    return lambda x, level: torch.full_like(x, value)


@pytest.mark.parametrize("t", [0, 100, 400, 700])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_every_prediction_reads_the_same_x0(prediction, t):
    (level, _) = GaussianDiffusion(1000).levels(times=[t])
    x0 = Denoiser(TWO_MODES.network(linear_alpha_bar(1000), prediction), prediction)(X, level)
    expected = TWO_MODES.expected_x0(X.numpy(), level.alpha, level.sigma)
    np.testing.assert_allclose(x0, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("level", [LEVEL, Level(400, 0.6, 0.8)], ids=["float", "int"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_network_sees_scaled_x_and_t_as_floats(dtype, level):
    seen = {}

    def network(x, t):
        seen.update(x=x, t=t)
        return torch.zeros_like(x, dtype=torch.float32)

    out = Denoiser(network, "v", sigma_data=0.5)(X.to(dtype), level)
    assert out.dtype == seen["x"].dtype == dtype
    torch.testing.assert_close(seen["x"], X.to(dtype) / (0.36 * 0.25 + 0.64) ** 0.5)
    assert seen["t"].dtype == torch.float32
    assert seen["t"].tolist() == [400.0] * 3
    torch.testing.assert_close(out, X.to(dtype) * (0.6 * 0.25 / (0.36 * 0.25 + 0.64)))


def test_the_label_is_passed():
    label = torch.tensor([2, 0, 1])
    denoise = Denoiser(lambda x, t, label: label.view(-1, 1, 1, 1) + 0 * x, "x0", label=label)
    torch.testing.assert_close(denoise(X, LEVEL), label.view(-1, 1, 1, 1).double().expand_as(X))


def test_clipped():
    sixteen = torch.linspace(-2, 2, 16, dtype=torch.float64).view(1, 1, 4, 4).expand_as(X)
    torch.testing.assert_close(clipped(lambda x, level: sixteen)(X, LEVEL), sixteen.clamp(-1, 1))
    torch.testing.assert_close(clipped(lambda x, level: sixteen, 0, 0.5)(X, LEVEL), sixteen.clamp(0, 0.5))
    torch.testing.assert_close(clipped(lambda x, level: x * level.sigma)(X, LEVEL), (0.8 * X).clamp(-1, 1))


@pytest.mark.parametrize(("scale", "value"), [(0, 0.25), (1, 0.75), (3, 1.75), (0.5, 0.5), (-1, -0.25)])
def test_guided(scale, value):
    both = guided(constant(0.75), unconditional=constant(0.25), scale=scale)
    torch.testing.assert_close(both(X, LEVEL), torch.full_like(X, value))


def test_guidance_in_x0_is_guidance_in_eps():
    """Ho & Salimans 2022, eq. 6: eps = (1 + w) eps(x, c) - w eps(x), with scale = 1 + w."""
    with_label, without = (lambda x, t: x.sin() * t.view(-1, 1, 1, 1) / 400), (lambda x, t: x.cos())
    in_x0 = guided(Denoiser(with_label), Denoiser(without), scale=2.5)(X, LEVEL)
    in_eps = Denoiser(lambda x, t: 2.5 * with_label(x, t) - 1.5 * without(x, t))(X, LEVEL)
    torch.testing.assert_close(in_x0, in_eps)
