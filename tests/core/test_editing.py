"""Editing against exact laws: Gaussian conditionals, the probability-flow map, samplers that must agree bit for bit."""

import math
import re
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch

from bytepixels import (
    CLEAN,
    SAMPLERS,
    Denoiser,
    EDMProcess,
    GaussianDiffusion,
    InputError,
    Level,
    RectifiedFlow,
    trajectory,
    zero_terminal_snr,
)
from bytepixels.core.editing import inpainted, invert, noised_start, resampled_trajectory, resampling_path, slerp
from bytepixels.core.schedules import cosine_schedule, linear_schedule
from bytepixels.registries import sampler_facts
from tests.core.laws import GAUSSIAN, PATHS, TWO_MODES, log_snr_grid, zero_snr_alpha_bar

DDPM, DDIM = SAMPLERS["ddpm"], SAMPLERS["ddim"]
X = torch.linspace(-2, 2, 16, dtype=torch.float64).view(1, 1, 4, 4)


def fixed_noise(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return lambda x: torch.randn(x.shape, dtype=x.dtype, generator=generator)


def refuse(x):
    raise AssertionError("a deterministic step asked for noise")


def last_of(states):
    *_, last = states
    return last


# ---- inpainting

MEAN, KNOWN = np.array([0.3, -0.2]), 0.8  # two pixels of which the first is known
COVARIANCE = np.array([[0.25, 0.2], [0.2, 0.36]])
GAIN = COVARIANCE[1, 0] / COVARIANCE[0, 0]
CONDITIONAL = MEAN[1] + GAIN * (KNOWN - MEAN[0]), COVARIANCE[1, 1] - GAIN * COVARIANCE[0, 1]


def expected_x0(level):
    """gain, offset of E[x0 | x] = gain x + offset, for the two pixels."""
    gain = level.alpha * COVARIANCE @ np.linalg.inv(level.alpha**2 * COVARIANCE + level.sigma**2 * np.eye(2))
    return gain, MEAN - level.alpha * gain @ MEAN


def denoise_pairs(x, level):
    """x [B, 1, 1, 2]."""
    gain, offset = (torch.from_numpy(value) for value in expected_x0(level))
    return x @ gain.T + offset


def inpainted_moments(path):
    """Mean and covariance of what inpainting must give along `path`, by recursion: Bayes' rule for every ddpm step."""
    first = path[0]
    mean, covariance = np.array([first.alpha * KNOWN, 0.0]), np.diag([first.sigma**2, 1.0])
    for now, nxt in pairwise(path):
        if nxt.half_log_snr > now.half_log_snr:
            gain, offset = expected_x0(now)
            gain[0], offset[0] = 0, KNOWN
            ratio = now.alpha / nxt.alpha
            added = now.sigma**2 - (ratio * nxt.sigma) ** 2
            variance = 0 if nxt.sigma == 0 else 1 / (1 / nxt.sigma**2 + ratio**2 / added)  # precisions add
            keep, pull = variance * ratio / added, nxt.alpha - variance * ratio / added * now.alpha
            slope, offset = keep * np.eye(2) + pull * gain, pull * offset
        else:
            slope, offset = nxt.alpha / now.alpha * np.eye(2), 0
            variance = nxt.sigma**2 - (nxt.alpha / now.alpha * now.sigma) ** 2
        mean, covariance = slope @ mean + offset, slope @ covariance @ slope.T + variance * np.eye(2)
    return mean, covariance


def inpaint_pairs(path, n, seed=0):
    """n draws of both pixels, [n, 2], the first of them known."""
    noise = fixed_noise(seed)
    known, mask = (
        torch.tensor([KNOWN, 9.0], dtype=torch.float64).view(1, 1, 1, 2),
        torch.tensor([1.0, 0.0]).view(1, 1, 1, 2),
    )
    x = noise(torch.empty(n, 1, 1, 2, dtype=torch.float64))
    x[..., 0] = path[0].alpha * KNOWN + path[0].sigma * x[..., 0]
    return last_of(resampled_trajectory(x, path, inpainted(denoise_pairs, known, mask), DDPM, noise)).view(n, 2).numpy()


@pytest.mark.parametrize("repeats", [1, 4])
def test_inpainting_has_the_moments_of_its_recursion(repeats):
    path, n = resampling_path(GaussianDiffusion(1000).levels(40, "log_snr"), 4, repeats), 20_000
    mean, covariance = inpainted_moments(path)
    got = inpaint_pairs(path, n)
    assert np.abs(got[:, 0] - KNOWN).max() < 1e-12
    assert got[:, 1].mean() == pytest.approx(mean[1], abs=4 * math.sqrt(covariance[1, 1] / n))
    assert got[:, 1].var() == pytest.approx(covariance[1, 1], rel=4 * math.sqrt(2 / n))


def test_resampling_brings_inpainting_to_the_exact_conditional():
    """Without it the unknown pixel is drawn too near its own mean; with repeats it comes to E and Var given the other.

    The recursion says how far: the test before this one checks that the code follows it.
    """
    mean, variance = CONDITIONAL
    levels = GaussianDiffusion(1000).levels(100, "log_snr")
    errors = [inpainted_moments(resampling_path(levels, 5, repeats))[0][1] - mean for repeats in (1, 2, 4, 8, 16)]
    assert errors[0] < -0.1
    assert all(abs(fewer) > 1.4 * abs(more) for fewer, more in pairwise(errors))
    assert abs(errors[-1]) < 0.025

    fine = resampling_path(GaussianDiffusion(1000).levels(250, "log_snr"), 10, 12)
    draws, n = inpaint_pairs(fine, 400, seed=1)[:, 1], 400
    assert draws.mean() == pytest.approx(mean, abs=4 * math.sqrt(variance / n))
    assert draws.var() == pytest.approx(variance, rel=4 * math.sqrt(2 / n))


@pytest.mark.parametrize("path", PATHS)
def test_the_known_part_follows_the_forward_chain_exactly(path):
    """At every level, up and down: x - alpha * known is sigma times a standard normal."""
    levels = [*log_snr_grid(path, 8), CLEAN]
    walked = resampling_path(levels, 2, 3)
    noise, known = fixed_noise(), torch.full((1, 100, 100), 0.6, dtype=torch.float64)
    start = levels[0].alpha * known + levels[0].sigma * noise(torch.empty(1, 1, 100, 100, dtype=torch.float64))
    denoise = inpainted(lambda x, level: x.sin(), known, torch.ones(1, 1, 100, 100))
    states = list(resampled_trajectory(start, walked, denoise, DDPM, noise))
    for level, x in zip(walked[1:-1], states[:-1], strict=True):
        eps = (x - level.alpha * known) / level.sigma
        assert eps.mean().abs() < 4 / 100
        assert eps.var() == pytest.approx(1, abs=4 * math.sqrt(2) / 100)


LANDING = [name for name in SAMPLERS if not sampler_facts(name).sigma_data]  # the last step ends on the estimate itself


@pytest.mark.parametrize("name", LANDING)
def test_the_known_part_comes_back_bit_for_bit(name):
    known = torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mask = (torch.arange(16).view(1, 4, 4) % 3 == 0).float()
    denoise = inpainted(lambda x, level: x.tanh(), known, mask)
    path = resampling_path(GaussianDiffusion(1000).levels(9), 3, 2)
    last = last_of(resampled_trajectory(torch.randn(2, 1, 4, 4), path, denoise, SAMPLERS[name]))
    if name in ("ddpm", "ddim", "euler", "heun"):  # the others' last step rounds
        assert torch.equal(last * mask, (known * mask).expand_as(last))
    torch.testing.assert_close(last * mask, (known * mask).expand_as(last), rtol=0, atol=1e-6)
    assert not torch.isclose(last, known).all()


def test_a_mask_between_0_and_1_is_a_share():
    level, known = Level(0.0, 0.8, 0.6), torch.full((1, 4, 4), 0.5, dtype=torch.float64)
    got = inpainted(TWO_MODES.denoise, known, torch.full((1, 1, 4, 4), 0.25))(X, level)
    torch.testing.assert_close(got, 0.75 * TWO_MODES.denoise(X, level) + 0.25 * 0.5)


@pytest.mark.parametrize(
    ("mask", "sentence"),
    [
        (torch.ones(1, 4, 5), r"image's size \[4, 4\], got \[4, 5\]"),
        (torch.full((1, 4, 4), 1.5), r"in 0\.\.1, got 1\.5\.\.1\.5"),
        (torch.full((1, 4, 4), -1.0), r"in 0\.\.1, got -1\.\.-1"),
        (torch.full((1, 4, 4), float("nan")), r"in 0\.\.1, got nan"),
    ],
    ids=["size", "above", "below", "nan"],
)
def test_masks_that_are_refused(mask, sentence):
    with pytest.raises(InputError, match=sentence):
        inpainted(TWO_MODES.denoise, X[0], mask)


@pytest.mark.parametrize(
    ("known", "mask", "name"),
    [
        ((3, 1, 4, 4), (4, 4), "known image"),
        ((1, 4, 4), (4, 4), "known image"),
        ((2, 3, 4, 5), (4, 5), "known image"),
        ((1, 2, 3, 4, 4), (4, 4), "known image"),
        ((3, 4, 4), (3, 1, 4, 4), "mask"),
        ((3, 4, 4), (2, 4, 4), "mask"),
    ],
    ids=["other batch", "one channel for three", "other size", "five axes", "mask of another batch", "two channels"],
)
def test_what_would_spread_over_the_image_in_silence_is_refused(known, mask, name):
    x, got = torch.zeros(2, 3, 4, 4), known if name == "known image" else mask
    denoise = inpainted(lambda x, level: x, torch.zeros(known), torch.ones(mask))
    with pytest.raises(InputError, match=re.escape(f"the {name} must fit x [2, 3, 4, 4], got {list(got)}")):
        denoise(x, Level(0.0, 0.8, 0.6))


@pytest.mark.parametrize("mask", [(4, 4), (1, 4, 4), (3, 4, 4), (1, 1, 4, 4), (2, 1, 4, 4), (2, 3, 4, 4)])
@pytest.mark.parametrize("known", [(3, 4, 4), (1, 3, 4, 4), (2, 3, 4, 4)])
def test_one_image_or_mask_serves_all(known, mask):
    x = torch.zeros(2, 3, 4, 4)
    known = torch.rand(known, generator=torch.Generator().manual_seed(0))
    got = inpainted(lambda x, level: x, known, torch.ones(mask))(x, Level(0.0, 0.8, 0.6))
    assert torch.equal(got, known.expand(2, 3, 4, 4))


# ---- the path of resampling


def visits(steps, jump, repeats):
    """RePaint's own timesteps: steps - 1 is the noisiest level, 0 the cleanest noisy one, -1 the image."""
    return [steps - 1 - position for position in resampling_path(range(steps + 1), jump, repeats)]


def test_the_path_of_small_cases():
    assert visits(4, 1, 1) == [3, 2, 1, 0, -1]
    assert visits(4, 1, 2) == [3, 2, 3, 2, 1, 2, 1, 0, 1, 0, -1]
    assert visits(4, 2, 3) == [3, 2, 1, 0, 2, 1, 0, 2, 1, 0, -1]
    assert visits(6, 2, 2) == [5, 4, 3, 2, 4, 3, 2, 1, 0, 2, 1, 0, -1]
    assert visits(5, 2, 2) == [4, 3, 2, 4, 3, 2, 1, 0, 2, 1, 0, -1]


@pytest.mark.parametrize(("steps", "jump", "repeats"), [(250, 10, 10), (50, 5, 5), (7, 3, 2), (2, 1, 4)])
def test_the_path_is_repaints_schedule(steps, jump, repeats):
    """Lugmayr et al. 2022, Figure 9, with their upward steps drawn together into one jump."""
    budget = dict.fromkeys(range(0, steps - jump, jump), repeats - 1)
    t, expected = steps - 1, [steps - 1]
    while t >= 0:
        if budget.get(t, 0) > 0:
            budget[t] -= 1
            t += jump
        else:
            t -= 1
        expected.append(t)
    assert visits(steps, jump, repeats) == expected


def test_the_path_needs_room_to_jump():
    with pytest.raises(InputError, match=r"jump must be in 1\.\.3, got 4"):
        resampling_path(range(5), 4, 2)
    with pytest.raises(InputError, match=r"jump must be in 1\.\.3, got 0"):
        resampling_path(range(5), 0, 2)
    with pytest.raises(InputError, match="two steps or more, got 1"):
        resampling_path(range(2), 1, 2)
    with pytest.raises(InputError, match="repeats must be at least 1, got 0"):
        resampling_path(range(5), 1, 0)
    assert list(range(2)) == resampling_path(range(2), 10, 1)


@pytest.mark.parametrize("name", SAMPLERS)
def test_once_down_is_the_trajectory_bit_for_bit(name):
    levels = GaussianDiffusion(1000).levels(12)
    path = resampling_path(levels, 3, 1)
    one = list(resampled_trajectory(X, path, TWO_MODES.denoise, SAMPLERS[name], fixed_noise()))
    other = list(trajectory(X, levels, TWO_MODES.denoise, SAMPLERS[name], fixed_noise()))
    assert len(one) == len(other) == 12
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_wandering_up_adds_noise_and_forgets():
    low, high = log_snr_grid("vp", 1)[::-1]
    memories = []

    def step(x, now, nxt, denoise, noise, memory):
        memories.append(memory)
        return x, "seen"

    z = X.flip(-1)
    states = list(resampled_trajectory(X, [high, low, high, low, CLEAN], TWO_MODES.denoise, step, lambda x: z))
    assert memories == [None, None, "seen"]
    ratio = high.alpha / low.alpha
    torch.testing.assert_close(states[1], ratio * X + math.sqrt(high.sigma**2 - (ratio * low.sigma) ** 2) * z)
    with pytest.raises(InputError, match="no level twice"):
        list(resampled_trajectory(X, [high, high], TWO_MODES.denoise, DDIM))
    with pytest.raises(InputError, match="two levels"):
        list(resampled_trajectory(X, [high], TWO_MODES.denoise, DDIM))


# ---- an image to start from


@pytest.mark.parametrize(
    ("strength", "kept"), [(1, 10), (0.999, 10), (0.6, 6), (0.34, 3), (0.1, 1), (0.04, 1), (1e-9, 1)]
)
@pytest.mark.parametrize(
    "process", [GaussianDiffusion(1000), EDMProcess(), RectifiedFlow()], ids=["ddpm", "edm", "flow"]
)
def test_start_from_noises_to_the_level_it_denoises_from(process, strength, kept):
    levels, z = process.levels(10), X.flip(-1)
    x, rest = noised_start(X, levels, strength, lambda like: z)
    assert rest == levels[10 - kept :]
    torch.testing.assert_close(x, rest[0].alpha * X + rest[0].sigma * z, rtol=1e-12, atol=1e-12)
    if process.whole_times:  # and to what the network is told: t
        noised, _ = process.add_noise(X, torch.tensor([int(rest[0].t)]), z)
        torch.testing.assert_close(x, noised, rtol=1e-12, atol=1e-12)


def test_a_started_image_is_of_the_right_law():
    """Data in, data out: at every strength the variations of Gaussian data are Gaussian data."""
    (m,), (S,) = GAUSSIAN.means, GAUSSIAN.variances
    for strength in (0.1, 0.5, 1):
        noise = fixed_noise()
        x0 = m + math.sqrt(S) * noise(torch.empty(1, 1, 100, 100, dtype=torch.float64))
        x, levels = noised_start(x0, GaussianDiffusion(1000).levels(200), strength, noise)
        varied = last_of(trajectory(x, levels, GAUSSIAN.denoise, DDPM, noise))
        assert varied.mean().item() == pytest.approx(m, abs=4 * math.sqrt(S) / 100)
        assert varied.var().item() == pytest.approx(S, rel=0.08)
        assert not torch.allclose(varied, x0, atol=0.1)


@pytest.mark.parametrize("strength", [0, -0.5, 1.01, float("nan")])
def test_strength_is_checked(strength):
    with pytest.raises(InputError, match="strength must be above 0 and at most 1, got"):
        noised_start(X, GaussianDiffusion(10).levels(), strength, refuse)


# ---- slerp


def pair(dtype=torch.float64):
    noise = fixed_noise(3)
    like = torch.empty(3, 2, 4, 4, dtype=dtype)
    return noise(like), noise(like)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_slerp_hits_its_ends_exactly(dtype):
    a, b = pair(dtype)
    assert torch.equal(slerp(a, b, 0), a)
    assert torch.equal(slerp(a, b, 1), b)


def test_slerp_keeps_norms_and_turns_evenly():
    a, b = pair()
    size_a, size_b = a.flatten(1).norm(dim=1), b.flatten(1).norm(dim=1)
    whole = torch.acos((a * b).sum((1, 2, 3)) / (size_a * size_b))
    for share in (0.1, 0.5, 0.8):
        got = slerp(a, b, share)
        size = got.flatten(1).norm(dim=1)
        torch.testing.assert_close(size, (1 - share) * size_a + share * size_b)
        torch.testing.assert_close(torch.acos((a * got).sum((1, 2, 3)) / (size_a * size)), share * whole)
        torch.testing.assert_close(got[1:2], slerp(a[1:2], b[1:2], share))  # each image by itself
    torch.testing.assert_close(slerp(a, b, 0.3), slerp(b, a, 0.7))


def test_slerp_of_nearly_parallel_and_of_opposite_images():
    a, b = pair()
    near = a + 1e-9 * b
    torch.testing.assert_close(slerp(a, near, 0.5), (a + near) / 2, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(slerp(a, 3 * a, 0.5), 2 * a)
    assert torch.equal(slerp(0 * a, 0 * a, 0.5), 0 * a)
    with pytest.raises(InputError, match="opposite"):
        slerp(a, -a, 0.5)
    with pytest.raises(InputError, match=r"share must be in 0\.\.1, got 1\.2"):
        slerp(a, b, 1.2)


# ---- inversion


def round_trip_error(x, levels, refine, law):
    noise = invert(x, levels, law.denoise, refine)
    return (last_of(trajectory(noise, levels, law.denoise, DDIM, refuse)) - x).abs().max().item()


def quantiles(law, level):
    """16 even quantiles of the law of x at a level, float64 [1, 1, 4, 4]."""
    return torch.from_numpy(law.quantile(np.linspace(0.05, 0.95, 16).reshape(1, 1, 4, 4), level.alpha, level.sigma))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("law", [GAUSSIAN, TWO_MODES], ids=["gaussian", "two modes"])
def test_inversion_and_ddim_give_the_image_back(law, path):
    """The error is of order 2 + refine in the step, and none is left at the fixed point."""
    x = quantiles(law, log_snr_grid(path, 1)[-1])
    for refine in (0, 1, 2):
        errors = [round_trip_error(x, log_snr_grid(path, steps), refine, law) for steps in (100, 200, 400)]
        orders = [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]
        assert orders == pytest.approx([2 + refine] * 2, abs=0.15)
    assert round_trip_error(x, log_snr_grid(path, 50), 40, law) < 1e-12


@pytest.mark.parametrize(
    "process", [GaussianDiffusion(1000), EDMProcess(), RectifiedFlow()], ids=["ddpm", "edm", "flow"]
)
def test_inversion_from_the_clean_end(process):
    """On the processes' own grids, whose last step is to CLEAN: the image comes back."""
    levels = process.levels(60, "log_snr")
    assert round_trip_error(X, levels, 100, GAUSSIAN) < 1e-9
    assert round_trip_error(X, levels, 0, GAUSSIAN) > 1e-3


def test_inversion_reaches_pure_noise():
    """Zero terminal SNR: the last step back is to alpha = 0, where eps is all of x."""
    diffusion = GaussianDiffusion(1000, lambda T: zero_terminal_snr(linear_schedule(T)))
    denoise = Denoiser(GAUSSIAN.network(zero_snr_alpha_bar(1000), "v"), "v")
    levels = diffusion.levels(200, "log_snr")
    assert levels[0].alpha == 0
    noise = invert(X, levels, denoise, refine=40)
    back = last_of(trajectory(noise, levels, denoise, DDIM, refuse))
    torch.testing.assert_close(back, X, rtol=0, atol=1e-6)
    (m,), (S,) = GAUSSIAN.means, GAUSSIAN.variances
    assert (noise - (X - m) / math.sqrt(S)).abs().max() < 0.15  # the exact map, to first order


@pytest.mark.parametrize("path", PATHS)
def test_one_step_back_undoes_one_step(path):
    now, nxt = log_snr_grid(path, 40)[20:22]
    back = invert(X, [now, nxt], TWO_MODES.denoise, refine=60)
    torch.testing.assert_close(DDIM(back, now, nxt, TWO_MODES.denoise, refuse)[0], X, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("law", [GAUSSIAN, TWO_MODES], ids=["gaussian", "two modes"])
def test_inversion_is_the_probability_flow_map_in_the_limit(law, path):
    """x_noisy = F_noisy^-1(F_clean(x)), to first order in the step."""
    exact, x = (quantiles(law, level) for level in log_snr_grid(path, 1))
    errors = [
        (invert(x, log_snr_grid(path, steps), law.denoise, refine=5) - exact).abs().mean().item()
        for steps in (128, 256, 512)
    ]
    orders = [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]
    assert orders == pytest.approx([1, 1], abs=0.2)
    assert errors[-1] < 0.02


@pytest.mark.parametrize("spacing", ["trailing", "linspace", "karras"])
def test_inversion_on_a_grid_that_leaps_into_noise(spacing):
    """The cosine schedule ends on a step from half_log_snr -3 to -10: its noise must neither vanish nor grow."""
    levels = GaussianDiffusion(1000, cosine_schedule).levels(50, spacing)
    (m,), (S,) = GAUSSIAN.means, GAUSSIAN.variances
    exact = (X - m) / math.sqrt(S)
    noise = invert(X, levels, GAUSSIAN.denoise, refine=3)
    assert (noise - exact).abs().max() < 0.2 * exact.abs().max()
    assert round_trip_error(X, levels, 3, GAUSSIAN) < 0.01


def test_gaussian_data_becomes_its_noise_from_the_clean_end():
    """x_T = a m + sqrt(V_T / S) (x0 - m), on the whole chain."""
    levels = GaussianDiffusion(1000).levels()
    (m,), (S,) = GAUSSIAN.means, GAUSSIAN.variances
    a, s = levels[0].alpha, levels[0].sigma
    exact = a * m + math.sqrt((a**2 * S + s**2) / S) * (X - m)
    assert (invert(X, levels, GAUSSIAN.denoise, refine=10) - exact).abs().max() < 0.02


def test_how_often_inversion_calls_the_network():
    calls = []

    def denoise(x, level):
        calls.append(level)
        return TWO_MODES.denoise(x, level)

    levels = GaussianDiffusion(1000).levels(5)
    invert(X, levels, denoise, refine=2)
    assert calls == [level for level in levels[-2::-1] for _ in range(3)]


def test_what_inversion_refuses():
    levels = GaussianDiffusion(1000, lambda T: zero_terminal_snr(linear_schedule(T))).levels(1)
    with pytest.raises(InputError, match="one step from pure noise"):
        invert(X, levels, TWO_MODES.denoise)
    with pytest.raises(InputError, match="refine must be at least 0, got -1"):
        invert(X, log_snr_grid("vp", 3), TWO_MODES.denoise, -1)


def test_variations_use_the_last_levels_with_any_sampler_that_lands():
    """The noised image of a point law goes back to the point, from every strength and with every method."""
    for step in (*(SAMPLERS[name] for name in LANDING), partial(DDIM, eta=1)):
        x, levels = noised_start(X, GaussianDiffusion(1000).levels(8), 0.5, fixed_noise())
        point = last_of(trajectory(x, levels, lambda x, level: torch.full_like(x, 0.4), step, fixed_noise()))
        torch.testing.assert_close(point, torch.full_like(X, 0.4))
