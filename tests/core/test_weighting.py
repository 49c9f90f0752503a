"""Every weighting, on every process and prediction, against the papers' own formulas and integrals over log SNR."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.interpolate import CubicSpline
from scipy.stats import norm

from bytepixels import (
    SCHEDULES,
    WEIGHTINGS,
    EDMProcess,
    GaussianDiffusion,
    InputError,
    RectifiedFlow,
    diffusion_loss,
    zero_terminal_snr,
)
from bytepixels.core.prediction import PREDICTIONS
from bytepixels.core.schedules import linear_schedule

PROCESSES = {
    **{name: GaussianDiffusion(1000, schedule) for name, schedule in SCHEDULES.items()},
    "edm": EDMProcess(),
    "flow": RectifiedFlow(),
    "flow_logit_normal": RectifiedFlow("logit_normal"),
}
CONTINUOUS = ("edm", "flow", "flow_logit_normal")
SHAPE = (6, 2, 3, 3)


def network(x, t):
    return 0.7 * x.sin() + (0.3 * t.double().view(-1, 1, 1, 1)).cos()


def times(name):
    if name == "edm":
        return torch.linspace(-1.2, 1.0, 6, dtype=torch.float64)
    if name in CONTINUOUS:
        return torch.tensor([0.01, 0.1, 0.4, 0.6, 0.9, 0.99], dtype=torch.float64)
    return torch.tensor([0, 3, 100, 400, 800, 990])


def case(name):
    """x0, t, noise, alpha, sigma and x_t of one batch, in float64."""
    generator = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(SHAPE, dtype=torch.float64, generator=generator) for _ in range(2))
    t = times(name)
    alpha, sigma = PROCESSES[name].alpha_sigma(t, torch.float64)
    return x0, t, noise, alpha, sigma, alpha * x0 + sigma * noise


def density_by_hand(name, t, alpha, sigma):
    """Of log SNR, where training draws its times: [B, 1, 1, 1]."""
    log_sigma, logit = (sigma.log().flatten().numpy(), (sigma / alpha).log().flatten().numpy())
    if name == "edm":
        density = norm.pdf(log_sigma, -1.2, 1.2) / 2
    elif name == "flow":
        density = (sigma * (1 - sigma)).flatten().numpy() / 2
    elif name == "flow_logit_normal":
        density = norm.pdf(logit) / 2
    else:
        alpha_bar = PROCESSES[name].alpha_bar.numpy()
        density = -1 / (1000 * np.gradient(np.log(alpha_bar / (1 - alpha_bar)))[t.numpy()])
    return torch.from_numpy(density).view(-1, 1, 1, 1)


def by_hand(weighting, snr, density, sigma_data):
    """The weight of the squared error of x0; an error of eps is sqrt(SNR) times one of x0."""
    return {
        "eps": lambda: snr,
        "min_snr": lambda: snr.clamp(max=5),
        "p2": lambda: snr / (1 + snr),
        "edm": lambda: (1 / snr + sigma_data**2) / (sigma_data**2 / snr),
        "velocity": lambda: (snr.sqrt() + 1) ** 2,
        "uniform": lambda: snr / density,
        "sigmoid": lambda: snr / density / (1 + torch.exp(snr.log() - 2)),
    }[weighting]()


def estimate_by_hand(prediction, x_t, t, alpha, sigma, sigma_data):
    """x0 out of the network: Karras et al. 2022, eq. 7 for edm; else by the definitions of eps and of v."""
    scale = (alpha**2 * sigma_data**2 + sigma**2).sqrt()
    output = network(x_t / scale, t.float())
    if prediction == "x0":
        return output
    if prediction == "eps":
        return (x_t - sigma * output) / alpha
    if sigma_data != 1:
        return sigma_data**2 / scale**2 * x_t + sigma * sigma_data / scale * -output  # alpha = 1, F = -output
    return (alpha * x_t - sigma * scale * output) / scale**2  # scale * v = alpha * eps - sigma * x0


CASES = [(name, one) for name in PROCESSES for one in PREDICTIONS if one != "eps" or not name.startswith("flow")]


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize(("name", "prediction"), CASES)  # eps says nothing about x0 where flow begins: refused
def test_the_loss_is_the_weight_times_the_squared_error_of_x0(name, weighting, prediction):
    process = PROCESSES[name]
    x0, t, noise, alpha, sigma, x_t = case(name)
    loss, _ = diffusion_loss(network, process, x0, prediction, t=t, noise=noise, weighting=weighting)
    weight = by_hand(weighting, (alpha / sigma) ** 2, density_by_hand(name, t, alpha, sigma), process.sigma_data)
    error = x0 - estimate_by_hand(prediction, x_t, t, alpha, sigma, process.sigma_data)
    torch.testing.assert_close(loss, (weight * error**2).mean(dim=(1, 2, 3)), rtol=1e-5, atol=1e-9)


def ratio(process, weighting, prediction):
    """What the weighting multiplies the prediction's own squared error with: [B]."""
    name = next(name for name, one in PROCESSES.items() if one is process)
    x0, t, noise, alpha, sigma, _ = case(name)
    given = {"prediction": prediction, "t": t, "noise": noise}
    weighted, _ = diffusion_loss(network, process, x0, weighting=weighting, **given)
    plain, _ = diffusion_loss(network, process, x0, **given)
    return weighted / plain, ((alpha / sigma) ** 2).flatten()


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_min_snr_as_published_for_each_prediction(schedule, prediction):
    """Hang et al. 2023, section 3.4: min(SNR, 5) for x0, over SNR for eps, over SNR + 1 for v."""
    got, snr = ratio(PROCESSES[schedule], "min_snr", prediction)
    expected = snr.clamp(max=5) / {"eps": snr, "x0": 1, "v": snr + 1}[prediction]
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_p2_as_published(schedule):
    """Choi et al. 2022, eq. 8: the simple loss of eps over (k + SNR)^gamma, k = gamma = 1."""
    got, snr = ratio(PROCESSES[schedule], "p2", "eps")
    torch.testing.assert_close(got, 1 / (1 + snr), rtol=1e-9, atol=0)


