"""The article's functions against a literal transcription of the article, on the same draws."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bytepixels import (
    SAMPLERS,
    GaussianDiffusion,
    InputError,
    cosine_schedule,
    diffusion_loss,
    linear_schedule,
    sample,
    training_step,
    zero_terminal_snr,
)
from bytepixels.core.prediction import PREDICTIONS
from bytepixels.registries import sampler_facts
from tests.core.laws import GAUSSIAN, Mixture, linear_alpha_bar, zero_snr_alpha_bar

TIGHT = Mixture((1.0,), (0.2,), (0.05**2,))  # samples stay well within [-1, 1]
SHAPE = (2, 1, 4, 4)


class Small(nn.Module):
    """Reads x, t and the label, and has dropout."""

    def __init__(self, channels=3, dropout=0.0):
        super().__init__()
        torch.manual_seed(5)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.dropout = nn.Dropout(dropout)
        self.modes = []

    def forward(self, x, t, label=None):
        self.modes.append(self.training)
        shift = (t / 1000).sin() + (0 if label is None else label)
        return self.dropout(self.conv(x)) + shift.view(-1, 1, 1, 1)


def images(batch=4):
    return torch.rand(batch, 3, 8, 8, generator=torch.Generator().manual_seed(2)) * 2 - 1


# ---- the loss


def literal_loss(model, T, x0, t, noise, prediction="eps"):
    """Per image, from the papers, in float64 coefficients."""
    alpha_bar = torch.from_numpy(linear_alpha_bar(T))[t].view(-1, 1, 1, 1)
    a, s = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    x_t = (a * x0 + s * noise).float()
    wanted = {"eps": noise, "x0": x0, "v": (a * noise - s * x0).float()}[prediction]
    return torch.stack([F.mse_loss(*pair) for pair in zip(model(x_t, t.float()), wanted, strict=True)])


def test_training_step_is_the_article_on_the_same_draws():
    x0, ours, theirs = images(), Small(), Small()
    torch.manual_seed(0)
    loss = training_step(ours, GaussianDiffusion(1000), x0)
    torch.manual_seed(0)
    t = torch.randint(0, 1000, (4,))
    noise = torch.randn_like(x0)
    alpha_bar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)[t].view(-1, 1, 1, 1)
    x_t = alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * noise
    expected = F.mse_loss(theirs(x_t, t.float()), noise)
    assert loss.shape == ()
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    loss.backward()
    expected.backward()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_loss_of_each_image_at_given_times_and_noise(prediction):
    model, x0 = Small(), images()
    t = torch.tensor([0, 10, 500, 999])
    noise = torch.randn_like(x0)
    loss, used = diffusion_loss(model, GaussianDiffusion(1000), x0, prediction, t=t, noise=noise)
    assert torch.equal(used, t)
    torch.testing.assert_close(loss, literal_loss(model, 1000, x0, t, noise, prediction), rtol=1e-5, atol=1e-6)


def test_the_label_reaches_the_model():
    x0, label = images(), torch.tensor([1.0, 2.0, 3.0, 4.0])
    given = {"t": torch.arange(4), "noise": torch.zeros_like(x0)}
    model = Small()
    plain, _ = diffusion_loss(lambda x, t: model(x, t) + label.view(-1, 1, 1, 1), GaussianDiffusion(10), x0, **given)
    labelled, _ = diffusion_loss(model, GaussianDiffusion(10), x0, label=label, **given)
    torch.testing.assert_close(plain, labelled)


@pytest.mark.parametrize("t", [0, 50, 300, 999])
def test_the_exact_network_has_the_loss_that_no_network_beats(t):
    """Gaussian data: the mean squared error of E[eps | x_t] is alpha^2 S / (alpha^2 S + sigma^2)."""
    (m,), (S,) = GAUSSIAN.means, GAUSSIAN.variances
    alpha_bar = linear_alpha_bar(1000)
    torch.manual_seed(0)
    x0 = m + math.sqrt(S) * torch.randn(4, 1, 100, 100, dtype=torch.float64)
    network = GAUSSIAN.network(alpha_bar, "eps")
    loss, _ = diffusion_loss(network, GaussianDiffusion(1000), x0, t=torch.full((4,), t))
    signal = alpha_bar[t] * S
    floor = signal / (signal + 1 - alpha_bar[t])
    assert loss.mean().item() == pytest.approx(floor, rel=5 * math.sqrt(2 / 40000))


def test_the_loss_is_counted_in_float32():
    x0 = images().bfloat16()
    loss, _ = diffusion_loss(lambda x, t: 0.9 * x, GaussianDiffusion(10), x0)
    assert loss.dtype == torch.float32


def test_a_network_of_another_shape_is_refused():
    with pytest.raises((InputError, RuntimeError)):
        diffusion_loss(lambda x, t: x[:, :1], GaussianDiffusion(10), images())


# ---- the sampler


def draws(T, dtype=torch.float64, shape=SHAPE):
    return list(torch.randn(T, *shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64).to(dtype))


def in_turn(noises):
    """noise(x) that hands these out in order, and says how often it was asked."""
    queue = iter(noises)

    def noise(x):
        noise.calls += 1
        assert x.shape == noises[0].shape
        return next(queue)

    noise.calls = 0
    return noise


def article_sample(network, betas, noises, variance="large"):
    """ARTICLE.md, point 5. `variance` small: the posterior's, for comparison."""
    alphas = 1 - betas
    alpha_bar = np.cumprod(alphas)
    x, *rest = noises
    for t in reversed(range(len(betas))):
        eps = network(x, torch.full((len(x),), float(t)))
        x = (x - betas[t] / math.sqrt(1 - alpha_bar[t]) * eps) / math.sqrt(alphas[t])
        if t > 0:
            std2 = betas[t] * (1 if variance == "large" else (1 - alpha_bar[t - 1]) / (1 - alpha_bar[t]))
            x = x + math.sqrt(std2) * rest.pop(0)
    return x.clamp(-1, 1)


