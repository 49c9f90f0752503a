"""Flow maps against exact laws in float64, on three kinds of process: steps of any length, and the objective."""

import math
from functools import partial
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from torch import nn

from bytepixels import (
    CLEAN,
    Denoiser,
    EDMProcess,
    GaussianDiffusion,
    InputError,
    Level,
    RectifiedFlow,
    UNet,
    clipped,
    cosine_schedule,
    diffusion_loss,
    guided,
    inpainted,
    linear_schedule,
    trajectory,
    zero_terminal_snr,
)
from bytepixels.core.exact_denoisers import TWO_MODES, GaussianFlowMap
from bytepixels.core.flow_map import STAY, TO_CLEAN, draw_leaps, flow_map_step, ratio_at, weights_of_parts
from bytepixels.core.flow_map_loss import bootstrapped, flow_map_loss
from bytepixels.core.levels import way_between
from bytepixels.core.prediction import coefficients
from bytepixels.core.samplers import ddim_step
from tests.core import laws

F64 = torch.float64
MEAN, STD = 0.3, 0.5
EXACT = GaussianFlowMap(MEAN, STD)


def zero_snr(timesteps):
    return zero_terminal_snr(linear_schedule(timesteps))


PROCESSES = {
    "linear": GaussianDiffusion(1000),
    "cosine": GaussianDiffusion(1000, cosine_schedule),
    "zero_snr": GaussianDiffusion(1000, zero_snr),
    "edm": EDMProcess(),
    "flow": RectifiedFlow(),
}
EVERY = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
STEPS = pytest.mark.parametrize("steps", [1, 2, 4, 8])


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def noisy(z, level):
    """Gaussian data's x at a level, from how many standard deviations it is off."""
    return level.alpha * MEAN + math.hypot(level.alpha * STD, level.sigma) * z


def no_noise(x):
    raise AssertionError("no noise is to be drawn")


def times(process, count=5):
    """From the noisiest to a clean one."""
    return torch.tensor([level.t for level in process.levels(count)[:-1]]).to(
        torch.int64 if process.whole_times else F64
    )


class AsNetwork:
    """A map of Gaussian data as a network of a process: x, t and the way -> v. `estimate`(x, now, end) is D."""

    def __init__(self, process, estimate):
        self.process, self.estimate = process, estimate

    def __call__(self, x, t, label=None, destination=None):
        times = t.long() if self.process.whole_times else t.to(F64)
        rows = []
        for k in range(len(x)):
            alpha, sigma = (float(one) for one in self.process.alpha_sigma(times[k : k + 1], F64))
            now, sigma_data = Level(float(times[k]), alpha, sigma), self.process.sigma_data
            end = now.angle(sigma_data) - float(0 if destination is None else destination[k]) * math.pi / 2
            end = max(end, 0.0) if end > 1e-6 else 0.0  # what float32 made of the clean end
            c_in, c_skip, c_out = coefficients("v", alpha, sigma, sigma_data)
            x_t = x[k] / c_in
            rows.append((self.estimate(x_t, now, end) - c_skip * x_t) / c_out)
        return torch.stack(rows)


def exact(process):
    sigma_data = process.sigma_data

    def estimate(x, now, end):
        return EXACT(x, now, Level(0.0, math.cos(end), sigma_data * math.sin(end)))

    return AsNetwork(process, estimate)


# ---- the exact map, and steps along it


@EVERY
def test_the_denoiser_without_a_way_is_the_posterior_mean(process):
    for level in process.levels(4)[:-1]:
        x = noisy(noise(2, 1, 2, 3), level)
        expected = laws.GAUSSIAN.denoise(x, level)
        torch.testing.assert_close(EXACT(x, level), expected, rtol=0, atol=1e-13)
        torch.testing.assert_close(EXACT(x, level, level), expected, rtol=0, atol=1e-13)


@EVERY
@STEPS
def test_any_number_of_steps_is_exact(process, steps):
    """Path by path, and hence in every moment: each x keeps its distance from the mean in standard deviations."""
    levels, z = process.levels(steps), noise(3, 1, 2, 5)
    states = trajectory(noisy(z, levels[0]), levels, EXACT, flow_map_step, no_noise)
    for level, x in zip(levels[1:], states, strict=True):
        torch.testing.assert_close(x, noisy(z, level), rtol=0, atol=2e-14 * max(1, level.sigma))
    torch.testing.assert_close(x, MEAN + STD * z, rtol=0, atol=1e-13)


