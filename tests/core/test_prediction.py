"""Predictions against the papers' formulas: Ho et al., Salimans & Ho, Karras et al."""

import math

import pytest
import torch

from bytepixels import InputError
from bytepixels.core.prediction import PREDICTIONS, coefficients, target

ANGLES = [0.01, 0.4, 0.8, 1.2, 1.55]
PLACES = [(math.cos(a), math.sin(a), 1.0) for a in ANGLES]  # variance-preserving
PLACES += [(1.0, sigma, 0.5) for sigma in (0.002, 0.3, 1.0, 80.0)]  # EDM
PLACES += [(1 - sigma, sigma, 0.7) for sigma in (0.05, 0.5, 0.95)]  # rectified flow


def draws():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64) for _ in range(2)]


def column(value, batch=2):
    return torch.full((batch, 1, 1, 1), value, dtype=torch.float64)


@pytest.mark.parametrize(("alpha", "sigma", "sigma_data"), PLACES)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_reading_x0_undoes_the_target(prediction, alpha, sigma, sigma_data):
    x0, eps = draws()
    _, c_skip, c_out = coefficients(prediction, alpha, sigma, sigma_data)
    output = target(prediction, x0, eps, column(alpha), column(sigma), sigma_data)
    torch.testing.assert_close(c_skip * (alpha * x0 + sigma * eps) + c_out * output, x0, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("alpha", "sigma"), [place[:2] for place in PLACES[: len(ANGLES)]])
def test_eps_x0_and_v_mean_what_they_are_called(alpha, sigma):
    x0, eps = draws()
    x_t = alpha * x0 + sigma * eps
    wanted = {"eps": eps, "x0": x0, "v": alpha * eps - sigma * x0}
    read = {"eps": (x_t - sigma * eps) / alpha, "x0": x0, "v": alpha * x_t - sigma * wanted["v"]}
    for prediction in PREDICTIONS:
        output = target(prediction, x0, eps, column(alpha), column(sigma))
        torch.testing.assert_close(output, wanted[prediction], rtol=1e-12, atol=1e-12)
        c_in, c_skip, c_out = coefficients(prediction, alpha, sigma)
        assert c_in == pytest.approx(1, abs=1e-12)
        torch.testing.assert_close(c_skip * x_t + c_out * output, read[prediction], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sigma", [0.002, 0.5, 2.0, 80.0])
def test_v_is_karras_preconditioning_with_f_negated(sigma):
    sigma_data = 0.5
    total = math.sqrt(sigma**2 + sigma_data**2)  # Karras et al. 2022, table 1
    karras = (1 / total, sigma_data**2 / total**2, sigma * sigma_data / total)
    c_in, c_skip, c_out = coefficients("v", 1.0, sigma, sigma_data)
    assert (c_in, c_skip, -c_out) == pytest.approx(karras, rel=1e-12)
    x0, eps = draws()
    f = (x0 - karras[1] * (x0 + sigma * eps)) / karras[2]  # their effective training target, eq. 8
    torch.testing.assert_close(target("v", x0, eps, column(1.0), column(sigma), sigma_data), -f, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("alpha", "sigma", "sigma_data"), PLACES)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_network_sees_unit_variance_and_v_asks_for_it(prediction, alpha, sigma, sigma_data):
    c_in = coefficients(prediction, alpha, sigma, sigma_data)[0]
    assert c_in**2 * (alpha**2 * sigma_data**2 + sigma**2) == pytest.approx(1)
    one, none = column(1.0, 1), column(0.0, 1)
    by_x0, by_eps = (
        target("v", *pair, column(alpha, 1), column(sigma, 1), sigma_data).item() for pair in ((one, none), (none, one))
    )
    assert by_x0**2 * sigma_data**2 + by_eps**2 == pytest.approx(1)


@pytest.mark.parametrize(("alpha", "sigma", "sigma_data"), PLACES)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_tensors_and_floats_agree(prediction, alpha, sigma, sigma_data):
    floats = coefficients(prediction, alpha, sigma, sigma_data)
    tensors = coefficients(prediction, column(alpha), column(sigma), sigma_data)
    for value, tensor in zip(floats, tensors, strict=True):
        torch.testing.assert_close(tensor, column(value), rtol=1e-12, atol=0)


@pytest.mark.parametrize("alpha", [0.0, 0])
def test_noise_prediction_has_nothing_to_say_at_pure_noise(alpha):
    with pytest.raises(InputError, match="zero terminal SNR"):
        coefficients("eps", alpha, 1.0)
    assert coefficients("v", alpha, 1.0) == (1, 0, -1)
    assert coefficients("x0", alpha, 1.0) == (1, 0, 1)


def test_a_typo_suggests_the_nearest():
    with pytest.raises(InputError, match="did you mean 'eps'"):
        coefficients("epss", 0.6, 0.8)
    with pytest.raises(InputError, match="did you mean 'x0'"):
        target("x_0", *draws(), column(0.6), column(0.8))
