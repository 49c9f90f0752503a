"""simple, hybrid and vlb, fixed and learned variance: the terms, their sum, their gradients, and what goes together."""

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from bytepixels import (
    GaussianDiffusion,
    InputError,
    cosine_schedule,
    diffusion_loss,
    linear_schedule,
    zero_terminal_snr,
)
from bytepixels.build import build_network, build_process
from bytepixels.codec.codec import PixelCodec
from bytepixels.config.diffusion import ProcessConfig
from bytepixels.config.network import NetworkConfig
from bytepixels.config.run import Config
from bytepixels.config.sampling import SampleConfig
from bytepixels.config.training import TrainConfig
from bytepixels.core.gaussian_diffusion import EDMProcess, RectifiedFlow
from bytepixels.core.objectives import HYBRID_WEIGHT
from bytepixels.core.prediction import PREDICTIONS
from bytepixels.randomness import TIMES, seeded
from bytepixels.registries import OBJECTIVES, WEIGHTINGS
from bytepixels.training.diffusion_task import build_loss, build_times
from bytepixels.training.loop import TrainState, train_step
from tests.core.laws import GAUSSIAN, linear_alpha_bar

CPU = torch.device("cpu")
T = 20


def images(n, seed=0, dtype=torch.float64):
    """[n, 1, 3, 3] with values on the 256 bins."""
    generator = torch.Generator().manual_seed(seed)
    return PixelCodec().to_model(torch.randint(256, (n, 1, 3, 3), generator=generator, dtype=torch.uint8)).to(dtype)


def network(x, t):
    """Reads x and t; not exact, so that every term of the bound is there."""
    return 0.8 * x.sin() + (t / 10).sin().to(x.dtype).view(-1, 1, 1, 1)


def learned(x, t):
    """The same, and a fraction in -1..1."""
    return torch.cat([network(x, t), (3 * x + t.to(x.dtype).view(-1, 1, 1, 1)).cos()], dim=1)


def literal_bound(prediction, x0, noise, variance):
    """Every term in bits per dimension, [T, B], from betas in numpy and torch's own normals."""
    beta, abar = np.linspace(1e-4, 0.02, T), linear_alpha_bar(T)
    terms = []
    for t in range(T):
        a, s, before = math.sqrt(abar[t]), math.sqrt(1 - abar[t]), abar[t - 1] if t else 1.0
        x_t = a * x0 + s * noise
        output, *fraction = (variance or network)(x_t, torch.full((len(x0),), float(t))).split(1, dim=1)
        estimate = {"eps": (x_t - s * output) / a, "x0": output, "v": a * x_t - s * output}[prediction]
        small = (1 - before) / (1 - abar[t]) * beta[t] if t else (1 - abar[0]) / (1 - abar[1]) * beta[1]
        std = torch.full_like(x0, math.sqrt(beta[t]))
        if fraction:
            share = (fraction[0] + 1) / 2
            std = torch.exp((share * math.log(beta[t]) + (1 - share) * math.log(small)) / 2)
        if t:
            pull = math.sqrt(before) * beta[t] / (1 - abar[t])
            keep = math.sqrt(1 - beta[t]) * (1 - before) / (1 - abar[t])
            q = Normal(keep * x_t + pull * x0, math.sqrt(small))
            nats = kl_divergence(q, Normal(keep * x_t + pull * estimate, std))
        else:
            p = Normal(estimate, std)
            upper = torch.where(x0 > 0.999, 1.0, p.cdf(x0 + 1 / 255))
            lower = torch.where(x0 < -0.999, 0.0, p.cdf(x0 - 1 / 255))
            nats = -torch.log(upper - lower)
        terms.append(nats.mean(dim=(1, 2, 3)) / math.log(2))
    return torch.stack(terms)


