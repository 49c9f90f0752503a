"""The forward process against its closed form in numpy, and every grid of levels against its definition."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from scipy.stats import chisquare, kstest

from bytepixels import (
    CLEAN,
    SPACINGS,
    GaussianDiffusion,
    InputError,
    Level,
    cosine_schedule,
    linear_schedule,
    zero_terminal_snr,
)
from tests.core.laws import linear_alpha_bar, zero_snr_alpha_bar


def zero_snr_linear(T):
    return zero_terminal_snr(linear_schedule(T))


def images(batch, dtype=torch.float32, side=8):
    return torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(1)).mul(2).sub(1).to(dtype)


def closed_form(x0, t, noise, T):
    """x_t in float64 numpy."""
    alpha_bar = linear_alpha_bar(T)[np.asarray(t)].reshape(-1, 1, 1, 1)
    return np.sqrt(alpha_bar) * x0.double().numpy() + np.sqrt(1 - alpha_bar) * noise.double().numpy()


# ---- the tables and the noise


@pytest.mark.parametrize("T", [1, 2, 10, 1000, 4000])
def test_tables(T):
    diffusion = GaussianDiffusion(T)
    assert diffusion.T == T
    for table, expected in (
        (diffusion.betas, np.linspace(1e-4, 0.02, T)),
        (diffusion.alphas, 1 - np.linspace(1e-4, 0.02, T)),
        (diffusion.alpha_bar, linear_alpha_bar(T)),
    ):
        assert table.dtype == torch.float64
        np.testing.assert_allclose(table, expected, rtol=1e-12)


def test_one_step_at_a_time_is_the_closed_form():
    """q(x_t | x_{t-1}) = N(sqrt(1 - b_t) x_{t-1}, b_t), composed, has the mean and variance of q(x_t | x_0)."""
    diffusion = GaussianDiffusion(1000, cosine_schedule)
    alpha, sigma = (table.flatten().numpy() for table in diffusion.alpha_sigma(torch.arange(1000), torch.float64))
    mean, variance = 1.0, 0.0
    for t, beta in enumerate(diffusion.betas.tolist()):
        mean, variance = np.sqrt(1 - beta) * mean, (1 - beta) * variance + beta
        assert alpha[t] == pytest.approx(mean, rel=1e-9)
        assert sigma[t] ** 2 == pytest.approx(variance, rel=1e-9)


@pytest.mark.parametrize("T", [1, 50, 1000])
@pytest.mark.parametrize("given", [False, True])
def test_add_noise_is_the_formula_in_float64(T, given):
    t = torch.tensor([0, T // 2, T - 1, T // 3])
    x0 = images(4, torch.float64)
    noise = torch.randn_like(x0) if given else None
    x_t, used = GaussianDiffusion(T).add_noise(x0, t, noise)
    assert x_t.dtype == used.dtype == torch.float64
    assert noise is None or torch.equal(used, noise)
    np.testing.assert_allclose(x_t, closed_form(x0, t, used, T), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_precision_is_lost_once_at_the_end(dtype):
    """The tables stay exact: the answer is the float64 answer, rounded to dtype."""
    t = torch.arange(0, 1000, 10)
    x0 = images(100, dtype)
    x_t, noise = GaussianDiffusion(1000).add_noise(x0, t)
    assert x_t.dtype == noise.dtype == dtype
    exact = closed_form(x0, t, noise, 1000)
    half_ulp = np.abs(exact) * torch.finfo(dtype).eps / 2
    assert (np.abs(x_t.double().numpy() - exact) <= 1.01 * half_ulp + 4e-7).all()


@pytest.mark.parametrize("t", [torch.tensor([7, 2]), torch.tensor([7, 2], dtype=torch.int32), [7, 2]])
def test_any_integers_are_timesteps(t):
    x0 = images(2)
    x_t, noise = GaussianDiffusion(10).add_noise(x0, t)
    np.testing.assert_allclose(x_t, closed_form(x0, [7, 2], noise, 10), atol=1e-6)


def test_batch_of_one_and_process_of_one_step():
    x0 = images(1)
    x_t, noise = GaussianDiffusion(1).add_noise(x0, torch.tensor([0]))
    assert x_t.shape == noise.shape == x0.shape
    np.testing.assert_allclose(x_t, closed_form(x0, [0], noise, 1), atol=1e-6)


def test_the_noise_is_drawn_anew_and_normal():
    x0 = torch.full((200, 3, 8, 8), 0.5)
    torch.manual_seed(0)
    x_t, noise = GaussianDiffusion(1000).add_noise(x0, torch.full((200,), 300))
    assert kstest(noise.flatten().numpy(), "norm").pvalue > 1e-3
    alpha_bar = linear_alpha_bar(1000)[300]
    standard = (x_t.double().numpy() - 0.5 * np.sqrt(alpha_bar)) / np.sqrt(1 - alpha_bar)
    assert kstest(standard.flatten(), "norm").pvalue > 1e-3
    assert not torch.equal(noise, GaussianDiffusion(1000).add_noise(x0, torch.full((200,), 300))[1])


@pytest.mark.parametrize("t", [[-1, 3], [3, 10], [1000, 3]])
def test_times_out_of_range_are_refused(t):
    with pytest.raises(InputError, match=r"t must be in 0\.\.9"):
        GaussianDiffusion(10).add_noise(images(2), torch.tensor(t))


@pytest.mark.parametrize(
    ("x0", "t", "noise"),
    [
        (torch.full((2, 3, 4, 4), 200, dtype=torch.uint8), [1, 2], None),  # forgot the codec
        (images(2), [1.5, 2.0], None),
        (images(1), [1, 2, 3], None),
        (images(2), [1, 2], torch.zeros(2, 1, 8, 8)),
        (images(1)[0], [1, 2, 3], None),  # no batch axis
    ],
    ids=["uint8", "fractional t", "one image, three t", "noise of another shape", "no batch"],
)
def test_what_cannot_be_meant_is_refused(x0, t, noise):
    with pytest.raises(InputError):
        GaussianDiffusion(10).add_noise(x0, torch.tensor(t), noise)


def test_alpha_sigma_have_the_shape_of_a_batch_of_images():
    alpha, sigma = GaussianDiffusion(10).alpha_sigma(torch.tensor([0, 9]))
    assert alpha.shape == sigma.shape == (2, 1, 1, 1)
    assert alpha.dtype == sigma.dtype == torch.float32
    np.testing.assert_allclose(alpha.flatten(), np.sqrt(linear_alpha_bar(10)[[0, 9]]), rtol=1e-6)


def test_times_are_uniform_over_all_timesteps():
    t = GaussianDiffusion(7).draw_times(7000, torch.Generator().manual_seed(0))
    assert t.dtype == torch.int64
    assert chisquare(np.bincount(t, minlength=7)).pvalue > 1e-3
    assert torch.equal(t, GaussianDiffusion(7).draw_times(7000, torch.Generator().manual_seed(0)))
    assert GaussianDiffusion(1).draw_times(3).tolist() == [0, 0, 0]


# ---- how little of the image may be left


def constant_betas(left):
    """Fifty alike, after which sqrt(alpha_bar) is `left`."""
    return lambda T: torch.full((T,), 1 - left ** (2 / T), dtype=torch.float64)


@pytest.mark.parametrize(
    ("T", "schedule", "alpha_bar"),
    [
        (7000, linear_schedule, linear_alpha_bar(7000)[-1]),
        (7000, zero_snr_linear, zero_snr_alpha_bar(7000)[-2]),  # the last is 0, which float32 can hold
        (50, constant_betas(0.99e-15), 0.99e-15**2),
    ],
    ids=["linear", "zero terminal snr", "just below"],
)
def test_a_schedule_that_leaves_less_than_float32_can_hold_is_refused(T, schedule, alpha_bar):
    sentence = f"{T} timesteps of this schedule leave {alpha_bar**0.5:.1e} of an image .* less than 1e-15, which"
    with pytest.raises(InputError, match=sentence):
        GaussianDiffusion(T, schedule)


@pytest.mark.parametrize(
    ("T", "schedule"),
    [(6000, linear_schedule), (50, constant_betas(1.01e-15)), (20_000, cosine_schedule), (1, zero_snr_linear)],
    ids=["linear", "just above", "cosine", "pure noise"],
)
def test_what_float32_holds_is_not(T, schedule):
    alpha, _ = GaussianDiffusion(T, schedule).alpha_sigma(torch.tensor([T - 1]))
    expected = np.sqrt(np.prod(1 - schedule(T).numpy()))
    assert alpha.item() == pytest.approx(expected, rel=1e-6, abs=0)


# ---- levels

COUNTS_OF_1000 = [*range(1, 34), *range(40, 1000, 21), 500, 501, 998, 999, 1000]


GRIDS = [(spacing, linear_schedule) for spacing in SPACINGS]
GRIDS += [(spacing, other) for spacing in ("log_snr", "karras") for other in (cosine_schedule, zero_snr_linear)]


@pytest.mark.parametrize(
    ("T", "counts"),
    [
        (1, [1]),
        (7, range(1, 8)),
        (50, range(1, 51)),
        (1000, COUNTS_OF_1000),
    ],
)
@pytest.mark.parametrize(("spacing", "schedule"), GRIDS)
def test_every_number_of_steps_gives_as_many_different_levels(spacing, schedule, T, counts):
    diffusion = GaussianDiffusion(T, schedule)
    alpha_bar = diffusion.alpha_bar.numpy()
    for steps in counts:
        levels = diffusion.levels(steps, spacing)
        t = np.array([level.t for level in levels[:-1]])
        assert len(levels) == steps + 1
        assert levels[-1] == CLEAN
        assert all(type(number) is float for level in levels for number in level)
        assert (t == t.astype(int)).all()
        assert (np.diff(t) < 0).all()
        assert t[-1] >= 0
        assert t[0] <= T - 1
        if spacing == "trailing" or (steps > 1 and spacing != "leading"):
            assert t[0] == T - 1
        if steps > 1 and spacing in ("linspace", "quadratic", "log_snr", "karras"):
            assert t[-1] == 0
        index = t.astype(int)
        np.testing.assert_allclose([level.alpha**2 for level in levels[:-1]], alpha_bar[index], rtol=1e-12)
        np.testing.assert_allclose([level.sigma**2 for level in levels[:-1]], 1 - alpha_bar[index], rtol=1e-12)


def times(levels):
    return [int(level.t) for level in levels[:-1]]


def test_by_default_every_timestep_is_used():
    assert times(GaussianDiffusion(50).levels()) == list(range(49, -1, -1))


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 16, 50, 333, 500, 600, 999, 1000])
def test_leading_is_that_of_ddims_code(steps):
    expected = [i * (1000 // steps) for i in range(steps)][::-1]
    assert times(GaussianDiffusion(1000).levels(steps, "leading")) == expected


@pytest.mark.parametrize("steps", [2, 3, 7, 10, 16, 30, 50, 64, 128, 250, 333, 500, 1000])
@pytest.mark.parametrize("spacing", ["trailing", "leading", "linspace"])
def test_spacings_are_those_of_diffusers(spacing, steps):
    for scheduler in (DDIMScheduler, DDPMScheduler):
        theirs = scheduler(1000, timestep_spacing=spacing)
        theirs.set_timesteps(steps)
        assert times(GaussianDiffusion(1000).levels(steps, spacing)) == theirs.timesteps.tolist()


@pytest.mark.parametrize("steps", [5, 10, 20])
def test_quadratic_is_even_in_the_root_of_t(steps):
    expected = np.round(np.linspace(np.sqrt(999), 0, steps) ** 2)
    assert times(GaussianDiffusion(1000).levels(steps, "quadratic")) == expected.tolist()


@pytest.mark.parametrize(
    ("spacing", "measure"),
    [("log_snr", lambda a: np.log(a / (1 - a)) / 2), ("karras", lambda a: ((1 - a) / a) ** (1 / 14))],
)
@pytest.mark.parametrize("steps", [3, 8, 15])
def test_noise_spacings_are_even_to_within_half_a_timestep(spacing, measure, steps):
    """The wanted value lies between the middles of the chosen timestep and its two neighbours."""
    along = measure(linear_alpha_bar(1000))
    chosen = np.array(times(GaussianDiffusion(1000).levels(steps, spacing)))
    wanted = np.linspace(along[-1], along[0], steps)
    below = (along[np.maximum(chosen - 1, 0)] + along[chosen]) / 2
    above = (along[np.minimum(chosen + 1, 999)] + along[chosen]) / 2
    assert (np.minimum(below, above) - 1e-9 <= wanted).all()
    assert (wanted <= np.maximum(below, above) + 1e-9).all()


def test_zero_terminal_snr_starts_at_pure_noise():
    levels = GaussianDiffusion(1000, zero_snr_linear).levels(10, "log_snr")
    assert levels[0] == Level(999.0, 0.0, 1.0)
    assert levels[0].half_log_snr == -np.inf
    # the rest is even in what is finite
    along = np.array([level.half_log_snr for level in levels[1:-1]])
    expected = zero_snr_alpha_bar(1000)
    assert along[-1] == pytest.approx(np.log(expected[0] / (1 - expected[0])) / 2, rel=1e-9)
    assert np.ptp(np.diff(along)) < 0.5


def test_half_log_snr():
    assert Level(0.0, 0.6, 0.8).half_log_snr == pytest.approx(np.log(0.75))
    assert CLEAN.half_log_snr == np.inf
    assert CLEAN == (0.0, 1.0, 0.0)


def test_explicit_times():
    levels = GaussianDiffusion(1000).levels(times=[900, 20, 3])
    assert times(levels) == [900, 20, 3]
    assert levels[-1] == CLEAN
    assert levels[1].alpha == pytest.approx(np.sqrt(linear_alpha_bar(1000)[20]), rel=1e-12)
    for same in ([900.0, 20.0, 3.0], np.array([900, 20, 3]), torch.tensor([900, 20, 3])):
        assert GaussianDiffusion(1000).levels(steps=3, times=same) == levels


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"times": []}, r"times must be whole numbers in 0\.\.9"),
        ({"times": [10, 3]}, r"times must be whole numbers in 0\.\.9"),
        ({"times": [3, -1]}, r"times must be whole numbers in 0\.\.9"),
        ({"times": [3.5]}, r"times must be whole numbers in 0\.\.9"),
        ({"times": [float("nan")]}, r"times must be whole numbers in 0\.\.9"),
        ({"times": [3, 5]}, "descend"),
        ({"times": [5, 5]}, "descend"),
        ({"times": [5, 3], "steps": 3}, "steps is 3 but 2 times"),
        ({"steps": 0}, r"steps must be in 1\.\.10, got 0"),
        ({"steps": 11}, r"steps must be in 1\.\.10, got 11"),
        ({"steps": 2.5}, r"steps must be a whole number, got 2\.5"),
        ({"steps": float("nan")}, "steps must be .*, got nan"),
        ({"steps": float("inf")}, "steps must be .*, got inf"),
        ({"steps": 3, "spacing": "trailling"}, "did you mean 'trailing'"),
        ({"times": [3], "spacing": "trailling"}, "did you mean 'trailing'"),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused_in_one_sentence(arguments, message):
    with pytest.raises(InputError, match=message) as error:
        GaussianDiffusion(10).levels(**arguments)
    assert "\n" not in str(error.value)
