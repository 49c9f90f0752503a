"""Guidance: by a label, by a weaker model, by a classifier; and variances that a network learned, when sampling."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from bytepixels import (
    CLEAN,
    Denoiser,
    GaussianDiffusion,
    InputError,
    Level,
    classifier_guided,
    clipped,
    guided,
    sample,
    trajectory,
)
from bytepixels.core.losses import ancestral
from tests.core.laws import GAUSSIAN, PATHS, Mixture, linear_alpha_bar, log_snr_grid

X = torch.randn(3, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
LEVEL = Level(t=400.0, alpha=0.6, sigma=0.8)
PURE = Level(t=999.0, alpha=0.0, sigma=1.0)


def constant(value):
    return lambda x, level: torch.full_like(x, value)


def towards(x, level):
    return x.sin() * level.alpha + 0.1


def away(x, level):
    return 0.5 * x.cos() - level.sigma


class Labelled:
    """A network that reads x, t and the label, and counts its evaluations."""

    def __init__(self):
        self.batches = []

    def __call__(self, x, t, label=None):
        self.batches.append(len(x))
        shift = 0.1 * (torch.full((len(x),), 10) if label is None else label)
        return (x * (1 + shift.view(-1, 1, 1, 1))).sin() + (t / 400).to(x.dtype).view(-1, 1, 1, 1)


# ---- by a label, or by a weaker model


@pytest.mark.parametrize(("scale", "value"), [(0, 0.25), (1, 0.75), (3, 1.75), (0.5, 0.5), (-1, -0.25)])
def test_guided(scale, value):
    both = guided(constant(0.75), unconditional=constant(0.25), scale=scale)
    torch.testing.assert_close(both(X, LEVEL), torch.full_like(X, value))


def test_scale_one_is_the_denoiser_itself():
    assert guided(towards, away, 1) is towards
    assert guided(towards, away, 1, (0.5, 2.0), rescale=0.7) is towards


def test_scale_zero_is_the_other_one():
    assert torch.equal(guided(towards, away, 0)(X, LEVEL), away(X, LEVEL))


def test_guidance_in_x0_is_guidance_in_eps():
    """Ho & Salimans 2022, eq. 6: eps = (1 + w) eps(x, c) - w eps(x), with scale = 1 + w."""
    with_label, without = (lambda x, t: x.sin() * t.view(-1, 1, 1, 1) / 400), (lambda x, t: x.cos())
    in_x0 = guided(Denoiser(with_label), Denoiser(without), scale=2.5)(X, LEVEL)
    in_eps = Denoiser(lambda x, t: 2.5 * with_label(x, t) - 1.5 * without(x, t))(X, LEVEL)
    torch.testing.assert_close(in_x0, in_eps)


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
def test_one_network_with_two_labels_is_evaluated_once(prediction):
    network, label = Labelled(), torch.tensor([0, 1, 2])
    one, other = (Denoiser(network, prediction, label=one) for one in (label, torch.full_like(label, 3)))
    got = guided(one, other, 2.5)(X, LEVEL)
    assert network.batches == [6]
    apart = guided(lambda x, level: one(x, level), lambda x, level: other(x, level), 2.5)(X, LEVEL)
    assert network.batches == [6, 3, 3]
    torch.testing.assert_close(got, apart, rtol=1e-12, atol=1e-12)


def test_what_is_not_one_network_with_two_labels_is_evaluated_twice():
    network, weak, label = Labelled(), Labelled(), torch.tensor([0, 1, 2])
    one = Denoiser(network, label=label)
    for other in (
        Denoiser(weak, label=label),  # autoguidance
        Denoiser(network),  # no label at all
        Denoiser(network, "v", label=label),
        Denoiser(network, "v", 0.5, label=label),
        clipped(Denoiser(network, label=label)),
    ):
        expected = other(X, LEVEL) + 2 * (one(X, LEVEL) - other(X, LEVEL))
        network.batches, weak.batches = [], []
        torch.testing.assert_close(guided(one, other, 2)(X, LEVEL), expected, rtol=1e-12, atol=1e-12)
        assert sorted(network.batches + weak.batches) == [3, 3]


def test_autoguidance_goes_away_from_the_weaker_model():
    """Karras et al. 2024, eq. 6: D0 + w (D1 - D0). A model that errs twice as far, the same way: scale 2 undoes it."""
    level = Level(3.0, *linear_alpha_bar(1000)[[500]] ** 0.5, *(1 - linear_alpha_bar(1000)[[500]]) ** 0.5)
    exact = GAUSSIAN.denoise
    strong, weak = (lambda x, at: exact(x, at) + 0.1 * x.sin()), (lambda x, at: exact(x, at) + 0.2 * x.sin())
    torch.testing.assert_close(guided(strong, weak, 2)(X, level), exact(X, level), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("path", PATHS)
def test_the_interval_is_where_it_acts(path):
    """Of sigma / alpha, both ends in it (Kynkäänniemi et al. 2024)."""
    levels = log_snr_grid(path, 6)  # sigma / alpha = exp(2) .. exp(-3)
    low, high = levels[4].sigma / levels[4].alpha, levels[2].sigma / levels[2].alpha
    inside = guided(towards, away, 3, (low * (1 - 1e-12), high * (1 + 1e-12)))
    without = guided(towards, away, 3, (low * (1 + 1e-12), high * (1 - 1e-12)))
    always = guided(towards, away, 3)
    for i, level in enumerate(levels):
        assert torch.equal(inside(X, level), (always if 2 <= i <= 4 else towards)(X, level)), i
        assert torch.equal(without(X, level), (always if i == 3 else towards)(X, level)), i


def test_an_interval_at_its_very_ends():
    level = Level(1.0, 1.0, 1.0)  # sigma / alpha is 1, to the last bit
    guide = guided(towards, away, 3)(X, level)
    for interval in ((1.0, 2.0), (0.5, 1.0), (1.0, 1.0)):
        assert torch.equal(guided(towards, away, 3, interval)(X, level), guide)


def test_pure_noise_is_beyond_every_end():
    assert torch.equal(guided(constant(1.0), constant(0.0), 3, (0.0, 1e9))(X, PURE), torch.ones_like(X))
    assert torch.equal(guided(constant(1.0), constant(0.0), 3)(X, PURE), torch.full_like(X, 3.0))


def test_outside_the_interval_the_other_is_not_evaluated():
    network, label = Labelled(), torch.tensor([0, 1, 2])
    denoise = guided(Denoiser(network, label=label), Denoiser(network, label=label + 1), 3, (5.0, 9.0))
    denoise(X, LEVEL)
    assert network.batches == [3]


@pytest.mark.parametrize("rescale", [0.0, 0.3, 1.0])
def test_rescale_gives_the_contrast_back(rescale):
    """Lin et al. 2024, eq. 15 and 16, per image: x (phi std_conditional / std_guided + 1 - phi)."""
    conditional, scaled = towards(X, LEVEL), guided(towards, away, 4)(X, LEVEL)
    got = guided(towards, away, 4, rescale=rescale)(X, LEVEL)
    ratio = conditional.numpy().std(axis=(1, 2, 3), ddof=1) / scaled.numpy().std(axis=(1, 2, 3), ddof=1)
    expected = scaled.numpy() * (rescale * ratio + 1 - rescale)[:, None, None, None]
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    assert (np.abs(ratio - 1) > 0.1).all()
    if rescale == 1:
        torch.testing.assert_close(got.std((1, 2, 3)), conditional.std((1, 2, 3)), rtol=1e-12, atol=0)


def test_a_flat_image_can_be_rescaled():
    assert guided(constant(0.5), constant(0.25), 3, rescale=1.0)(X, LEVEL).isfinite().all()


@pytest.mark.parametrize("scale", [0.0, 1.5, 4.0])
def test_the_whole_difference_without_a_bound_is_plain_guidance_bitwise(scale):
    plain = guided(towards, away, scale)(X.float(), LEVEL)
    assert torch.equal(guided(towards, away, scale, parallel=1.0, bound=math.inf)(X.float(), LEVEL), plain)


@pytest.mark.parametrize(
    ("parallel", "bound"), [(0.0, math.inf), (0.5, math.inf), (0.0, 0.05), (1.0, 0.05), (1.0, 100.0)]
)
def test_apg_keeps_a_part_along_the_estimate_and_bounds_the_difference(parallel, bound):
    """Sadat et al. 2024, Algorithm 1: c + (w - 1) (orthogonal + eta parallel) of the bounded c - u, per image."""
    got = guided(towards, away, 4, parallel=parallel, bound=bound)(X, LEVEL)
    c, u = (one(X, LEVEL).numpy() for one in (towards, away))
    for k in range(len(X)):
        difference, unit = (c[k] - u[k]).ravel(), c[k].ravel() / np.linalg.norm(c[k])
        difference = difference * min(1, bound * difference.size**0.5 / np.linalg.norm(difference))
        along = (difference @ unit) * unit
        assert np.linalg.norm(along) > 0.01 * np.linalg.norm(difference)
        expected = c[k].ravel() + 3 * (difference - along + parallel * along)
        np.testing.assert_allclose(got[k].numpy().ravel(), expected, rtol=1e-10, atol=1e-12)


def test_apg_of_estimates_that_are_zero_or_equal_is_finite():
    assert guided(constant(0.0), constant(0.25), 3, parallel=0.0, bound=0.1)(X, LEVEL).isfinite().all()
    assert guided(constant(0.5), constant(0.5), 3, parallel=0.0, bound=0.1)(X, LEVEL).isfinite().all()


# ---- by a classifier

CLASSES = Mixture((0.3, 0.7), (-0.6, 0.5), (0.05, 0.2))  # p(x0 | y) are its two parts


def only(k):
    return Mixture((1.0,), CLASSES.means[k : k + 1], CLASSES.variances[k : k + 1])


def log_prob_of(k):
    """log p(y = k | x_t), summed over the pixels, which are independent: [B]."""

    def log_prob(x, level):
        mean, variance = (torch.from_numpy(one) for one in CLASSES.at(level.alpha, level.sigma))
        weights = torch.tensor(CLASSES.weights, dtype=torch.float64)
        joint = torch.log(weights) - torch.log(variance) / 2 - (x[..., None] - mean) ** 2 / variance / 2
        return joint.log_softmax(dim=-1)[..., k].sum(dim=(1, 2, 3))

    return log_prob


@pytest.mark.parametrize("k", [0, 1])
@pytest.mark.parametrize("path", PATHS)
def test_an_exact_classifier_makes_the_unconditional_denoiser_conditional(path, k):
    """Bayes' rule for scores, by Tweedie's formula, at every level: scale 2."""
    for level in log_snr_grid(path, 8, -3.0, 4.0):
        guide = classifier_guided(CLASSES.denoise, log_prob_of(k), 2)
        torch.testing.assert_close(guide(X, level), only(k).denoise(X, level), rtol=1e-9, atol=1e-9)
        halfway = (CLASSES.denoise(X, level) + only(k).denoise(X, level)) / 2
        guide = classifier_guided(CLASSES.denoise, log_prob_of(k), 1.5)
        torch.testing.assert_close(guide(X, level), halfway, rtol=1e-9, atol=1e-9)


def test_classifier_scale_one_is_no_guidance():
    def never(x, level):
        raise AssertionError("the classifier was asked")

    assert classifier_guided(towards, never, 1) is towards
    pure = classifier_guided(constant(0.5), never, 3)
    assert torch.equal(pure(X, PURE), torch.full_like(X, 0.5))  # nothing of the image is left to be told


def test_the_gradient_is_taken_though_sampling_takes_none():
    guide = classifier_guided(CLASSES.denoise, log_prob_of(0), 2)
    expected = guide(X, LEVEL)
    with torch.no_grad():
        got = guide(X, LEVEL)
    assert torch.equal(got, expected)
    assert not got.requires_grad
    levels = [*log_snr_grid("vp", 30, -4.0, 4.0), CLEAN]
    *_, plain = trajectory(3 * X, levels, only(0).denoise, ddim)
    *_, led = trajectory(3 * X, levels, guide, ddim)
    torch.testing.assert_close(led, plain, rtol=1e-6, atol=1e-6)


def ddim(x, now, nxt, denoise, noise, memory):
    x0 = denoise(x, now)
    return nxt.alpha * x0 + nxt.sigma / now.sigma * (x - now.alpha * x0), None


# ---- a learned variance


def noises(n, shape=(2, 1, 4, 4)):
    queue = iter(torch.randn(n, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    return lambda x: next(queue)


def with_fraction(fraction, calls=None):
    """The exact network for Gaussian data, and a fraction for every pixel."""
    exact = GAUSSIAN.network(linear_alpha_bar(1000), "eps")

    def network(x, t):
        if calls is not None:
            calls.append(t[0].item())
        return torch.cat([exact(x, t), torch.full_like(x, fraction)], dim=1)

    return network


def run(network, variance, steps=12):
    levels = GaussianDiffusion(1000).levels(steps)
    denoise, step = ancestral(Denoiser(network), variance)
    draw = noises(steps + 1)
    *_, last = trajectory(draw(None), levels, denoise, step, draw)
    return last


@pytest.mark.parametrize(("fraction", "variance"), [(-1.0, "small"), (1.0, "large")])
def test_the_ends_of_the_fraction_are_the_fixed_variances(fraction, variance):
    network = with_fraction(fraction)
    torch.testing.assert_close(run(network, "learned"), run(network, variance), rtol=1e-9, atol=1e-9)
    assert (run(network, "learned") - run(with_fraction(0.0), "learned")).abs().max() > 0.01


def test_every_step_draws_with_the_variance_that_the_network_chose():
    """Nichol & Dhariwal 2021, eq. 15, between any two levels: the geometric mean at fraction 0."""
    levels = GaussianDiffusion(1000).levels(6)
    z = torch.ones_like(X)
    denoise, step = ancestral(Denoiser(with_fraction(0.0)), "learned")
    for now, nxt in pairwise(levels[:-1]):
        moved = step(X, now, nxt, denoise, lambda x: z)[0] - step(X, now, nxt, denoise, lambda x: 0 * z)[0]
        beta = 1 - (now.alpha / nxt.alpha) ** 2
        small = nxt.sigma**2 / now.sigma**2 * beta
        torch.testing.assert_close(moved, torch.full_like(X, (beta * small) ** 0.25), rtol=1e-9, atol=0)


def test_a_learned_variance_costs_no_evaluation():
    calls = []
    run(with_fraction(0.3, calls), "learned")
    assert len(calls) == 12
    assert calls == sorted(set(calls), reverse=True)


def test_the_fraction_survives_guidance_and_clipping():
    """It is read from the label's own denoiser, whose evaluation at this x and level is still there."""
    calls = []
    denoise, step = ancestral(Denoiser(with_fraction(0.3, calls)), "learned")
    wrapped = clipped(guided(denoise, constant(0.2), 2.0))
    draw = noises(13)
    *_, last = trajectory(draw(None), GaussianDiffusion(1000).levels(12), wrapped, step, draw)
    assert len(calls) == 12
    assert last.isfinite().all()


