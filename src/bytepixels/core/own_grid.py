"""A grid of a model's own: the levels at which N steps stray least from its finely solved probability-flow path.

Chen et al. 2024 (GITS): where the path is straight one long step does, where it bends many are needed, and all images
of a model bend at about the same levels. So a few seeds are solved finely, every step that leaves one of the fine
levels for another is tried on all of them, and dynamic programming takes the N steps that cost least together.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InputError, check_count
from .levels import Level

COEFFICIENT = 1.05  # by how much each step's error counts for more than that of the step before


def step_costs(
    path: Sequence[Tensor], estimates: Sequence[Tensor], levels: Sequence[Level], sigma_data: float
) -> Tensor:
    """How far one Euler (ddim) step from level i misses the path at level j: float64 [L, L], infinite for j <= i.

    path: x at each of the L levels, noisiest first, [B, C, H, W] each; estimates: of x0, at all of them but the last.
    The error's root mean square over pixels is in units of x's own standard deviation at level j, for data of standard
    deviation sigma_data, so that every process counts alike; the cost is the mean over images.
    """
    if not len(path) == len(estimates) + 1 == len(levels) >= 2:
        counts = f"{len(path)} states, {len(estimates)} estimates and {len(levels)} levels"
        raise InputError(
            f"a path needs two levels or more, a state at each and an estimate at all but the last: {counts}"
        )
    costs = torch.full((len(levels), len(levels)), math.inf, dtype=torch.float64)
    for i, (now, x, x0) in enumerate(zip(levels[:-1], path[:-1], estimates, strict=True)):
        for j in range(i + 1, len(levels)):
            nxt = levels[j]
            shrink = nxt.sigma / now.sigma
            # DDIM's step (Song et al. 2021, eq. 12), less where the path is
            missed = (shrink * x).add_(x0, alpha=nxt.alpha - shrink * now.alpha).sub_(path[j])
            spread = math.hypot(nxt.alpha * sigma_data, nxt.sigma)
            costs[i, j] = float(missed.square().mean(dim=(1, 2, 3)).sqrt().mean()) / spread
    return costs


def cheapest_levels(costs: Tensor, steps: int, coefficient: float = COEFFICIENT) -> list[int]:
    """The `steps` levels of which to leave, from level 0 to the last one of costs [L, L], for the least total cost.

    The total is c(i, j) + coefficient * (the total from j on). Costs are measured from the true path, and a sampler is
    off it by the errors that it has made; with a coefficient above 1 each step counts for more than the one before, so
    that the late ones, which start from the most errors, are the shorter. InputError for more steps than there are.
    """
    last = len(costs) - 1
    check_count("steps", steps, 1, last)
    rest, ways = costs[:, last], []  # the least total from each level on, and the level that it goes to next
    for _ in range(int(steps) - 1):
        rest, way = (costs + coefficient * rest).min(dim=1)
        ways.append(way)
    chosen = [0]
    for way in reversed(ways):
        chosen.append(int(way[chosen[-1]]))
    return chosen