@pytest.mark.parametrize(
    ("T", "dtype", "tolerance"),
    [(1000, torch.float64, 1e-10), (1000, torch.float32, 1e-4), (50, torch.float64, 1e-10), (1, torch.float64, 1e-10)],
)
def test_sample_is_the_articles_sampler(T, dtype, tolerance):
    network = TIGHT.network(linear_alpha_bar(T), "eps")
    noise = in_turn(draws(T, dtype))
    got = sample(network, GaussianDiffusion(T), SHAPE, noise=noise)
    expected = article_sample(network, np.linspace(1e-4, 0.02, T), draws(T, dtype))
    assert noise.calls == T  # x_T, and T - 1 more
    assert T < 1000 or expected.abs().max() < 1
    torch.testing.assert_close(got, expected, rtol=0, atol=tolerance)


def test_sample_with_another_schedule_is_the_articles_sampler_too():
    betas = cosine_schedule(100).numpy()
    network = TIGHT.network(np.cumprod(1 - betas), "eps")
    got = sample(network, GaussianDiffusion(100, cosine_schedule), SHAPE, noise=in_turn(draws(100)))
    torch.testing.assert_close(got, article_sample(network, betas, draws(100)), rtol=0, atol=1e-10)


def test_the_small_variance_can_be_bound():
    network = TIGHT.network(linear_alpha_bar(100), "eps")
    small = partial(SAMPLERS["ddpm"], variance="small")
    got = sample(network, GaussianDiffusion(100), SHAPE, sampler=small, noise=in_turn(draws(100)))
    expected = article_sample(network, np.linspace(1e-4, 0.02, 100), draws(100), "small")
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)


def respaced_betas(times):
    alpha_bar = linear_alpha_bar(1000)[times]
    return 1 - alpha_bar / np.append(1, alpha_bar[:-1])


def test_fewer_steps_take_the_small_variance():
    """The article's loop over the betas of the chain that visits 10 of 1000 timesteps."""
    times = np.arange(99, 1000, 100)
    network = TIGHT.network(linear_alpha_bar(1000), "eps")
    noise = in_turn(draws(10))
    got = sample(network, GaussianDiffusion(1000), SHAPE, steps=10, noise=noise)
    expected = article_sample(
        lambda x, t: network(x, torch.from_numpy(times)[t.long()]), respaced_betas(times), draws(10), "small"
    )
    assert noise.calls == 10
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)


def test_all_steps_asked_for_by_number_take_the_large_variance():
    network = TIGHT.network(linear_alpha_bar(20), "eps")
    by_default, by_number = (
        sample(network, GaussianDiffusion(20), SHAPE, steps=steps, noise=in_turn(draws(20))) for steps in (None, 20)
    )
    assert torch.equal(by_default, by_number)


