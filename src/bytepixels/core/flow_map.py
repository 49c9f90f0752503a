"""Flow maps: denoisers with a destination, for few steps. The training of one is in `flow_map_loss.py`.

D(x_t, t -> s) is the estimate of x0 with which ONE ddim step from t to s lands on the exact solution of the
probability-flow ODE; D(x_t, t -> t) is the ordinary denoiser. With rho = alpha / sigma a ddim step is

    x_s / sigma_s = x_t / sigma_t + (rho_s - rho_t) D(x_t, t -> s)

and two of them, by way of a level l between, land where one does. So in every process, for x_l on the same path,

    D(x_t, t -> s) = w D(x_t, t -> l) + (1 - w) D(x_l, l -> s),    w = (rho_l - rho_t) / (rho_s - rho_t)

Levels are told by their angles (`Level.angle`), where nothing is infinite: rho is cot(angle) / sigma_data.
"""

import math

import torch
from torch import Tensor

from ..errors import check_range
from .denoiser import Denoise, linear_combination
from .levels import Level
from .multistep import Noise

STAY = 0.25  # share of a batch with s = t, as MeanFlow on CIFAR-10 (Geng et al. 2025)
TO_CLEAN = 0.25  # share with s = clean, where every last step goes, and a single one
PLAIN = 0.5  # share of a run from nothing that is ordinary training, which has to come first (Kim et al. 2025)


def weights_of_parts(start: Tensor, middle: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """w and 1 - w above, from the angles of t, l, s, which descend; neither is a difference of large numbers.

    At s = clean w is 0: what is left is D(x_l, l -> s), as in consistency training (Song et al. 2023).
    """
    whole = torch.sin(start - end) * torch.sin(middle)
    first, second = torch.sin(start - middle) * torch.sin(end), torch.sin(middle - end) * torch.sin(start)
    return first / whole, second / whole


def draw_leaps(batch: int, generator: torch.Generator | None = None) -> Tensor:
    """How far to go, as shares of the way (in angle) from t to the clean end: [batch] in 0..1, float32.

    0 (s = t) for a share of STAY, so that the ordinary denoiser stays trained; 1 for a share of TO_CLEAN; uniform for
    the rest, so that steps of every length are trained, whatever the grid and their number will be.
    """
    kind, leap = torch.rand(2, batch, generator=generator, device=None if generator is None else generator.device)
    return torch.where(kind < STAY, 0.0, torch.where(kind < STAY + TO_CLEAN, 1.0, leap))


def ratio_at(progress: float, plain: float = PLAIN, floor: float = 1 / 16) -> float:
    """r when a share `progress` of a run is done: 1 for a share `plain`, then falling exponentially to `floor`.

    Luo et al. 2026 (SoFlow) fall exponentially from the start, with far more images. A small r divides the difference
    of two outputs by itself: in bf16 these are within 1/256 of what they should be, so 1/16 is low enough there.
    """
    check_range("progress", progress, 0, 1)
    check_range("plain", plain, 0, 1)
    if not 0 < floor <= 1:
        check_range("floor", floor, 2**-20, 1)
    return 1.0 if progress <= plain else floor ** ((progress - plain) / (1 - plain))


def flow_map_step(
    x: Tensor, now: Level, nxt: Level, denoise: Denoise, noise: Noise, memory: None = None, renoise: float = 0.0
) -> tuple[Tensor, None]:
    """ddim_step with D(x, now -> nxt): one evaluation of a denoiser that takes a destination.

    renoise, 0..1: the share of the noise at `nxt` that is drawn afresh, of its standard deviation. The jump then leads
    to a level that much cleaner. 0 draws nothing; 1 jumps to the clean end and comes back, as consistency models do
    (Song et al. 2023, Algorithm 1); between them lies the gamma of Kim et al. 2024 (CTM).
    """
    check_range("renoise", renoise, 0, 1)
    std = renoise * nxt.sigma
    via = nxt._replace(sigma=math.sqrt(max(nxt.sigma**2 - std**2, 0.0)))  # alpha as at nxt: only their ratio matters
    x0 = denoise(x, now, via)
    ratio = via.sigma / now.sigma  # nxt.alpha * x0 + via.sigma * eps, with eps = (x - now.alpha * x0) / now.sigma
    x = linear_combination((ratio, x), (nxt.alpha - ratio * now.alpha, x0))
    return (x.add_(noise(x), alpha=std) if std > 0 else x), None
