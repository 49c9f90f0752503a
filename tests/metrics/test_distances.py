"""Distances of feature sets: against torchmetrics, scipy's matrix root, brute force and exact laws."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from bytepixels.errors import InputError
from bytepixels.metrics.distances import inception_score, kernel_distance
from bytepixels.metrics.frechet import Moments, frechet_distance, frechet_interval, merged, split_rows, too_few


class Itself(torch.nn.Module):
    """The "features" of arrays that are features."""

    num_features = 12

    def forward(self, x):
        return x


@pytest.fixture(scope="module")
def sets():
    """Two sets of correlated features of unequal laws, [400, 12] and [300, 12] float64."""
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(12, 12))
    one, other = rng.normal(size=(400, 12)) @ mix, rng.gamma(2, size=(300, 12)) @ mix.T + 0.3
    return torch.from_numpy(one), torch.from_numpy(other)


def frechet(one, other):
    return frechet_distance(Moments.of(one), Moments.of(other))


def textbook(one, other):
    """pytorch-fid's formula, through scipy: |m1 - m2|^2 + tr(C1 + C2 - 2 sqrtm(C1 C2))."""
    (m1, c1), (m2, c2) = ((x.mean(0).numpy(), np.cov(x.numpy(), rowvar=False)) for x in (one, other))
    return ((m1 - m2) ** 2).sum() + np.trace(c1 + c2 - 2 * scipy.linalg.sqrtm(c1 @ c2).real)


# ---- Frechet


def test_frechet_is_torchmetrics_and_the_textbooks(sets):
    metric = FrechetInceptionDistance(feature=Itself(), normalize=True).set_dtype(torch.float64)
    for features, real in zip(sets, (True, False), strict=True):
        metric.update(features, real=real)
    assert frechet(*sets) == pytest.approx(metric.compute().item(), rel=1e-6)
    assert frechet(*sets) == pytest.approx(textbook(*sets), rel=1e-9)


def test_frechet_of_two_gaussians_in_closed_form():
    """Covariances that commute: |m1 - m2|^2 + sum (sqrt a - sqrt b)^2. Moments set by hand, none estimated."""
    turn = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))).Q
    a, b = torch.tensor([9.0, 4, 1, 1, 0.25, 1e-4]).double(), torch.tensor([1.0, 4, 16, 0.01, 1, 0]).double()
    one, other = (Moments(11, mean, 10 * turn @ v.diag() @ turn.T) for v, mean in ((a, turn[0]), (b, 3 * turn[0])))
    assert frechet_distance(one, other) == pytest.approx(4 + ((a.sqrt() - b.sqrt()) ** 2).sum().item(), rel=1e-6)


def test_degenerate_covariances_have_a_distance():
    """Fewer vectors than dimensions, constant features, all alike: 0 from themselves, and right from a shift."""
    rng = torch.Generator().manual_seed(0)
    few = torch.randn(5, 40, dtype=torch.float64, generator=rng)
    flat = torch.randn(100, 4, dtype=torch.float64, generator=rng) @ torch.eye(4, 40, dtype=torch.float64)
    alike = torch.full((3, 40), 7.0)
    for features in (few, flat, alike):
        assert frechet(features, features) == pytest.approx(0, abs=1e-9)
        assert frechet(features, features + 2) == pytest.approx(4 * 40, rel=1e-9)
    assert frechet(alike, flat) == pytest.approx(
        (7 - flat.mean(0)).square().sum().item() + torch.cov(flat.T).trace().item(), rel=1e-9
    )
    assert "5 images do not span the 40 dimensions" in too_few(*few.shape)
    assert too_few(41, 40) is None


@pytest.mark.parametrize("cuts", [(1, 2, 399), (100, 200, 300), (17, 17 + 1, 18 + 2)])
def test_moments_of_batches_merge_to_those_of_all(sets, cuts):
    one = 1e4 + sets[0]  # a mean far above the spread
    parts = torch.tensor_split(one, cuts)
    moments = merged(Moments.of(part) for part in parts)
    assert moments.n == 400
    assert torch.allclose(moments.mean, one.mean(0), rtol=1e-12)
    assert torch.allclose(moments.covariance, torch.cov(one.T), rtol=1e-9)


