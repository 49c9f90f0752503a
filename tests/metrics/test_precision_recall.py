"""Nearest neighbours and what is built on them, against loops over pairs."""

import numpy as np
import pytest
import torch

from bytepixels.errors import InputError
from bytepixels.metrics import precision_recall as neighbours
from bytepixels.metrics.precision_recall import density_coverage, nearest, precision_recall


@pytest.fixture(params=[2**24, 100], ids=["one block", "blocks"])
def _blocks(request, monkeypatch):
    monkeypatch.setattr(neighbours, "BLOCK_NUMBERS", request.param)


@pytest.fixture(scope="module")
def sets():
    rng = np.random.default_rng(0)
    return rng.normal(size=(60, 3)), 0.7 * rng.normal(size=(45, 3)) + 0.4


def brute_force(data, samples, k):
    """(precision, recall, density, coverage), by loops."""

    def radii(points):
        return [sorted(np.linalg.norm(points - p, axis=1))[k] for p in points]  # [0] is itself

    def share(points, support):
        balls = list(zip(support, radii(support), strict=True))
        return np.mean([any(np.linalg.norm(p - c) <= r for c, r in balls) for p in points])

    balls = list(zip(data, radii(data), strict=True))
    inside = np.array([[np.linalg.norm(s - c) <= r for s in samples] for c, r in balls])
    return share(samples, data), share(data, samples), inside.sum() / (k * len(samples)), inside.any(1).mean()


@pytest.mark.usefixtures("_blocks")
@pytest.mark.parametrize("k", [1, 3, 5])
def test_the_four_are_those_of_brute_force(sets, k):
    data, samples = map(torch.from_numpy, sets)
    found = *precision_recall(data, samples, k), *density_coverage(data, samples, k)
    assert found == pytest.approx(brute_force(*sets, k), abs=1e-12)
    assert len(set(found)) == 4


@pytest.mark.usefixtures("_blocks")
def test_nearest_are_those_of_brute_force_however_far_from_the_origin(sets):
    one, other = (1e5 + x for x in sets)
    distance = np.linalg.norm(one[:, None] - other[None], axis=-1)
    found = nearest(torch.from_numpy(one), torch.from_numpy(other), 4)
    assert (found.position.numpy() == distance.argsort(1)[:, :4]).all()
    assert np.allclose(found.distance.numpy(), np.sort(distance, 1)[:, :4], rtol=1e-6)
    own = nearest(torch.from_numpy(one), torch.from_numpy(one), 1, skip_self=True)
    assert (own.position[:, 0] != torch.arange(60)).all()
    assert (own.distance > 1e-3).all()


def test_equal_laws_cover_one_another_and_a_narrow_one_does_not():
    rng = torch.Generator().manual_seed(1)
    draw = lambda: torch.randn(800, 4, generator=rng)  # noqa: E731
    density, coverage = density_coverage(draw(), draw())
    assert density == pytest.approx(1, abs=0.06)
    assert coverage == pytest.approx(1 - 2**-5, abs=0.03)
    precision, recall = precision_recall(draw(), 0.2 * draw())
    assert precision > 0.99
    assert recall < 0.2
    assert precision_recall(draw(), draw() + 100) == (0, 0)


def test_too_few_neighbours_are_refused():
    x = torch.randn(4, 2)
    with pytest.raises(InputError, match="4 images have no 5-th neighbour each"):
        density_coverage(x, torch.randn(20, 2))
    with pytest.raises(InputError, match="4 images have no 4-th neighbour"):
        precision_recall(torch.randn(20, 2), x, k=4)
    for k in (0, 4):
        with pytest.raises(InputError, match=rf"k must be in 1..3, .* got {k}"):
            nearest(x, x, k, skip_self=True)
