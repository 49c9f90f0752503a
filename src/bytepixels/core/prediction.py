"""Network predictions (eps, x0, v) as estimates of x0: x0 = c_skip * x_t + c_out * net(c_in * x_t, t).

"eps": the noise (Ho et al. 2020). "x0": the image. "v": alpha * eps - sigma * x0 (Salimans & Ho 2022, appendix D)
where the process preserves variance and sigma_data = 1; where alpha = 1 it is Karras et al. 2022's F, negated.
"""

from torch import Tensor

from ..choices import PREDICTIONS
from ..errors import InputError, check_choice
from .posterior import Number


def coefficients(
    prediction: str, alpha: Number, sigma: Number, sigma_data: float = 1.0
) -> tuple[Number, Number, Number]:
    """(c_in, c_skip, c_out) at x_t = alpha * x0 + sigma * eps, with Var(x0) = sigma_data^2; numbers or tensors alike.

    Raises InputError for "eps" at alpha = 0, where the noise is all there is and says nothing about x0.
    """
    variance = alpha**2 * sigma_data**2 + sigma**2  # of x_t
    c_in = variance**-0.5
    match check_choice("prediction", prediction, PREDICTIONS):
        case "eps":
            if not isinstance(alpha, Tensor) and alpha == 0:
                raise InputError("noise prediction (eps) cannot start at zero terminal SNR; train with v or x0")
            return c_in, 1 / alpha, -sigma / alpha
        case "x0":
            return c_in, 0 * alpha, 0 * alpha + 1
        case _:
            return c_in, alpha * sigma_data**2 / variance, -sigma * sigma_data * c_in


def target(prediction: str, x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor, sigma_data: float = 1.0) -> Tensor:
    """The training target of the network, like x0 [B, C, H, W]: the inverse of the map above."""
    match check_choice("prediction", prediction, PREDICTIONS):
        case "eps":
            return eps
        case "x0":
            return x0
        case _:
            c_in = (alpha**2 * sigma_data**2 + sigma**2) ** -0.5
            return c_in * (alpha * sigma_data * eps - sigma / sigma_data * x0)