def test_spacing_is_read():
    seen = []

    def network(x, t):
        seen.append(t[0].item())
        return torch.zeros_like(x)

    sample(network, GaussianDiffusion(1000), SHAPE, "ddim", steps=4, spacing="leading")
    assert seen == [750, 500, 250, 0]


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_by_name_and_as_a_function(name):
    network = TIGHT.network(linear_alpha_bar(1000), "eps")
    by_name, as_function = (
        sample(network, GaussianDiffusion(1000), SHAPE, sampler, 100, in_turn(draws(100)), spacing="log_snr")
        for sampler in (name, SAMPLERS[name])
    )
    assert torch.equal(by_name, as_function)
    if not sampler_facts(name).stochastic:  # x_T alone decides: 0.2 + 0.05 x_T
        torch.testing.assert_close(by_name, 0.2 + 0.05 * draws(1)[0], rtol=0, atol=0.01)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_every_prediction_gives_the_same_images(prediction, name):
    common = {"sampler": name, "steps": 20, "shape": SHAPE, "diffusion": GaussianDiffusion(1000)}
    images, by_eps = (
        sample(TIGHT.network(linear_alpha_bar(1000), kind), prediction=kind, noise=in_turn(draws(20)), **common)
        for kind in (prediction, "eps")
    )
    torch.testing.assert_close(images, by_eps, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", SAMPLERS)
def test_zero_terminal_snr_with_v(name):
    diffusion = GaussianDiffusion(1000, lambda T: zero_terminal_snr(linear_schedule(T)))
    network = TIGHT.network(zero_snr_alpha_bar(1000), "v")
    got = sample(network, diffusion, (1, 1, 32, 32), name, 100, prediction="v", spacing="log_snr")
    assert got.mean().item() == pytest.approx(0.2, abs=0.01)
    assert got.std().item() == pytest.approx(0.05, rel=0.15)


def test_a_thousand_steps_reproduce_the_data():
    torch.manual_seed(0)
    got = sample(TIGHT.network(linear_alpha_bar(1000), "eps"), GaussianDiffusion(1000), (1, 1, 64, 64))
    assert got.mean().item() == pytest.approx(0.2, abs=5 * 0.05 / 64)
    assert got.std().item() == pytest.approx(0.05, rel=0.08)  # the large variance, at the last steps, adds a little
    neighbours = torch.corrcoef(torch.stack([got[..., 1:].flatten(), got[..., :-1].flatten()]))[0, 1]
    assert abs(neighbours) < 5 / 64


@pytest.mark.parametrize(("clip", "highest"), [(True, 1.0), (False, 3.0)])
def test_clip_clamps_x0_on_the_way(clip, highest):
    seen = []

    def watched(x, now, nxt, denoise, noise, memory=None):
        seen.append(denoise(x, now).max().item())
        return SAMPLERS["ddim"](x, now, nxt, denoise, noise, memory)

    def three(x, t):
        return torch.full_like(x, 3.0)

    got = sample(three, GaussianDiffusion(10), SHAPE, watched, prediction="x0", clip=clip)
    assert seen == [highest] * 10
    assert (got == 1).all()  # clamped at the end in any case


def test_the_label_is_passed_to_the_network():
    label = torch.tensor([0.25, 0.5])
    got = sample(
        lambda x, t, label: label.view(-1, 1, 1, 1).expand_as(x),
        GaussianDiffusion(10),
        SHAPE,
        prediction="x0",
        label=label,
    )
    torch.testing.assert_close(got, label.view(-1, 1, 1, 1).expand(SHAPE))


def test_the_global_seed_is_the_default_noise():
    def draw(seed):
        torch.manual_seed(seed)
        return sample(TIGHT.network(linear_alpha_bar(10), "eps"), GaussianDiffusion(10), SHAPE)

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_in_eval_mode_meanwhile_and_back_as_it_was(training):
    model = Small(1, dropout=0.5).train(training)
    got = sample(model, GaussianDiffusion(5), SHAPE)
    assert model.modes == [False] * 5
    assert [module.training for module in model.modules()] == [training] * 3
    assert not got.requires_grad
    assert got.shape == SHAPE
    assert got.abs().max() <= 1


def test_the_model_is_back_as_it_was_after_an_error():
    model = Small(channels=3)
    with pytest.raises(RuntimeError):
        sample(model, GaussianDiffusion(5), (1, 7, 4, 4))
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("training", [True, False])
def test_a_part_of_the_model_in_a_mode_of_its_own_keeps_it(training):
    """A frozen part of a model in training; a part left in training inside a model in eval mode."""
    model = Small(1, dropout=0.5).train(training)
    model.dropout.train(not training)
    during = []
    model.dropout.register_forward_hook(lambda module, *_: during.append(module.training))
    sample(model, GaussianDiffusion(2), SHAPE)
    assert during == [False, False]
    assert (model.training, model.dropout.training) == (training, not training)


def test_mistakes_are_told_in_one_sentence():
    with pytest.raises(InputError, match="did you mean 'ddim'"):
        sample(Small(1), GaussianDiffusion(5), SHAPE, sampler="dimm")
    with pytest.raises(InputError, match="did you mean 'eps'"):
        sample(Small(1), GaussianDiffusion(5), SHAPE, prediction="epss")
    with pytest.raises(InputError, match=r"steps must be in 1\.\.5, got 6"):
        sample(Small(1), GaussianDiffusion(5), SHAPE, steps=6)
    with pytest.raises(InputError, match="did you mean 'eps'"):
        training_step(Small(), GaussianDiffusion(5), images(), prediction="epss")
