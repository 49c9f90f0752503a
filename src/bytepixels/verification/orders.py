"""The order of every deterministic sampler: how fast its error falls as the steps become more."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from ..core.exact_denoisers import TWO_MODES
from ..core.levels import Level
from ..core.samplers import SAMPLERS, STOCHASTIC
from .common import Check, even_grid, log_snr_grid, paths, run

ORDERS = {  # on grids even in log(alpha / sigma)
    "ddim": 1,
    "euler": 1,
    "heun": 2,
    "dpmpp_2s": 2,
    "dpmpp_2m": 2,
    "dpmpp_3m": 3,
    "unipc_2": 3,  # of order 2, and its corrector adds one
    "unipc_3": 4,
    "ipndm": 2,  # whose weights are for equal steps in sigma / alpha
    "deis": 3,
}
EVEN_ORDERS = {"ipndm": 4}  # on grids even in sigma / alpha
# half_log_snr at the ends of those grids. The first-order start costs iPNDM an error of order 2, which wins as steps
# grow or the range shrinks; in this range the error of its four terms is what one sees.
EVEN_ENDS = -2.5, 1.25
STEPS = (8, 16, 32, 64, 128, 256, 512)
COARSE, FINE = 128, 512  # the slope is taken between them: fewer steps are not yet a power law
TOLERANCE = 0.15


class Curve(NamedTuple):
    """The mean error of a sampler on one path at each number of STEPS."""

    sampler: str
    path: str
    even: bool  # in sigma / alpha, not in its logarithm
    errors: dict[int, float]

    @property
    def order(self) -> float:
        """p of error ~ steps^-p."""
        ratio = self.errors[COARSE] / self.errors[FINE] if self.errors[FINE] else math.nan
        return math.log(ratio) / math.log(FINE / COARSE) if ratio > 0 else math.nan

    @property
    def expected(self) -> float:
        """The order it should have; NaN for a sampler that nobody has said it of."""
        return (EVEN_ORDERS if self.even else ORDERS).get(self.sampler, math.nan)


def deterministic() -> list[str]:
    """The samplers of SAMPLERS that draw no noise, new ones among them."""
    return [name for name in SAMPLERS if name not in STOCHASTIC]


def measure_curves() -> list[Curve]:
    """Every deterministic sampler on every path."""
    names = deterministic()
    grids = [(name, False) for name in names] + [(name, True) for name in names if name in EVEN_ORDERS]
    return [measure_curve(name, path, even) for name, even in grids for path in paths()]


def measure_curve(name: str, path: str, even: bool = False) -> Curve:
    """One sampler on one path, against x_s = F_s^-1(F_t(x_t)) for a mixture of two modes at 16 quantiles."""
    process, step = paths()[path], SAMPLERS[name]

    def grid(steps: int) -> list[Level]:
        return even_grid(process, steps, *EVEN_ENDS) if even else log_snr_grid(process, steps)

    first, last = grid(1)
    p = torch.linspace(0.05, 0.95, 16, dtype=torch.float64).view(1, 1, 4, 4)
    x, exact = TWO_MODES.quantile(p, first), TWO_MODES.quantile(p, last)
    errors = {n: float((run(x, grid(n), TWO_MODES.denoise, step) - exact).abs().mean()) for n in STEPS}
    return Curve(name, path, even, errors)


def order_checks(curves: Sequence[Curve]) -> list[Check]:
    """A row for every curve; a sampler without an expected order fails."""
    rows = []
    for curve in curves:
        name = f"{curve.sampler}{' (even sigma / alpha)' if curve.even else ''}, {curve.path}"
        note = f"{curve.errors[COARSE]:.1e} at {COARSE} steps, {curve.errors[FINE]:.1e} at {FINE}"
        if math.isnan(curve.expected):
            note = f"no expected order is known for it; {note}"
        rows.append(Check(name, curve.order, curve.expected, TOLERANCE, note))
    return rows