@EVERY
@STEPS
@pytest.mark.parametrize("renoise", [0.3, 1.0])
def test_fresh_noise_leaves_the_law_as_it_is(process, steps, renoise):
    """Each draw has a pixel to itself, so that the squares of the pixels add up to the variance."""
    levels = process.levels(steps)
    columns = iter(torch.eye(steps + 1, dtype=F64).view(-1, 1, 1, 1, steps + 1))
    x = noisy(next(columns), levels[0])
    *_, x = trajectory(x, levels, EXACT, partial(flow_map_step, renoise=renoise), lambda x: next(columns))
    assert ((x - MEAN) ** 2).sum().item() == pytest.approx(STD**2, rel=1e-12)
    assert len(list(columns)) == 1  # one draw a step, but none for the last


@EVERY
def test_the_map_is_consistent(process):
    """Through any level on the way: x arrives at the same place, and D is the weighted mean of its parts."""
    levels = [*process.levels(6, "linspace")[:-1], CLEAN]
    for now, via, nxt in combinations(levels, 3):
        x = noisy(noise(1, 1, 2, 2), now)
        half, _ = flow_map_step(x, now, via, EXACT, no_noise)
        straight, _ = flow_map_step(x, now, nxt, EXACT, no_noise)
        twice, _ = flow_map_step(half, via, nxt, EXACT, no_noise)
        torch.testing.assert_close(twice, straight, rtol=0, atol=1e-13 * max(1, now.sigma))
        angles = (torch.tensor(level.angle(process.sigma_data), dtype=F64) for level in (now, via, nxt))
        w, rest = weights_of_parts(*angles)
        assert float(w + rest) == pytest.approx(1, abs=1e-12)
        if now.alpha > 0 and nxt.sigma > 0:
            rho = [level.alpha / level.sigma for level in (now, via, nxt)]
            assert float(w) == pytest.approx((rho[1] - rho[0]) / (rho[2] - rho[0]), rel=1e-10)
        parts = w * EXACT(x, now, via) + rest * EXACT(half, via, nxt)
        torch.testing.assert_close(EXACT(x, now, nxt), parts, rtol=0, atol=1e-11)


@EVERY
def test_the_step_is_ddims_with_that_estimate(process):
    for now, nxt in pairwise(process.levels(4)):
        x = noisy(noise(2, 1, 3, 2), now)
        there, _ = flow_map_step(x, now, nxt, EXACT, no_noise)
        assert torch.equal(there, ddim_step(x, now, nxt, lambda x, level, to=nxt: EXACT(x, level, to), no_noise)[0])
        plain, _ = flow_map_step(x, now, nxt, lambda x, level, nxt: EXACT(x, level), no_noise)
        assert torch.equal(plain, ddim_step(x, now, nxt, EXACT, no_noise)[0])


@pytest.mark.parametrize("renoise", [-0.1, 1.1, math.nan])
def test_renoise_out_of_range_is_refused(renoise):
    levels = RectifiedFlow().levels(2)
    with pytest.raises(InputError, match="renoise"):
        flow_map_step(noise(1, 1, 2, 2), levels[0], levels[1], EXACT, no_noise, renoise=renoise)


# ---- destinations, from a sampler to the network


class Told:
    """A network that answers with the destination, and remembers it."""

    def __init__(self):
        self.destinations = []

    def __call__(self, x, t, label=None, destination=None):
        self.destinations.append(destination)
        shift = torch.zeros(len(x)) if label is None else label
        return x * 0.1 + (shift + destination).to(x.dtype).view(-1, 1, 1, 1)


@EVERY
def test_the_network_is_told_the_way(process):
    levels, network = process.levels(4), Told()
    denoise = Denoiser(network, "v", process.sigma_data)
    for now, nxt in pairwise(levels):
        flow_map_step(noisy(noise(2, 1, 2, 2), now), now, nxt, denoise, no_noise)
    ways = [float(way[0]) for way in network.destinations]
    angles = [math.atan2(level.sigma, level.alpha * process.sigma_data) for level in levels]
    np.testing.assert_allclose(ways, -np.diff(angles) / (math.pi / 2), rtol=1e-5)
    assert way_between(levels[0], CLEAN, process.sigma_data) == pytest.approx(1.0, abs=0.05)
    assert way_between(levels[1], levels[1], process.sigma_data) == 0