def test_sample_with_a_learned_variance():
    process, shape = GaussianDiffusion(1000), (2, 1, 4, 4)
    draws = {variance: noises(9) for variance in ("learned", "small", "large")}
    got = {v: sample(with_fraction(-1.0), process, shape, steps=8, noise=draws[v], variance=v) for v in draws}
    torch.testing.assert_close(got["learned"], got["small"], rtol=1e-4, atol=1e-4)
    assert (got["large"] - got["small"]).abs().max() > 0.01
    unsaid = sample(with_fraction(-1.0), process, shape, steps=8, noise=noises(9))
    assert torch.equal(unsaid, got["small"])
    with pytest.raises(InputError, match="variance learned needs a network that returns twice the channels"):
        sample(lambda x, t: x, process, shape, steps=3, variance="learned")
    with pytest.raises(InputError, match="variance small belongs to sampler ddpm, got sampler ddim"):
        sample(lambda x, t: x, process, shape, "ddim", steps=3, variance="small")
    with pytest.raises(InputError, match="variance must be one of small, large, learned; got 'larned'"):
        sample(lambda x, t: x, process, shape, steps=3, variance="larned")


@pytest.mark.parametrize("fraction", [-1.0, 1.0, "best"])
def test_the_moments_of_a_chain_with_the_best_variance_are_the_datas(fraction):
    """Gaussian data on a coarse chain: the best variance keeps the variance of the data, the fixed ones miss it."""
    (S,) = GAUSSIAN.variances
    levels, variance = GaussianDiffusion(1000).levels(8), 1.0  # of x_T, which alpha_bar of 4e-5 makes all but 1
    for now, nxt in pairwise(levels):
        beta = 1 - (now.alpha / nxt.alpha) ** 2
        small = nxt.sigma**2 / now.sigma**2 * beta
        pull = nxt.alpha * beta / now.sigma**2
        mmse = S * now.sigma**2 / (now.alpha**2 * S + now.sigma**2)
        best = 1.0 if nxt.sigma == 0 else 2 * math.log((small + pull**2 * mmse) / small) / math.log(beta / small) - 1
        chosen = best if fraction == "best" else fraction
        denoise, step = ancestral(Denoiser(with_fraction(chosen)), "learned")
        zero, one = torch.zeros(1, 1, 1, 1, dtype=torch.float64), torch.ones(1, 1, 1, 1, dtype=torch.float64)
        at = {(x, z): step(x, now, nxt, denoise, lambda like, z=z: z)[0] for x in (zero, one) for z in (zero, one)}
        slope, spread = (at[one, zero] - at[zero, zero]).item(), (at[zero, one] - at[zero, zero]).item()
        variance = slope**2 * variance + spread**2
    # the last step adds no noise, so it ends at the mean: short of S by the error that is left
    error = S * levels[-2].sigma ** 2 / (levels[-2].alpha ** 2 * S + levels[-2].sigma ** 2)
    wanted = pytest.approx(S - error, rel=1e-3)
    assert (variance == wanted) == (fraction == "best")
