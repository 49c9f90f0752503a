"""Every sampler on real images, through the exact denoiser of their set: scikit-learn's 1,797 handwritten digits.

Between sigma = alpha and the images the flow forks, towards one training image or its neighbour, and near a fork
no order can be measured. So orders are taken as far as sigma = alpha; the whole way is held to where it ends.
"""

import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from bytepixels import SAMPLERS, GaussianDiffusion, SeededNoise
from bytepixels.core.losses import pure_noise
from bytepixels.data import pack
from bytepixels.metrics.optimal_denoiser import EmpiricalImages, OptimalDenoiser, WienerDenoiser
from bytepixels.registries import sampler_facts
from tests.core.laws import GAUSSIAN
from tests.core.test_samplers import DETERMINISTIC, ORDERS, refuse, run

PROCESS = GaussianDiffusion()
NOISIEST, END = -4.0, 0.0  # log(alpha / sigma): where the flow begins, and where sigma = alpha
SEEDS = range(8)


class Digits(NamedTuple):
    x0: Tensor  # float32 [1797, 1, 8, 8]
    single: OptimalDenoiser  # in float32
    double: OptimalDenoiser
    x: Tensor  # float64 [8, 1, 8, 8] at the noisiest level
    exact: Tensor  # where the flow leads from there


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    known = EmpiricalImages(pack("digits", cache=tmp_path_factory.mktemp("digits")).images, None, False)
    centre = WienerDenoiser(known, torch.device("cpu")).mean
    single, double = OptimalDenoiser(known, centre), OptimalDenoiser(known, centre.double())
    x = pure_noise(torch.empty(8, 1, 8, 8, dtype=torch.float64), PROCESS.level(NOISIEST), SeededNoise(SEEDS))
    return Digits(torch.cat([*known.blocks(torch.device("cpu"))]), single, double, x, runge_kutta(x, double))


def runge_kutta(x, denoise, steps=512):
    """The probability flow from NOISIEST to END by the classical method of order 4, which is none of SAMPLERS.

    In lambda = log(alpha / sigma) the ODE of y = x / alpha is dy / dlambda = x0 - y.
    """

    def slope(y, at):
        level = PROCESS.level(at)
        return denoise(level.alpha * y, level) - y

    y, h = x / PROCESS.level(NOISIEST).alpha, (END - NOISIEST) / steps
    for i in range(steps):
        at = NOISIEST + i * h
        k1 = slope(y, at)
        k2 = slope(y + h / 2 * k1, at + h / 2)
        k3 = slope(y + h / 2 * k2, at + h / 2)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + slope(y + h * k3, at + h))
    return PROCESS.level(END).alpha * y


def grid(steps):
    """Even in log(alpha / sigma) from NOISIEST to END."""
    return [PROCESS.level(at) for at in torch.linspace(NOISIEST, END, steps + 1, dtype=torch.float64).tolist()]


def test_the_reference_is_the_exact_flow():
    """On Gaussian pixels, for which it is known: x_s = a_s m + sqrt(V_s / V_t) (x_t - a_t m)."""
    x = torch.linspace(-3, 3, 9, dtype=torch.float64).view(1, 1, 3, 3)
    (m,), (S,) = GAUSSIAN.means, GAUSSIAN.variances
    first, last = PROCESS.level(NOISIEST), PROCESS.level(END)
    scale = math.sqrt((last.alpha**2 * S + last.sigma**2) / (first.alpha**2 * S + first.sigma**2))
    expected = last.alpha * m + scale * (x - first.alpha * m)
    torch.testing.assert_close(runge_kutta(x, GAUSSIAN.denoise), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_orders_are_those_of_the_papers(digits, name):
    errors = [(run(digits.x, grid(n), digits.double, SAMPLERS[name]) - digits.exact).abs().mean() for n in (128, 256)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(ORDERS[name], abs=0.15)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_float32_is_float64_but_for_rounding(digits, name):
    one = run(digits.x, grid(32), digits.double, SAMPLERS[name])
    other = run(digits.x.float(), grid(32), digits.single, SAMPLERS[name])
    torch.testing.assert_close(other.double(), one, rtol=0, atol=3e-5)  # ten times what was measured


@pytest.mark.parametrize("name", [name for name in SAMPLERS if not sampler_facts(name).sigma_data])
def test_every_sampler_ends_on_an_image_of_the_set(digits, name):
    """In float32. Any two images of the set are 0.08 or more apart, as root mean square over the pixels."""
    noise, levels = SeededNoise(SEEDS), PROCESS.levels(32, "log_snr")
    x = pure_noise(torch.empty(8, 1, 8, 8), levels[0], noise)
    end = run(x, levels, digits.single, SAMPLERS[name], noise if sampler_facts(name).stochastic else refuse)
    away = (end.double()[:, None] - digits.x0.double()).square().mean((2, 3, 4)).sqrt()  # [seeds, images]
    assert away.amin(1).max() < 1e-5