@pytest.mark.parametrize("other", [10, None], ids=["as one batch", "one by one"])
@pytest.mark.parametrize("interval", [(0.0, math.inf), (0.0, 1e-9)], ids=["everywhere", "nowhere"])
def test_guidance_and_other_wrappers_hand_the_destination_on(other, interval):
    network, label = Told(), torch.tensor([1, 2])
    one = Denoiser(network, "x0", label=label)
    two = Denoiser(network, "x0", label=None if other is None else torch.full((2,), other))
    now, nxt, _ = RectifiedFlow().levels(2)
    x = noise(2, 1, 2, 2)
    away, towards = two(x, now, nxt), one(x, now, nxt)
    expected = towards if interval[1] < 1 else away + 2 * (towards - away)
    wrapped = clipped(inpainted(guided(one, two, 2.0, interval), x[0], torch.zeros(1, 2, 2)), -100, 100)
    torch.testing.assert_close(wrapped(x, now, nxt), expected, rtol=1e-12, atol=1e-12)
    assert all(bool((way == way_between(now, nxt)).all()) for way in network.destinations)


def test_a_network_without_destinations_is_refused_in_a_sentence():
    network = UNet(1, 8, (1,), 1, attention=())
    levels = RectifiedFlow().levels(2)
    with pytest.raises(InputError, match="build it with destinations=True"):
        flow_map_step(torch.zeros(1, 1, 4, 4), levels[0], levels[1], Denoiser(network, "v"), no_noise)


# ---- the objective


def one_network(**changes):
    torch.manual_seed(3)
    network = UNet(**({"channels": 1, "width": 8, "multipliers": (1, 2), "blocks": 1, "dropout": 0.0} | changes))
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return network


@EVERY
@pytest.mark.parametrize("weighting", [None, "min_snr"])
def test_r_1_is_the_plain_loss_bit_for_bit(process, weighting):
    """Of the same draws, and for a fresh network with destinations of the plain network's very numbers."""
    plain = one_network(num_classes=3)
    other = UNet(1, 8, (1, 2), 1, dropout=0.0, num_classes=3, destinations=True)
    other.load_state_dict(plain.state_dict(), strict=False)
    x0, label = torch.randn(4, 1, 6, 4), torch.tensor([0, 1, 2, 3])
    torch.manual_seed(5)
    expected, t = diffusion_loss(plain, process, x0, "v", label, weighting=weighting)
    torch.manual_seed(5)
    found, same_t = flow_map_loss(other, process, x0, 1.0, "v", label, weighting=weighting)
    assert torch.equal(found, expected)
    assert torch.equal(t, same_t)
    found.sum().backward()
    expected.sum().backward()
    for name, parameter in plain.named_parameters():
        assert torch.equal(parameter.grad, other.get_parameter(name).grad), name


@EVERY
@pytest.mark.parametrize("r", [0.7, 1 / 4, 1 / 16])
def test_rows_that_stay_have_the_plain_loss_whatever_r(process, r):
    network, x0 = one_network(destinations=True), torch.randn(3, 1, 4, 4)
    t, eps = process.draw_times(3), torch.randn(3, 1, 4, 4)
    expected, _ = diffusion_loss(network, process, x0, "v", t=t, noise=eps)
    leap = torch.tensor([0.0, 1.0, 0.0])
    found, _ = flow_map_loss(network, process, x0, r, "v", t=t, noise=eps, leap=leap, power=0.75)
    assert torch.equal(found[[0, 2]], expected[[0, 2]])


def expectation(process, t, z):
    """E[x0 | x_t] and E[eps | x_t] of Gaussian data, which give the mean of any target that is linear in both."""
    alpha, sigma = process.alpha_sigma(t, F64)
    x_t = alpha * MEAN + (alpha**2 * STD**2 + sigma**2).sqrt() * z
    x0 = MEAN + alpha * STD**2 / (alpha**2 * STD**2 + sigma**2) * (x_t - alpha * MEAN)
    return x0, (x_t - alpha * x0) / sigma


