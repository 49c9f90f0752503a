"""A sampler as a table: following it is sampling, for every sampler, on every kind of process."""

from functools import partial

import pytest
import torch

from bytepixels import SAMPLERS, EDMProcess, GaussianDiffusion, RectifiedFlow, cosine_schedule, trajectory
from bytepixels.core.flow_map import flow_map_step
from bytepixels.core.recipe import recipe_of
from bytepixels.core.samplers import churned, step_of

PROCESSES = {"ddpm": GaussianDiffusion(1000, cosine_schedule), "edm": EDMProcess(), "flow": RectifiedFlow()}


def follow(recipe, start, denoise, noise):
    """Draw by a recipe: x0 [B, C, H, W] from x at its first level. What another program has to do, in four lines."""
    known = [start]
    fresh = [noise(start) for _ in range(recipe.noises)]

    def mixed(row):
        used = [*known, *[torch.zeros_like(start)] * (1 + len(recipe.evaluations) - len(known)), *fresh]
        return torch.stack([factor * x for factor, x in zip(row, used, strict=True) if factor]).sum(0)

    for level, destination, row in recipe.evaluations:
        told = () if destination is None else (destination,)
        known.append(denoise(mixed(row), level, *told))
    return mixed(recipe.last)


def crooked(x, level, destination=None):
    """As far from linear as a network."""
    way = 0.0 if destination is None else destination.sigma
    return torch.tanh(level.alpha * x + level.sigma * x.roll(1, -1) + way).clamp(-0.9, 0.9)


def drawn(seed):
    generator = torch.Generator().manual_seed(seed)
    return lambda x: torch.randn(x.shape, dtype=x.dtype, generator=generator)


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_following_the_recipe_is_sampling(sampler, steps, process):
    levels, step = process.levels(steps), step_of(sampler, process)
    start = levels[0].sigma * drawn(0)(torch.empty(2, 1, 3, 4, dtype=torch.float64))
    *_, expected = trajectory(start, levels, crooked, step, drawn(1))
    recipe = recipe_of(levels, step)
    torch.testing.assert_close(follow(recipe, start, crooked, drawn(1)), expected, rtol=1e-9, atol=1e-9)
    assert recipe.evaluations[0].level == levels[0]


OTHERS = {
    "ddim with fresh noise": partial(SAMPLERS["ddim"], eta=0.7),
    "churned euler": churned(SAMPLERS["euler"], PROCESSES["flow"], 0.2),
    "a flow map that draws afresh": partial(flow_map_step, renoise=0.5),
}


@pytest.mark.parametrize("step", OTHERS.values(), ids=OTHERS)
def test_steps_with_settings_and_destinations(step):
    levels = PROCESSES["flow"].levels(4)
    start = drawn(0)(torch.empty(1, 1, 2, 2, dtype=torch.float64))
    *_, expected = trajectory(start, levels, crooked, step, drawn(1))
    recipe = recipe_of(levels, step)
    assert recipe.noises > 0
    torch.testing.assert_close(follow(recipe, start, crooked, drawn(1)), expected, rtol=1e-9, atol=1e-9)


def test_a_row_names_nothing_that_comes_later():
    recipe = recipe_of(PROCESSES["flow"].levels(6), SAMPLERS["unipc_3"])
    for k, evaluation in enumerate(recipe.evaluations):
        assert not any(evaluation.row[1 + k :])
    assert len(recipe.last) == 1 + len(recipe.evaluations)
