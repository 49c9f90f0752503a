"""Every sampler on real images, through the exact denoiser of their set: scikit-learn's 1,797 handwritten digits.

Between sigma = alpha and the images the flow forks, towards one training image or its neighbour, and near a fork
no order can be measured. So orders are taken as far as sigma = alpha; the whole way is held to where it ends.
"""

import math

import torch
from torch import Tensor

from ..codec.codec import PixelCodec
from ..core.denoiser import Denoise
from ..core.exact_denoisers import Empirical
from ..core.gaussian_diffusion import GaussianDiffusion
from ..core.levels import Process
from ..core.losses import pure_noise
from ..core.samplers import SAMPLERS
from ..data import pack
from ..randomness import SeededNoise
from .common import NOISIEST, Check, largest, log_snr_grid, no_noise, run
from .orders import ORDERS, TOLERANCE, deterministic

SEEDS = range(8)
END = 0.0  # half_log_snr where sigma = alpha
COARSE, FINE, REFERENCE = 128, 256, 512  # steps
ROUNDING_STEPS, ROUNDING = 32, 3e-5  # ten times what was measured
ENDING_STEPS, ENDING = 32, 1e-5  # root mean square over the pixels; another image of the set is 0.08 away or more


def picture_checks() -> list[Check]:
    """Per sampler: its order, float32 against float64, and whether it ends on one of the images."""
    digits = PixelCodec().to_model(torch.from_numpy(pack("digits").images.copy()))  # [1797, 1, 8, 8]
    process, double, single = GaussianDiffusion(), Empirical(digits.double()), Empirical(digits)
    like = torch.empty(len(SEEDS), *digits.shape[1:], dtype=torch.float64)
    x = pure_noise(like, process.level(NOISIEST), SeededNoise(SEEDS))
    exact = runge_kutta(x, process, double)
    return [
        *(_order(name, x, exact, process, double) for name in deterministic()),
        *(_rounding(name, x, process, double, single) for name in deterministic()),
        *(_ending(name, digits, process, single) for name in SAMPLERS),
    ]


def runge_kutta(x: Tensor, process: Process, denoise: Denoise) -> Tensor:
    """The probability flow from NOISIEST to END by the classical method of order 4, which is none of SAMPLERS.

    In lambda = log(alpha / sigma) the ODE of y = x / alpha is dy / dlambda = x0 - y.
    """

    def slope(y: Tensor, at: float) -> Tensor:
        level = process.level(at)
        return denoise(level.alpha * y, level) - y

    y, h = x / process.level(NOISIEST).alpha, (END - NOISIEST) / REFERENCE
    for i in range(REFERENCE):
        at = NOISIEST + i * h
        k1 = slope(y, at)
        k2 = slope(y + h / 2 * k1, at + h / 2)
        k3 = slope(y + h / 2 * k2, at + h / 2)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + slope(y + h * k3, at + h))
    return process.level(END).alpha * y


def _order(name: str, x: Tensor, exact: Tensor, process: Process, denoise: Denoise) -> Check:
    coarse, fine = (
        float((run(x, log_snr_grid(process, steps, end=END), denoise, SAMPLERS[name]) - exact).abs().mean())
        for steps in (COARSE, FINE)
    )
    order = math.log2(coarse / fine) if coarse > 0 and fine > 0 else math.nan
    note = f"{coarse:.1e} at {COARSE} steps, {fine:.1e} at {FINE}"
    return Check(f"{name}: order", order, ORDERS.get(name, math.nan), TOLERANCE, note)


def _rounding(name: str, x: Tensor, process: Process, double: Denoise, single: Denoise) -> Check:
    levels = log_snr_grid(process, ROUNDING_STEPS, end=END)
    one, other = run(x, levels, double, SAMPLERS[name]), run(x.float(), levels, single, SAMPLERS[name])
    return Check(f"{name}: float32 against float64", largest(other - one), 0, ROUNDING)


def _ending(name: str, digits: Tensor, process: Process, denoise: Denoise) -> Check:
    """How far from the nearest image of the set each seed ends, the worst of them, in float32."""
    noise, levels = SeededNoise(SEEDS), process.levels(ENDING_STEPS, "log_snr")
    x = pure_noise(torch.empty(len(SEEDS), *digits.shape[1:]), levels[0], noise)
    end = run(x, levels, denoise, SAMPLERS[name], no_noise if name in deterministic() else noise)
    away = (end.double()[:, None] - digits.double()).square().mean((2, 3, 4)).sqrt()  # [seeds, pictures]
    return Check(f"{name}: ends on an image of the set", float(away.amin(1).max()), 0, ENDING)