def ddim_without_end(process, r):
    """D of infinitely many ddim steps, each a share r of what is left of the way: where the objective is least."""
    sigma_data = process.sigma_data

    def estimate(x, now, end):
        start, at = now, x
        while (left := now.angle(sigma_data) - end) > 1e-9:
            t = process.time_at(torch.tensor([now.angle(sigma_data) - r * left], dtype=F64))
            t = t.clamp(max=int(now.t) - 1).clamp(min=0) if process.whole_times else t
            alpha, sigma = (float(one) for one in process.alpha_sigma(t, F64))
            nxt = Level(float(t), alpha, sigma)
            if not end < nxt.angle(sigma_data) < now.angle(sigma_data):
                break
            at, now = ddim_step(at, now, nxt, EXACT, no_noise)[0], nxt
        last = Level(0.0, math.cos(end), sigma_data * math.sin(end))
        at, _ = ddim_step(at, now, last, EXACT, no_noise)
        ratio = last.sigma / start.sigma
        gain = last.alpha - ratio * start.alpha
        return EXACT(x, start) if gain < 1e-6 else (at - ratio * x) / gain

    return AsNetwork(process, estimate)


@EVERY
@pytest.mark.parametrize("leap", [0.4, 1.0])
@pytest.mark.parametrize("r", [1 / 2, 1 / 8])
def test_the_objective_is_least_for_ddim_without_end(process, leap, r):
    """An exact zero: Gaussian data's denoiser is linear, so the mean of the target is the target of the means."""
    t, z = times(process, 4), noise(4, 1, 1, 2)
    x0, eps = expectation(process, t, z)
    arguments = {"prediction": "v", "t": t, "noise": eps, "leap": torch.full((4,), leap)}
    losses, _ = flow_map_loss(ddim_without_end(process, r), process, x0, r, **arguments)
    assert losses.max() < 1e-10
    other, _ = flow_map_loss(ddim_without_end(process, r / 2), process, x0, r, **arguments)
    assert other.max() > 1e-6


@EVERY
@pytest.mark.parametrize("guidance", [1.5, 4.0])
def test_guidance_trained_in_is_least_for_the_guided_denoiser(process, guidance):
    """Gaussian data of a class among other data: an exact zero for U + guidance (E - U), and for nothing else."""
    blank = GaussianFlowMap(-0.4, 0.8)

    def network(scale):
        def call(x, t, label=None, destination=None):
            def estimate(x, now, end):
                clean = Level(0.0, math.cos(end), process.sigma_data * math.sin(end))
                without = blank(x, now, clean)
                return without if label is None else without + scale * (EXACT(x, now, clean) - without)

            return AsNetwork(process, estimate)(x, t, destination=destination)

        return call

    t, z = times(process, 4), noise(4, 1, 1, 2)
    x0, eps = expectation(process, t, z)
    arguments = {"label": torch.zeros(4, dtype=torch.int64), "t": t, "noise": eps, "leap": torch.zeros(4)}
    found = [
        flow_map_loss(network(scale), process, x0, 0.25, "v", **arguments, guidance=guidance)[0].max()
        for scale in (guidance, 1.0)
    ]
    assert found[0] < 1e-12
    assert found[1] > 1e-3
    elsewhere = {"unconditional": partial(network(1.0), label=None)}
    given, _ = flow_map_loss(network(guidance), process, x0, 0.25, "v", **arguments, guidance=guidance, **elsewhere)
    assert given.max() < 1e-12
    plain, _ = flow_map_loss(network(1.0), process, x0, 1.0, "v", **arguments, guidance=guidance)
    assert plain.max() < 1e-12  # r = 1 is plain training, whatever comes after it


def test_images_without_a_label_have_the_plain_target():
    """A quarter, say, whose label was dropped: there is nothing to guide towards."""
    network, x0, eps = one_network(num_classes=2, destinations=True), torch.randn(3, 1, 4, 4), torch.randn(3, 1, 4, 4)
    t, leap, label = torch.tensor([0.3, 0.5, 0.9]), torch.tensor([0.5, 1.0, 0.5]), torch.tensor([2, 2, 0])
    arguments = {"prediction": "v", "label": label, "t": t, "noise": eps, "leap": leap}
    plain, guided_in = (
        flow_map_loss(network, RectifiedFlow(), x0, 0.25, **arguments, guidance=guidance)[0] for guidance in (1.0, 3.0)
    )
    torch.testing.assert_close(guided_in[:2], plain[:2])
    assert abs(guided_in[2] - plain[2]) > 1e-4


ORDERS = {"vp": GaussianDiffusion(100_000, cosine_schedule), "edm": EDMProcess(), "flow": RectifiedFlow()}


