"""The grid of a model's own: costs with a closed form, and dynamic programming against every grid there is."""

import math
from itertools import combinations, pairwise

import pytest
import torch

from bytepixels import CLEAN, InputError, Level
from bytepixels.core.own_grid import cheapest_levels, step_costs

from .laws import PATHS, TWO_MODES, log_snr_grid


def total(costs, levels, coefficient):
    """Written out: the k-th step's cost, times coefficient^k."""
    return sum(coefficient**k * float(costs[i, j]) for k, (i, j) in enumerate(pairwise(levels)))


def random_costs(seed, size=9):
    costs = torch.rand(size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return costs.masked_fill(torch.ones(size, size).tril().bool(), math.inf)


@pytest.mark.parametrize("coefficient", [1.0, 1.15, 2.0])
@pytest.mark.parametrize("steps", range(1, 9))
def test_no_grid_of_all_costs_less(steps, coefficient):
    for seed in range(3):
        costs = random_costs(seed)
        grids = [(0, *between, 8) for between in combinations(range(1, 8), steps - 1)]
        best = min(grids, key=lambda grid: total(costs, grid, coefficient))
        assert cheapest_levels(costs, steps, coefficient) == list(best[:-1])


def test_one_step_and_all_of_them():
    assert cheapest_levels(random_costs(0), 1) == [0]
    assert cheapest_levels(random_costs(0), 8) == list(range(8))
    assert cheapest_levels(random_costs(0, size=2), 1) == [0]


@pytest.mark.parametrize("steps", [0, 9, 1.5, -1])
def test_other_numbers_of_steps_are_refused(steps):
    with pytest.raises(InputError, match="steps must be"):
        cheapest_levels(random_costs(0), steps)


def path_of(x0, eps, levels):
    """Straight: the same x0 and eps all the way."""
    return [level.alpha * x0 + level.sigma * eps for level in levels]


SHAPES = [(3, 2, 4, 4), (1, 1, 3, 5), (2, 4, 1, 1)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", PATHS)
def test_a_straight_path_costs_nothing(name, shape):
    x0, eps = torch.randn(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    levels = [*log_snr_grid(name, 6), CLEAN]
    costs = step_costs(path_of(x0, eps, levels), [x0] * 7, levels, 0.5)
    above = torch.ones(8, 8).triu(1).bool()
    assert costs[above].abs().max() < 1e-14
    assert costs[~above].isinf().all()


@pytest.mark.parametrize("name", PATHS)
def test_gaussian_data_cost_what_the_closed_form_says(name):
    """x_s = R_s / R_t x_t, E[x0 | x_t] = alpha s^2 / R_t^2 x_t: a step errs by 1 - cos(a_t - a_s) of x's deviation."""
    spread = 0.7
    levels = [*log_snr_grid(name, 5), CLEAN]
    radius = [math.hypot(level.alpha * spread, level.sigma) for level in levels]
    angle = [math.atan2(level.sigma, level.alpha * spread) for level in levels]
    y = torch.randn(4, 1, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    path = [r * y for r in radius]
    estimates = [level.alpha * spread**2 / r * y for level, r in zip(levels[:-1], radius, strict=False)]
    costs = step_costs(path, estimates, levels, spread)
    size = float(y.square().mean(dim=(1, 2, 3)).sqrt().mean())
    for i in range(6):
        for j in range(i + 1, 7):
            assert float(costs[i, j]) == pytest.approx(size * (1 - math.cos(angle[i] - angle[j])), abs=1e-12)


def test_every_process_has_the_same_costs():
    """They are in units of x's deviation, and DDIM's step knows of a process but alpha / sigma."""
    p = torch.linspace(0.05, 0.95, 16, dtype=torch.float64).view(1, 1, 4, 4)
    found = []
    for name in ("vp", "edm"):
        levels = log_snr_grid(name, 6)
        path = [torch.from_numpy(TWO_MODES.quantile(p.numpy(), level.alpha, level.sigma)) for level in levels]
        estimates = [TWO_MODES.denoise(x, level) for x, level in zip(path[:-1], levels, strict=False)]
        found.append(step_costs(path, estimates, levels, 0.9))
    assert torch.allclose(*found, rtol=1e-9)
    assert 0 < float(found[0][0, 6]) < 2


def test_the_mean_is_over_images():
    """So that seeds can be taken in parts."""
    generator = torch.Generator().manual_seed(0)
    levels = [*log_snr_grid("flow", 4), CLEAN]
    path = [torch.randn(3, 1, 2, 5, generator=generator) for _ in levels]
    estimates = path[1:]
    each = [step_costs([x[k : k + 1] for x in path], [x[k : k + 1] for x in estimates], levels, 1.0) for k in range(3)]
    assert torch.allclose(step_costs(path, estimates, levels, 1.0), sum(each) / 3, rtol=1e-6)


def test_on_two_modes_the_own_grid_is_nearer_than_others():
    """Ten steps of ddim against the exact flow: an error less by a third than on levels even in log SNR."""
    p = torch.linspace(0.02, 0.98, 49, dtype=torch.float64).view(1, 1, 7, 7)
    fine = [*log_snr_grid("vp", 60, -5.0, 4.0), CLEAN]
    path = [torch.from_numpy(TWO_MODES.quantile(p.numpy(), level.alpha, level.sigma)) for level in fine]
    estimates = [TWO_MODES.denoise(x, level) for x, level in zip(path[:-1], fine, strict=False)]

    def error(levels):
        x = path[0]
        for now, nxt in pairwise(levels):
            shrink = nxt.sigma / now.sigma
            x = shrink * x + (nxt.alpha - shrink * now.alpha) * TWO_MODES.denoise(x, now)
        return float((x - path[-1]).abs().mean())

    own = [fine[i] for i in cheapest_levels(step_costs(path, estimates, fine, 0.9), 10)]
    even = [Level(*level) for level in fine[::6]][:10]
    assert error([*own, CLEAN]) < 0.67 * error([*even, CLEAN])


def test_what_does_not_belong_together_is_refused():
    levels = log_snr_grid("vp", 2)
    x = torch.zeros(1, 1, 2, 2)
    with pytest.raises(InputError, match="3 states, 1 estimates and 3 levels"):
        step_costs([x] * 3, [x], levels, 1.0)
    with pytest.raises(InputError, match="two levels or more"):
        step_costs([x], [], levels[:1], 1.0)
