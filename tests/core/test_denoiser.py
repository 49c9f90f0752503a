"""Denoisers: the same x0 whatever the network predicts, and wrappers that do what they say."""

import numpy as np
import pytest
import torch

from bytepixels import Denoiser, GaussianDiffusion, InputError, Level, clipped
from bytepixels.core.denoiser import learned_variance
from bytepixels.core.prediction import PREDICTIONS
from tests.core.laws import TWO_MODES, linear_alpha_bar

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


def test_a_learned_variance_is_split_off():
    """Twice the channels: the prediction as if it were alone, and a fraction held within -1..1."""

    def network(x, t):
        return torch.cat([x.sin(), 2 * x], dim=1)

    denoiser = Denoiser(network)
    x0, fraction = denoiser.estimate(X, LEVEL)
    assert torch.equal(x0, Denoiser(lambda x, t: x.sin())(X, LEVEL))
    assert torch.equal(x0, denoiser(X, LEVEL))
    assert torch.equal(fraction, (2 * X).clamp(-1, 1))
    assert Denoiser(lambda x, t: x).estimate(X, LEVEL)[1] is None


@pytest.mark.parametrize("shape", [(3, 1, 4, 1), (1, 1, 4, 4), (3, 2, 1, 1), (3, 3, 4, 4), (3, 1)])
def test_an_output_that_would_spread_over_the_image_is_refused(shape):
    """x is [3, 1, 4, 4]; the third is twice the channels, of another size."""
    with pytest.raises(
        InputError, match=r"the network must return \[3, 1, 4, 4\] or twice the channels, got \[[13], [13]"
    ):
        Denoiser(lambda x, t: x.new_zeros(shape))(X, LEVEL)


def test_one_channel_for_three_is_refused():
    with pytest.raises(InputError, match=r"must return \[2, 3, 4, 4\] or twice the channels, got \[2, 1, 4, 4\]"):
        Denoiser(lambda x, t: x[:, :1])(torch.zeros(2, 3, 4, 4), LEVEL)


def test_the_variance_comes_from_the_same_evaluation():
    calls = []

    def network(x, t):
        calls.append(t[0].item())
        return torch.cat([x.sin(), x.cos()], dim=1)

    denoise, fraction = learned_variance(Denoiser(network))
    assert torch.equal(denoise(X, LEVEL), Denoiser(lambda x, t: x.sin())(X, LEVEL))
    assert torch.equal(fraction(X, LEVEL), X.cos())
    assert calls == [400]
    assert torch.equal(fraction(2 * X, LEVEL), (2 * X).cos())  # other x, or another level: another evaluation
    fraction(X, LEVEL)
    assert denoise(X, LEVEL._replace(t=7.0)).shape == fraction(X, LEVEL._replace(t=7.0)).shape
    assert calls == [400, 400, 400, 7]


def test_a_network_that_learned_no_variance_says_so():
    denoise, fraction = learned_variance(Denoiser(lambda x, t: x))
    for one in (denoise, fraction):
        with pytest.raises(InputError, match="variance learned needs a network that returns twice the channels"):
            one(X, LEVEL)