def test_edms_weight_undoes_its_preconditioning():
    """Karras et al. 2022, section 5: lambda(sigma) c_out^2 = 1, so F's error counts alike at every sigma."""
    got, _ = ratio(PROCESSES["edm"], "edm", "v")
    torch.testing.assert_close(got, torch.ones(6, dtype=torch.float64), rtol=1e-9, atol=0)
    got, _ = ratio(PROCESSES["edm"], "eps", "eps")
    torch.testing.assert_close(got, torch.ones(6, dtype=torch.float64), rtol=1e-9, atol=0)


@pytest.mark.parametrize("prediction", ["x0", "v"])
@pytest.mark.parametrize("name", ["flow", "flow_logit_normal"])
def test_velocity_is_rectified_flows_regression(name, prediction):
    """Liu et al. 2023, eq. 1: ||(eps - x0) - u||^2, where u is how fast x_t moves if it comes from the estimate."""
    x0, t, noise, alpha, sigma, x_t = case(name)
    loss, _ = diffusion_loss(network, PROCESSES[name], x0, prediction, t=t, noise=noise, weighting="velocity")
    u = (x_t - estimate_by_hand(prediction, x_t, t, alpha, sigma, 1.0)) / sigma
    torch.testing.assert_close(loss, ((noise - x0) - u).square().mean(dim=(1, 2, 3)), rtol=1e-9, atol=0)


# ---- even in log SNR: the value does not depend on how times are drawn

S = 0.25  # data N(0, S): the error of eps that no network beats is SNR S / (SNR S + 1), SNR times that of x0
LOW, HIGH = -5.0, 4.0  # log SNR; every process here goes beyond both


def exact_x0(process):
    """E[x0 | x_t] for data N(0, S), out of the x and t that the network sees."""

    def exact(x, t):
        t = t.long() if process.whole_times else t
        alpha, sigma = process.alpha_sigma(t, torch.float64)
        x_t = x * (alpha**2 * process.sigma_data**2 + sigma**2).sqrt()
        return alpha * S / (alpha**2 * S + sigma**2) * x_t

    return exact


def mean_loss_within(process, weighting, draws=400_000):
    """The mean over times drawn as in training of the loss where log SNR is in LOW..HIGH, and its standard error."""
    generator = torch.Generator().manual_seed(1)
    t = process.draw_times(draws, generator)
    alpha, sigma = process.alpha_sigma(t, torch.float64)
    log_snr = 2 * (alpha / sigma).log().flatten()
    within = (log_snr > LOW) & (log_snr < HIGH)
    x0, noise = (torch.randn(draws, 1, 1, 1, dtype=torch.float64, generator=generator) for _ in range(2))
    x0 = math.sqrt(S) * x0[within]
    loss, _ = diffusion_loss(
        exact_x0(process), process, x0, "x0", t=t[within], noise=noise[within], weighting=weighting
    )
    loss = torch.cat([loss, torch.zeros(draws - len(loss))])
    return loss.mean().item(), loss.std().item() / math.sqrt(draws)


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("weighting", ["uniform", "sigmoid"])
def test_the_integral_over_log_snr_is_the_same_for_every_process(name, weighting):
    """Kingma et al. 2021, eq. 18: only the ends of the noise schedule matter; Kingma & Gao 2023, eq. 2."""

    def integrand(log_snr):
        error = S / (S + math.exp(-log_snr))
        return error if weighting == "uniform" else error / (1 + math.exp(log_snr - 2))

    mean, standard_error = mean_loss_within(PROCESSES[name], weighting)
    expected = quad(integrand, LOW, HIGH)[0]
    assert standard_error < 0.02 * expected
    # a chain of 1000 timesteps meets the ends to a step, at most 0.7 of one of about 0.03, with an integrand below 1
    assert mean == pytest.approx(expected, abs=4 * standard_error + (0.0 if name in CONTINUOUS else 0.05))