def test_the_jackknife_interval_is_the_spread_over_new_samples():
    """1.96 standard deviations over 60 samples of a Gaussian, against the mean of the intervals."""
    rng = torch.Generator().manual_seed(3)
    reference = Moments.of(torch.randn(4000, 5, dtype=torch.float64, generator=rng))
    found = []
    for _ in range(60):
        x = 1.3 * torch.randn(300, 5, dtype=torch.float64, generator=rng) + 0.2
        parts = [Moments.of(x[rows]) for rows in split_rows(len(x), 10)]
        found.append(frechet_interval(parts, reference))
        assert found[-1][0] == pytest.approx(frechet_distance(Moments.of(x), reference), rel=1e-9)
    values, intervals = torch.tensor(found).T
    assert intervals.mean().item() == pytest.approx(1.96 * values.std().item(), rel=0.25)


# ---- kernel


def test_kernel_distance_is_torchmetrics_on_a_subset_that_is_all(sets):
    one, other = sets[0][:300], sets[1]
    metric = KernelInceptionDistance(feature=Itself(), subsets=1, subset_size=300, normalize=True)
    metric.set_dtype(torch.float64)
    for features, real in ((one, True), (other, False)):
        metric.update(features, real=real)
    assert kernel_distance(one, other)[0] == pytest.approx(metric.compute()[0].item(), rel=1e-6)


def test_kernel_distance_is_a_loop_over_pairs_for_unequal_sets(sets):
    one, other = sets[0][:13].numpy(), sets[1][:9].numpy()

    def kernel(a, b):
        return (a @ b / 12 + 1) ** 3

    xx = np.mean([kernel(a, b) for i, a in enumerate(one) for j, b in enumerate(one) if i != j])
    yy = np.mean([kernel(a, b) for i, a in enumerate(other) for j, b in enumerate(other) if i != j])
    xy = np.mean([kernel(a, b) for a in one for b in other])
    value, interval = kernel_distance(*(torch.from_numpy(x) for x in (one, other)), parts=3)
    assert value == pytest.approx(xx + yy - 2 * xy, rel=1e-9)
    assert interval > 0
    assert math.isnan(kernel_distance(torch.from_numpy(one[:3]), torch.from_numpy(other))[1])


def test_kernel_distance_of_equal_laws_is_0_on_average_and_its_interval_holds():
    rng = torch.Generator().manual_seed(5)
    draw = lambda n: torch.randn(n, 8, generator=rng)  # noqa: E731
    found = torch.tensor([kernel_distance(draw(120), draw(90)) for _ in range(80)])
    value, interval = found.T
    assert abs(value.mean()) < 3 * value.std() / 80**0.5
    assert (value < 0).any()
    assert 1.96 * value.std() / 2 < interval.mean() < 1.96 * value.std() * 2
    far = torch.tensor([kernel_distance(draw(120), 1.5 + draw(90)) for _ in range(80)])
    assert far[:, 1].mean().item() == pytest.approx(1.96 * far[:, 0].std().item(), rel=0.3)


# ---- inception score


def test_inception_score_of_even_sure_classes_is_their_number_and_of_no_difference_1():
    sure = torch.eye(4).repeat(50, 1)
    assert inception_score(sure) == pytest.approx((4, 0))
    assert inception_score(torch.full((40, 4), 0.25)) == pytest.approx((1, 0))
    assert inception_score(torch.tensor([[1.0, 0], [0.5, 0.5]]), splits=1)[0] == pytest.approx(
        math.exp((math.log(4 / 3) + 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)) / 2)
    )
    with pytest.raises(InputError, match="add up to 1"):
        inception_score(torch.ones(3, 3))


# ---- what cannot be measured


def test_what_cannot_be_measured_is_refused_in_a_sentence(sets):
    one, other = sets
    refused = [
        (lambda: frechet(one[:1], other), "two or more images, got 1"),
        (lambda: frechet(one[:, :5], other), "of 5 and of 12 numbers cannot be compared"),
        (lambda: frechet_interval([Moments.of(one)], Moments.of(other)), "two or more parts, got 1"),
        (lambda: Moments.of(one).merge(Moments.of(one[:, :5])), "of 12 and of 5 numbers"),
        (lambda: Moments.of(one[0]), r"\[images, numbers\], none of them 0, got \[12\]"),
        (lambda: Moments.of(one[:0]), r"got \[0, 12\]"),
        (lambda: Moments.of(one / 0), "must be finite"),
        (lambda: kernel_distance(one[:1], other), "two or more images a side, got 1 and 300"),
        (lambda: kernel_distance(one, other[:, :3]), "of 12 and of 3 numbers"),
    ]
    for call, sentence in refused:
        with pytest.raises(InputError, match=sentence):
            call()