@pytest.mark.parametrize("leap", [0.6, 1.0])
@pytest.mark.parametrize("name", ORDERS)
def test_the_exact_map_is_the_objectives_zero_as_r_falls(name, leap):
    """The target's mean misses it by O(r^2), so the gradient, divided by r, by O(r); the loss is a square over r."""
    process = ORDERS[name]
    t, z = times(process, 6)[1:3], noise(2, 1, 1, 2)
    x0, eps = expectation(process, t, z)
    losses = [
        flow_map_loss(exact(process), process, x0, r, "v", t=t, noise=eps, leap=torch.full((2,), leap))[0].sum()
        for r in (1 / 16, 1 / 32, 1 / 64)
    ]
    for wide, narrow in pairwise(losses):
        assert math.log2(wide / narrow) == pytest.approx(3, abs=0.2)


@EVERY
@pytest.mark.parametrize("r", [1 / 2, 1 / 16])
@pytest.mark.parametrize("leap", [0.1, 0.5, 1.0])
def test_on_the_flows_own_path_the_exact_map_is_a_zero_for_every_r(process, leap, r):
    """With D(x_t, t -> l) for x0, and for the noise what leads to the flow's x_l, the target is D(x_t, t -> s)."""
    sigma_data = process.sigma_data
    for t in times(process, 4).split(1):
        alpha, sigma = process.alpha_sigma(t, F64)
        now = Level(float(t), float(alpha), float(sigma))
        gap = torch.tensor([leap * now.angle(sigma_data)], dtype=F64)
        later = process.time_at(now.angle(sigma_data) - r * gap)
        later = torch.minimum(later, t - 1).clamp(min=0) if process.whole_times else later
        via = Level(float(later), *(float(one) for one in process.alpha_sigma(later, F64)))
        end = now.angle(sigma_data) - float(gap)
        if not end < via.angle(sigma_data) < now.angle(sigma_data):
            continue
        x_t = noisy(noise(1, 1, 1, 2), now)
        x0 = EXACT(x_t, now, via)
        eps = (x_t - now.alpha * x0) / now.sigma
        wanted, ratio = bootstrapped(exact(process), process, x0, r, "v", None, t, eps, gap)
        _, c_skip, c_out = coefficients("v", now.alpha, now.sigma, sigma_data)
        expected = EXACT(x_t, now, Level(0.0, math.cos(end), sigma_data * math.sin(end)))
        torch.testing.assert_close(c_skip * x_t + c_out * wanted, expected, rtol=0, atol=2e-6)  # t in float32
        assert float(ratio) == pytest.approx((now.angle(sigma_data) - via.angle(sigma_data)) / float(gap), rel=1e-9)
        assert process.whole_times or float(ratio) == pytest.approx(r, rel=1e-6)


@pytest.mark.parametrize("r", [1 / 16, 1 / 64])
def test_how_narrow_one_step_becomes(r):
    """The docstring's number, of data with variance sigma_data^2: D(x_T -> clean) is the sample."""
    process, x = RectifiedFlow(), torch.ones(1, dtype=F64)
    left, now = math.pi / 2, 1.0
    for _ in range(round(40 / r)):  # ddim on the circle multiplies by the cosine of its angle
        now, left = now * math.cos(r * left), left * (1 - r)
    assert now == pytest.approx(math.exp(-(math.pi**2) * r / (16 - 8 * r)), rel=0.002)
    assert 1 - now == pytest.approx({1 / 16: 0.04, 1 / 64: 0.01}[r], abs=0.003)
    assert process.sigma_data == float(x)


class Spy(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))
        self.calls = []

    def forward(self, x, t, label=None, dropout_keys=None, destination=None):
        self.calls.append((torch.is_grad_enabled(), dropout_keys, t, destination))
        return self.weight * x


@EVERY
def test_the_second_pass_drops_the_same_and_has_no_gradient(process):
    spy, keys = Spy(), torch.tensor([3, 4])
    flow_map_loss(partial(spy, dropout_keys=keys), process, torch.randn(2, 1, 3, 3), 0.5, "v", leap=torch.ones(2))
    (grad, first, later, short), (kept, second, t, whole) = spy.calls
    assert (grad, kept) == (False, True)
    assert first is keys
    assert second is keys
    assert (later <= t).all()
    assert (short <= whole).all()
    flow_map_loss(spy, process, torch.randn(2, 1, 3, 3), 1.0, "v")
    assert len(spy.calls) == 3  # r = 1 costs what plain training costs