@pytest.mark.parametrize("name", CONTINUOUS)
def test_density_of_log_snr_is_a_histogram_of_it(name):
    process = PROCESSES[name]
    t = process.draw_times(400_000, torch.Generator().manual_seed(0))
    alpha, sigma = process.alpha_sigma(t, torch.float64)
    log_snr = 2 * (alpha / sigma).log().flatten().numpy()
    edges = np.quantile(log_snr, np.linspace(0.05, 0.95, 50))
    counts, _ = np.histogram(log_snr, edges)
    middles = torch.from_numpy((edges[1:] + edges[:-1]) / 2)
    at = -middles / 8 if name == "edm" else torch.sigmoid(-middles / 2)  # the t with that log SNR
    density = process.log_snr_density(at)
    assert density.shape == (49, 1, 1, 1)
    np.testing.assert_allclose(counts / len(t) / np.diff(edges), density.flatten(), rtol=0.05)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_density_of_a_chain_is_the_slope_of_its_log_snr(schedule):
    """1 / (T |d log SNR / dt|), the slope by a cubic spline; cosine's ends, where beta is capped, apart."""
    process = PROCESSES[schedule]
    t = torch.arange(5, 990)
    alpha_bar = process.alpha_bar.numpy()
    slope = CubicSpline(np.arange(1000), np.log(alpha_bar / (1 - alpha_bar)))(t.numpy(), 1)
    np.testing.assert_allclose(process.log_snr_density(t).flatten(), -1 / (1000 * slope), rtol=0.01)


@pytest.mark.parametrize("weighting", ["uniform", "sigmoid"])
def test_pure_noise_counts_for_nothing(weighting):
    """Flow draws t = 1 once in 2^24 times; there the error of eps has no weight, and is no NaN."""
    t, x0 = torch.tensor([1.0, 0.999]), torch.ones(2, 1, 2, 2)
    loss, _ = diffusion_loss(network, RectifiedFlow(), x0, "v", t=t, weighting=weighting)
    assert loss[0] == 0
    assert loss[1] > 0


LONG = {
    "linear": GaussianDiffusion(6000),
    "the least that may be left": GaussianDiffusion(
        40, lambda T: torch.full((T,), 1 - 1.01e-15 ** (2 / T), dtype=torch.float64)
    ),
}


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("weighting", [None, *WEIGHTINGS])
@pytest.mark.parametrize("name", LONG)
def test_float32_holds_every_loss_where_hardly_anything_is_left(name, weighting, prediction):
    """At T - 1, where alpha^2 may be 1e-30: finite, and what float64 makes of it."""
    process = LONG[name]
    t, generator = torch.tensor([process.T - 1]), torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(1, 2, 3, 3, generator=generator) for _ in range(2))
    losses = []
    for dtype in (torch.float32, torch.float64):
        given = {"prediction": prediction, "t": t, "noise": noise.to(dtype), "weighting": weighting}
        loss, _ = diffusion_loss(lambda x, t, dtype=dtype: network(x, t).to(dtype), process, x0.to(dtype), **given)
        losses.append(loss.double())
    assert losses[0].isfinite().all()
    torch.testing.assert_close(*losses, rtol=1e-3, atol=0)


def test_what_has_no_even_weight_is_refused():
    pure = GaussianDiffusion(1000, lambda timesteps: zero_terminal_snr(linear_schedule(timesteps)))
    for process in (pure, GaussianDiffusion(1)):
        with pytest.raises(InputError, match="needs two timesteps or more, none of them at zero SNR"):
            diffusion_loss(network, process, torch.zeros(2, 1, 2, 2), "v", weighting="uniform")
    with pytest.raises(InputError, match=r"weighting must be one of .*did you mean 'min_snr'"):
        diffusion_loss(network, pure, torch.zeros(2, 1, 2, 2), "v", weighting="minsnr")