@pytest.mark.parametrize("variance", [None, learned], ids=["fixed", "learned"])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_mean_of_vlb_over_the_times_is_the_sum_of_the_terms(prediction, variance):
    """T times a term at every t, from the papers' formulas; with one draw of noise all along."""
    x0 = images(2)
    x0 = 0.02 * x0 if prediction == "x0" else x0  # keeps L_0 within reach of a difference of cdfs
    x0 = ((x0 + 1) * 127.5).round() / 127.5 - 1
    noise = torch.randn(x0.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    process, expected = GaussianDiffusion(T), literal_bound(prediction, x0, noise, variance)
    got = torch.stack([
        diffusion_loss(
            variance or network, process, x0, prediction, t=torch.full((2,), t), noise=noise, objective="vlb"
        )[0]
        for t in range(T)
    ])  # fmt: skip
    finite = expected.isfinite()  # a literal difference of cdfs is 0 in the far tail
    assert finite[1:].all()
    torch.testing.assert_close(got[finite], T * expected[finite], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(got[1:].sum() / T, expected[1:].sum(), rtol=1e-6, atol=0)
    together, _ = diffusion_loss(
        variance or network, process, x0, prediction, t=torch.tensor([0, 13]), noise=noise, objective="vlb"
    )
    torch.testing.assert_close(together, torch.stack([got[0, 0], got[13, 1]]), rtol=1e-9, atol=0)


@pytest.mark.parametrize("prediction", ["eps", "v"])
@pytest.mark.parametrize("schedule", [linear_schedule, cosine_schedule])
def test_float32_is_enough_for_thousands_of_steps(schedule, prediction):
    """T = 4000, where neighbouring levels differ by 1e-8: the posterior is tabled in float64, and rounded once."""
    process, t = GaussianDiffusion(4000, schedule), torch.tensor([0, 1, 2, 10, 100, 1000, 2000, 3000, 3900, 3998, 3999])
    x0, noise = images(len(t)), torch.randn(len(t), 1, 3, 3, generator=torch.Generator().manual_seed(1))
    given = {"prediction": prediction, "t": t, "objective": "vlb"}

    def exact_but_for_a_tenth(x, t):  # at every level
        alpha, sigma = process.alpha_sigma(t.long(), x.dtype)
        wanted = noise.to(x.dtype) if prediction == "eps" else alpha * noise - sigma * x0.to(x.dtype)
        fraction = (9 * noise.to(x.dtype) + t.to(x.dtype).view(-1, 1, 1, 1)).cos()
        return torch.cat([wanted + 0.1 * (7 * noise.to(x.dtype)).cos(), fraction], dim=1)

    fine, _ = diffusion_loss(exact_but_for_a_tenth, process, x0, noise=noise.double(), **given)
    coarse, _ = diffusion_loss(exact_but_for_a_tenth, process, x0.float(), noise=noise, **given)
    assert coarse.dtype == torch.float32
    assert (fine > 0).all()
    torch.testing.assert_close(coarse.double(), fine, rtol=1e-3, atol=2e-4)  # bits in the sum of all 4000 terms


# ---- gradients of hybrid


@pytest.mark.parametrize("weighting", [None, "min_snr"])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_hybrid_trains_the_mean_by_simple_and_the_variance_by_the_bound(prediction, weighting):
    """Nichol & Dhariwal 2021, eq. 16 and the stop-gradient before it."""
    x0, t = images(4), torch.tensor([0, 1, 7, 19])
    noise = torch.randn(x0.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    output = torch.randn(4, 2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).clamp(-0.9, 0.9)

    def loss_and_gradient(objective, halves, weighting=None):
        leaf = output.clone().requires_grad_()
        loss, _ = diffusion_loss(
            lambda x, t: leaf[:, :halves],
            GaussianDiffusion(T),
            x0,
            prediction,
            t=t,
            noise=noise,
            weighting=weighting,
            objective=objective,
        )
        return loss.detach(), torch.autograd.grad(loss.sum(), leaf)[0]

    simple, by_simple = loss_and_gradient("simple", 1, weighting)
    bound, by_bound = loss_and_gradient("vlb", 2)
    hybrid, by_hybrid = loss_and_gradient("hybrid", 2, weighting)
    assert HYBRID_WEIGHT == 0.001
    torch.testing.assert_close(hybrid, simple + 0.001 * bound, rtol=1e-12, atol=0)
    torch.testing.assert_close(by_hybrid[:, :1], by_simple[:, :1], rtol=1e-12, atol=0)
    torch.testing.assert_close(by_hybrid[:, 1:], 0.001 * by_bound[:, 1:], rtol=1e-12, atol=0)
    assert by_simple[:, :1].abs().min() > 0
    assert by_bound.abs().amax(dim=(2, 3)).min() > 0  # vlb trains both


def test_a_variance_beyond_its_range_is_held_at_the_end():
    """fraction -1 is beta~ and 1 is beta; beyond them nothing changes."""
    x0, t = images(2), torch.tensor([3, 9])
    noise, process = torch.zeros_like(x0), GaussianDiffusion(T)

    def bound(fraction):
        model = lambda x, t: torch.cat([network(x, t), torch.full_like(x, fraction)], dim=1)  # noqa: E731
        return diffusion_loss(model, process, x0, t=t, noise=noise, objective="vlb")[0]

    fixed, _ = diffusion_loss(network, process, x0, t=t, noise=noise, objective="vlb")
    torch.testing.assert_close(bound(1.0), fixed, rtol=1e-12, atol=0)
    assert torch.equal(bound(1.0), bound(7.0))
    assert torch.equal(bound(-1.0), bound(-7.0))
    assert (bound(-1.0) - bound(0.0)).abs().min() > 0.01
    assert (bound(0.0) - bound(1.0)).abs().min() > 0.01


class LearnedVariance(nn.Module):
    """The exact mean for Gaussian data, and one fraction for every timestep, to be learned."""

    def __init__(self, alpha_bar):
        super().__init__()
        self.exact = GAUSSIAN.network(alpha_bar, "eps")
        self.fraction = nn.Parameter(torch.zeros(len(alpha_bar), dtype=torch.float64))

    def forward(self, x, t):
        chosen = self.fraction[t.long()].view(-1, 1, 1, 1).expand_as(x)
        return torch.cat([self.exact(x, t), chosen], dim=1)


@pytest.mark.parametrize("objective", ["vlb", "hybrid"])
def test_learning_finds_the_best_variance(objective):
    """Gaussian data N(m, S): s^2 = beta~ + c^2 mmse, in closed form; neither of the fixed ones is near it."""
    (m,), (S,) = GAUSSIAN.means, GAUSSIAN.variances
    timesteps, each = 8, 20
    process = GaussianDiffusion(timesteps, lambda n: torch.linspace(0.05, 0.5, n, dtype=torch.float64))
    beta, abar = process.betas.numpy(), process.alpha_bar.numpy()
    model = LearnedVariance(abar)
    generator = torch.Generator().manual_seed(0)
    t = torch.arange(1, timesteps).repeat_interleave(each)
    x0, noise = (torch.randn(len(t), 1, 24, 24, dtype=torch.float64, generator=generator) for _ in range(2))
    x0 = m + math.sqrt(S) * x0
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=12, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = diffusion_loss(model, process, x0, t=t, noise=noise, objective=objective)[0].mean()
        loss = loss if objective == "vlb" else 1000 * loss
        loss.backward()
        return loss

    optimizer.step(closure)
    before = np.append(1.0, abar[:-1])
    small, pull = (1 - before) / (1 - abar) * beta, np.sqrt(before) * beta / (1 - abar)
    mmse = S * (1 - abar) / (abar * S + 1 - abar)
    best = (small + pull**2 * mmse)[1:]
    share = (model.fraction.detach().numpy()[1:] + 1) / 2
    chosen = small[1:] ** (1 - share) * beta[1:] ** share
    np.testing.assert_allclose(chosen, best, rtol=0.02)  # 11,520 squares for each t: a standard error of 1.3% of mmse
    assert (chosen > 1.02 * small[1:]).all()
    assert (chosen < 0.98 * beta[1:]).all()


# ---- what goes together


def test_what_does_not_go_together_is_refused_by_the_loss():
    x0 = images(2)

    def loss(model, process, **options):
        return diffusion_loss(model, process, x0, **({"prediction": "v"} | options))

    for process in (EDMProcess(), RectifiedFlow()):
        for objective in ("hybrid", "vlb"):
            with pytest.raises(InputError, match=f"objective {objective} bounds a chain of T steps, which"):
                loss(learned, process, objective=objective)
    chain = GaussianDiffusion(T)
    for model, options, sentence in (
        (network, {"objective": "hybrid"}, "objective hybrid trains a learned variance: the network must return twice"),
        (learned, {}, "objective simple never trains the variance that the network learns: take hybrid or vlb"),
        (network, {"objective": "vlb", "weighting": "p2"}, "vlb has the bound's own weights, got weighting p2"),
        (network, {"objective": "elbo"}, r"objective must be one of simple, hybrid, vlb, flow_map; got 'elbo'"),
        (lambda x, t: x[:, :, :2], {}, r"the network must return \[2, 1, 3, 3\], as it was given, got"),
    ):
        with pytest.raises(InputError, match=sentence):
            loss(model, chain, **options)


# The whole table: a combination for which no line of it holds must train.
REFUSED = [
    (lambda c: c.diffusion == "flow" and c.prediction == "eps", "--diffusion flow needs --prediction v or x0, got eps"),
    (lambda c: c.zero and c.diffusion != "ddpm", "--zero-terminal-snr rescales the schedule of ddpm"),
    (lambda c: c.zero and c.prediction == "eps", "--zero-terminal-snr needs --prediction v or x0, got eps"),
    (lambda c: c.zero and c.weighting in ("uniform", "sigmoid"), "is over log SNR, which --zero-terminal-snr makes"),
    (lambda c: c.diffusion != "ddpm" and c.objective in ("hybrid", "vlb"), "it needs --diffusion ddpm"),
    (lambda c: c.variance == "learned" and c.objective in ("simple", "flow_map"), "--variance learned needs --obj"),
    (lambda c: c.variance == "fixed" and c.objective == "hybrid", "--objective hybrid needs --variance learned"),
    (lambda c: c.objective == "vlb" and c.weighting != "none", "--objective vlb has the bound's own weights"),
    (
        lambda c: (c.diffusion, c.times) not in {
            ("ddpm", "uniform"), ("ddpm", "importance"), ("edm", "log_normal"), ("flow", "uniform"),
            ("flow", "logit_normal"),
        },
        "--times with --diffusion",
    ),
]  # fmt: skip
ALL_TIMES = ("uniform", "importance", "log_normal", "logit_normal")


class Chosen:
    def __init__(self, *values):
        names = ("diffusion", "prediction", "variance", "objective", "weighting", "times", "zero")
        self.__dict__ |= dict(zip(names, values, strict=True))

    def config(self):
        return ProcessConfig(
            diffusion=self.diffusion,
            timesteps=50,
            zero_terminal_snr=self.zero,
            prediction=self.prediction,
            times=self.times,
            weighting=self.weighting,
            objective=self.objective,
            variance=self.variance,
        )


TINY = Config(
    sample=SampleConfig(steps=1),
    network=NetworkConfig(width=4, multipliers=(1,), blocks=1, attention=(), dropout=0.0, labels=False),
    train=TrainConfig(images=8, batch=8, warmup=0, precision="float32"),
)


def step_of(settings):
    """One optimiser step of a tiny network: its result, and the state after it."""
    config = replace(TINY, process=settings)
    process, times = build_process(config), build_times(config, CPU)
    network = build_network(config, (1, 4, 4), 0, CPU)
    state = TrainState.fresh(network, config.train, times)
    generator = seeded(0, TIMES, 0)
    weight = None
    if times is None:
        t = process.draw_times(8, generator)
    else:
        t, weight = times.draw(8, generator)
    images = torch.randint(256, (8, 1, 4, 4), generator=generator, dtype=torch.uint8)
    noise = torch.randn(8, 1, 4, 4, generator=generator)
    loss = build_loss(config, process, PixelCodec(), CPU, times)
    way = (None, None, None, torch.rand(8, generator=generator), torch.full((8,), 0.5))  # of a flow map, r = 0.5
    batch = (images, None, t, noise, weight, *(way if settings.objective == "flow_map" else ()))
    return train_step(state, batch, loss, config.train), state


@pytest.mark.parametrize("zero", [False, True], ids=["", "zero terminal snr"])
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("diffusion", ["ddpm", "edm", "flow"])
def test_every_combination_trains_or_is_refused_in_a_sentence(diffusion, prediction, zero):
    trained = 0
    for rest in product(("fixed", "learned"), OBJECTIVES, ("none", *WEIGHTINGS), ALL_TIMES):
        chosen = Chosen(diffusion, prediction, *rest, zero)
        reasons = [sentence for holds, sentence in REFUSED if holds(chosen)]
        if reasons:
            with pytest.raises(InputError) as refused:
                chosen.config()
            assert any(sentence in str(refused.value) for sentence in reasons), chosen.__dict__
            continue
        result, state = step_of(chosen.config())
        assert result.losses.isfinite().all(), chosen.__dict__
        assert 0 < result.grad_norm < math.inf, chosen.__dict__
        assert all(parameter.isfinite().all() for parameter in state.model.parameters()), chosen.__dict__
        halves = state.model.last.weight.abs().amax(dim=(1, 2, 3))  # [1] or [2]; 0 before the step
        assert (halves > 0).all(), chosen.__dict__
        trained += 1
    assert trained == EXPECTED[diffusion, prediction, zero]


# With ddpm: (8 simple + 8 flow_map + 8 hybrid + 2 vlb) x 2 ways to draw times, without uniform and sigmoid 20 x 2.
EXPECTED = {
    (diffusion, prediction, zero): 0 for diffusion in ("ddpm", "edm", "flow") for prediction in PREDICTIONS
    for zero in (False, True)
} | {
    ("ddpm", "eps", False): 52, ("ddpm", "x0", False): 52, ("ddpm", "v", False): 52,
    ("ddpm", "x0", True): 40, ("ddpm", "v", True): 40,
    ("edm", "eps", False): 16, ("edm", "x0", False): 16, ("edm", "v", False): 16,
    ("flow", "x0", False): 32, ("flow", "v", False): 32,
}  # fmt: skip


def test_a_chain_of_one_has_no_log_snr_to_be_even_in():
    with pytest.raises(InputError, match="--weighting uniform is over log SNR, which --timesteps 1 has one value of"):
        ProcessConfig(timesteps=1, weighting="uniform")
    with pytest.raises(InputError, match="needs two timesteps or more"):
        GaussianDiffusion(1).log_snr_density(torch.tensor([0]))
    for objective, variance in (("simple", "fixed"), ("vlb", "fixed"), ("vlb", "learned"), ("hybrid", "learned")):
        assert step_of(ProcessConfig(timesteps=1, objective=objective, variance=variance))[0].losses.isfinite().all()


@pytest.mark.parametrize("weighting", ["uniform", "sigmoid"])
@pytest.mark.parametrize(("diffusion", "prediction"), [("edm", "eps"), ("edm", "v"), ("flow", "v")])
def test_timesteps_are_ddpms_alone(diffusion, prediction, weighting):
    """--timesteps 1 takes nothing from the others' log SNR, nor from the steps that they are sampled in."""
    settings = ProcessConfig(diffusion=diffusion, timesteps=1, prediction=prediction, weighting=weighting)
    assert Config(process=settings, sample=SampleConfig(steps=50)).process == settings
    assert step_of(settings)[0].losses.isfinite().all()


PURE = [GaussianDiffusion(T, lambda n: zero_terminal_snr(linear_schedule(n))), RectifiedFlow()]


@pytest.mark.parametrize("process", PURE, ids=["zero terminal snr", "flow"])
def test_at_pure_noise_eps_has_its_own_loss_and_no_other(process):
    """Its error is that of x0 times alpha / sigma: where alpha is 0, no weight of x0's error and no bound exist."""
    x0, noise = images(2), torch.randn(2, 1, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    t = torch.tensor([T - 1, 3]) if process.whole_times else torch.tensor([1.0, 0.3])
    loss, _ = diffusion_loss(network, process, x0, "eps", t=t, noise=noise)
    assert loss[0].item() == pytest.approx((network(noise, t.double())[0] - noise[0]).square().mean().item())
    assert loss.isfinite().all()
    for options in ({"weighting": name} for name in WEIGHTINGS):
        with pytest.raises(InputError, match="eps says nothing about x0 at pure noise"):
            diffusion_loss(network, process, x0, "eps", t=t, noise=noise, **options)
        for prediction in ("x0", "v"):
            if process.whole_times and options["weighting"] in ("uniform", "sigmoid"):
                continue  # has a refusal of its own
            assert diffusion_loss(network, process, x0, prediction, t=t, noise=noise, **options)[0].isfinite().all()


@pytest.mark.parametrize(("model", "objective"), [(network, "vlb"), (learned, "vlb"), (learned, "hybrid")])
def test_at_pure_noise_eps_has_no_bound(model, objective):
    x0, t = images(2), torch.tensor([T - 1, 3])
    with pytest.raises(InputError, match="eps says nothing about x0 at pure noise"):
        diffusion_loss(model, PURE[0], x0, "eps", t=t, objective=objective)
    assert diffusion_loss(model, PURE[0], x0, "v", t=t, objective=objective)[0].isfinite().all()


def test_the_bound_of_a_chain_that_ends_in_pure_noise():
    """Its last term is about the mean alone: nothing of x_t is left in it."""
    process = GaussianDiffusion(50, lambda n: zero_terminal_snr(linear_schedule(n)))
    x0, t = images(2), torch.tensor([49, 48])
    loss, _ = diffusion_loss(network, process, x0, "x0", t=t, noise=torch.randn_like(x0), objective="vlb")
    assert loss.isfinite().all()