def test_whole_times_step_back_by_one_at_least():
    """However small r: with l at t the target would be the output, and nothing would be learned."""
    process, spy, x0 = GaussianDiffusion(20, cosine_schedule), Spy(), torch.randn(3, 1, 2, 2)
    t, eps = torch.tensor([1, 10, 19]), torch.randn(3, 1, 2, 2)
    plain, _ = diffusion_loss(spy, process, x0, "v", t=t, noise=eps)
    losses, _ = flow_map_loss(spy, process, x0, 1e-3, "v", t=t, noise=eps, leap=torch.ones(3))
    assert spy.calls[1][2].tolist() == [0, 9, 18]
    assert not torch.isclose(losses, plain, rtol=1e-3).any()


def test_the_gradient_does_not_fade_with_r():
    process, x0, eps = RectifiedFlow(), noise(64, 1, 2, 2), noise(64, 1, 2, 2, seed=1)
    t, leap = torch.linspace(0.1, 1, 64, dtype=F64), torch.full((64,), 0.5)
    gradients = []
    for r in (1 / 4, 1 / 64, 1 / 1024):
        spy = Spy()
        flow_map_loss(spy, process, x0, r, "v", t=t, noise=eps, leap=leap)[0].mean().backward()
        gradients.append(float(spy.weight.grad))
    assert gradients[2] == pytest.approx(gradients[1], rel=0.05)
    assert gradients[1] == pytest.approx(gradients[0], rel=0.5)


def test_power_weighs_large_errors_down_where_r_is_below_1():
    process, x0, eps = RectifiedFlow(), torch.randn(8, 1, 2, 2), torch.randn(8, 1, 2, 2)
    arguments = {"prediction": "v", "t": torch.rand(8) * 0.9 + 0.1, "noise": eps, "leap": torch.full((8,), 0.5)}
    plain, _ = flow_map_loss(Spy(), process, x0, 0.25, **arguments)
    weighed, _ = flow_map_loss(Spy(), process, x0, 0.25, power=0.75, **arguments)
    square = plain.double() * 0.25 / 0.25**2
    torch.testing.assert_close(weighed.double(), plain.double() / (square + 1e-3) ** 0.75, rtol=1e-4, atol=0)


EDGES = {
    "one timestep": GaussianDiffusion(1, cosine_schedule),
    "two timesteps": GaussianDiffusion(2, cosine_schedule),
    "zero snr, few": GaussianDiffusion(20, zero_snr),
    **PROCESSES,
}


@pytest.mark.parametrize("name", EDGES)
@pytest.mark.parametrize("r", [1.0, 0.9, 1 / 16, 1e-4])
@pytest.mark.parametrize("prediction", ["v", "x0"])
def test_edges_are_finite(name, r, prediction):
    """Every pair of an end or a middle of the times with a leap, one image each, not square; in float32."""
    process, network = EDGES[name], one_network(destinations=True)
    if process.whole_times:
        t = torch.tensor([0, process.T // 2, process.T - 1])
    else:
        t = torch.tensor([level.t for level in process.levels(3)[:-1]])
    for leap in (0.0, 1e-7, 0.5, 1.0):
        losses = [
            flow_map_loss(network, process, torch.randn(1, 1, 2, 6), r, prediction, t=one, leap=torch.tensor([leap]))[0]
            for one in t.split(1)
        ]
        assert torch.cat(losses).isfinite().all()
        torch.cat(losses).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters() if parameter.grad is not None)


def test_one_timestep_has_the_plain_target():
    """No time lies between the only one and the clean end."""
    process, network, x0 = EDGES["one timestep"], Spy(), torch.randn(2, 1, 3, 3)
    t, eps = process.draw_times(2), torch.randn(2, 1, 3, 3)
    expected, _ = diffusion_loss(network, process, x0, "v", t=t, noise=eps)
    found, _ = flow_map_loss(network, process, x0, 0.1, "v", t=t, noise=eps, leap=torch.ones(2))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("r", [0.0, -1.0, 1.5, math.nan])
def test_r_out_of_range_is_refused(r):
    with pytest.raises(InputError, match="r must be above 0 and at most 1"):
        flow_map_loss(Spy(), RectifiedFlow(), torch.zeros(1, 1, 2, 2), r, "v")


def test_eps_is_refused_where_there_is_pure_noise():
    with pytest.raises(InputError, match="predict v or x0"):
        flow_map_loss(Spy(), RectifiedFlow(), torch.zeros(1, 1, 2, 2), 0.5, "eps")
    losses, _ = flow_map_loss(Spy(), PROCESSES["linear"], torch.zeros(1, 1, 2, 2), 0.5, "eps")
    assert losses.isfinite().all()


# ---- what a run draws, and its ratio


def test_leaps_stay_go_all_the_way_or_are_even_between():
    leap = draw_leaps(40_000, torch.Generator().manual_seed(0))
    assert leap.shape == (40_000,)
    assert float((leap == 0).float().mean()) == pytest.approx(STAY, abs=0.01)
    assert float((leap == 1).float().mean()) == pytest.approx(TO_CLEAN, abs=0.01)
    rest = leap[(leap > 0) & (leap < 1)].sort().values
    assert float((rest - torch.linspace(0, 1, len(rest))).abs().max()) < 0.02


def test_the_ratio_falls_from_1_to_its_floor():
    assert [ratio_at(share) for share in (0.0, 0.2, 0.5)] == [1, 1, 1]
    assert ratio_at(0.75) == pytest.approx(1 / 4)
    assert ratio_at(1.0) == pytest.approx(1 / 16)
    assert ratio_at(1.0, floor=1 / 64, plain=1.0) == 1
    assert ratio_at(0.5, floor=1 / 64, plain=0.0) == pytest.approx(1 / 8)
    for wrong in ({"progress": 1.1}, {"progress": 0.7, "floor": 0.0}, {"progress": 0.7, "plain": -0.1}):
        with pytest.raises(InputError):
            ratio_at(**wrong)


@EVERY
def test_time_at_comes_back_from_every_time(process):
    t = process.draw_times(200)
    back = process.time_at(process.angle(t, F64))
    torch.testing.assert_close(back.to(t.dtype), t, rtol=0, atol=0 if process.whole_times else 1e-6)
    level = process.levels(3)[1]
    at = torch.tensor([level.t]).to(t.dtype)
    assert float(process.angle(at, F64)) == pytest.approx(level.angle(process.sigma_data), abs=1e-6)


# ---- a network that learns it


class Tiny(nn.Module):
    """x, t and the way -> v, of images that are one number."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(3, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1))

    def forward(self, x, t, label=None, destination=None):
        way = torch.zeros_like(t) if destination is None else destination
        return self.layers(torch.stack([x.flatten(), t, way], dim=1)).view_as(x)


def taught(floor, steps):
    """A tiny network, taught two modes; a step with r < 1 counts as 1.4 steps, as its second pass costs."""
    process, network = RectifiedFlow(), Tiny()
    optimizer = torch.optim.Adam(network.parameters(), lr=4e-3)
    generator, spent = torch.Generator().manual_seed(1), 0.0
    means, stds = torch.tensor(TWO_MODES.means), torch.tensor(TWO_MODES.variances).sqrt()
    while spent < steps:
        which = torch.multinomial(torch.tensor(TWO_MODES.weights), 128, replacement=True, generator=generator)
        x0 = (means[which] + stds[which] * torch.randn(128, generator=generator)).view(-1, 1, 1, 1)
        r = ratio_at(spent / steps, floor=floor)
        optimizer.param_groups[0]["lr"] = 4e-3 * (1 - spent / steps)
        flow_map_loss(network, process, x0, r, "v")[0].mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        spent += 1.0 if r == 1 else 1.4
    return Denoiser(network, "v")


def test_one_step_of_a_flow_map_is_nearer_than_one_of_a_plain_model_of_the_same_cost():
    process = RectifiedFlow()
    x = TWO_MODES.quantile(torch.linspace(0.02, 0.98, 200, dtype=F64), process.levels(1)[0])
    wanted = TWO_MODES.flow(x, process.levels(1)[0], CLEAN)
    torch.manual_seed(2)
    error = {}
    for name, floor, step in (("plain", 1.0, ddim_step), ("flow map", 1 / 16, flow_map_step)):
        denoise = taught(floor, 500)
        for steps in (1, 2):
            start = x.float().view(-1, 1, 1, 1)
            *_, end = trajectory(start, process.levels(steps), denoise, step, no_noise)
            error[name, steps] = float((end.flatten() - wanted).square().mean().sqrt())
    assert error["plain", 1] > 0.7  # one ddim step leads to the mean
    assert error["flow map", 1] < error["plain", 1] / 2
    assert error["flow map", 2] < error["plain", 2]
