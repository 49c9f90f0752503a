"""build: the names of a config become the objects that they promise, and randomness is a function of (seed, step)."""

import math
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from bytepixels.build import build_network, build_process
from bytepixels.codec.codec import PixelCodec
from bytepixels.config.diffusion import ProcessConfig
from bytepixels.config.network import NetworkConfig
from bytepixels.config.run import Config
from bytepixels.config.sampling import SampleConfig
from bytepixels.config.training import TrainConfig
from bytepixels.core.gaussian_diffusion import EDMProcess, Level, RectifiedFlow
from bytepixels.core.losses import diffusion_loss
from bytepixels.core.samplers import MAX_CHURN, best_sampler
from bytepixels.core.schedules import zero_terminal_snr
from bytepixels.data.batches import Batches
from bytepixels.distributed.process_group import ProcessGroup
from bytepixels.errors import InputError
from bytepixels.hardware import best_device
from bytepixels.networks import DiT
from bytepixels.registries import SAMPLERS, SCHEDULES, sampler_facts
from bytepixels.sampling.settings import build_denoiser, build_sampling, resolved_sampling
from bytepixels.training.diffusion_task import build_draw, build_loss, build_times

CPU = torch.device("cpu")
TINY = NetworkConfig(width=8, multipliers=(1,), blocks=1, attention=(), dropout=0.0)
CONFIG = Config(network=TINY, train=TrainConfig(batch=64, seed=3, precision="float32"))


@pytest.fixture
def batches():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (100, 1, 8, 8), np.uint8)
    return Batches(images, rng.integers(0, 4, 100), CONFIG.train.batch, CONFIG.train.seed, flip=True)


def test_a_schedule_takes_its_parameters_after_a_colon():
    config = replace(CONFIG, process=ProcessConfig(timesteps=200, schedule="linear:beta_end=0.015,beta_start=0.0002"))
    assert torch.equal(build_process(config).betas, SCHEDULES["linear"](200, 0.0002, 0.015))
    assert Config.from_dict(config.to_dict()) == config
    for schedule, sentence in {
        "linear:beta_last=1": "a parameter of --schedule linear must be one of beta_start, beta_end; got 'beta_last'",
        "cosine:s=big": "--schedule cosine:s=big: s must be a number, got 'big'",
    }.items():
        with pytest.raises(InputError, match=sentence):
            ProcessConfig(schedule=schedule)
    with pytest.raises(InputError, match=r"betas in \(0, 1\], got shape \(200,\) from 0.0001 to 3"):
        build_process(replace(CONFIG, process=ProcessConfig(timesteps=200, schedule="linear:beta_end=3")))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_process_has_the_schedule(schedule):
    process = build_process(replace(CONFIG, process=ProcessConfig(timesteps=200, schedule=schedule)))
    assert torch.equal(process.betas, SCHEDULES[schedule](200))


def test_zero_terminal_snr_rescales_the_schedule():
    config = replace(
        CONFIG, process=ProcessConfig(timesteps=200, schedule="cosine", zero_terminal_snr=True, prediction="v")
    )
    process = build_process(config)
    assert torch.equal(process.betas, zero_terminal_snr(SCHEDULES["cosine"](200)))
    assert process.alpha_bar[-1] == 0


def test_the_weights_are_a_function_of_the_seed():
    torch.manual_seed(99)
    one = build_network(CONFIG, (1, 8, 8), 4, CPU)
    torch.rand(5)
    two = build_network(CONFIG, (1, 8, 8), 4, CPU)
    three = build_network(replace(CONFIG, train=replace(CONFIG.train, seed=4)), (1, 8, 8), 4, CPU)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.first.weight, three.first.weight)


def test_every_setting_reaches_the_network():
    net = NetworkConfig("unet", 16, (1, 2), 3, attention=(0,), heads=2, dropout=0.25, embedding="ddpm")
    network = build_network(replace(CONFIG, network=net), (3, 8, 8), 7, CPU)
    assert network.first.weight.shape[:2] == (16, 3)
    assert network.null_label == 7
    assert network.min_side == 2
    assert {m.p for m in network.modules() if isinstance(m, torch.nn.Dropout)} == {0.25}
    assert build_network(replace(CONFIG, network=net), (3, 8, 8), 0, CPU).null_label is None
    t = torch.tensor([300.0])
    assert not torch.equal(network.embed(t, 16), build_network(CONFIG, (3, 8, 8), 0, CPU).embed(t, 16))


def test_every_setting_reaches_the_dit():
    net = NetworkConfig(
        "dit", 24, patch=4, depth=3, positions="sincos", registers=2, heads=3, dropout=0.25, embedding="ddpm"
    )
    learned = ProcessConfig(diffusion="ddpm", variance="learned", objective="hybrid")
    network = build_network(replace(CONFIG, network=net, process=learned), (3, 8, 12), 7, CPU)
    assert isinstance(network, DiT)
    assert network.first.weight.shape == (24, 3 * 4 * 4)
    assert network.last.weight.shape == (6 * 4 * 4, 24)
    assert network.registers.shape == (2, 24)
    assert [block.heads for block in network.blocks] == [3] * 3
    assert (network.positions, network.null_label, network.time_scale) == ("sincos", 7, 1.0)
    assert {m.p for m in network.modules() if isinstance(m, torch.nn.Dropout)} == {0.25}
    t = torch.tensor([300.0])
    assert not torch.equal(network.embed(t, 16), build_network(CONFIG, (3, 8, 8), 0, CPU).embed(t, 16))
    flow = build_network(
        replace(CONFIG, network=net, process=ProcessConfig("flow", prediction="v")), (3, 8, 12), 0, CPU
    )
    assert (flow.null_label, flow.time_scale, flow.last.out_features) == (None, 1000.0, 3 * 4 * 4)


def test_images_that_do_not_divide_into_patches_are_refused():
    config = replace(CONFIG, network=NetworkConfig("dit", 8, patch=4, depth=1))
    with pytest.raises(InputError, match="8 x 6 images do not divide into patches of 4 x 4"):
        build_network(config, (1, 8, 6), 0, CPU)


def test_a_batch_is_a_function_of_seed_and_step(batches):
    draw = build_draw(CONFIG, build_process(CONFIG), batches, 4)
    first, again, later = draw(5), draw(5), draw(6)
    torch.manual_seed(0)  # what others draw in between changes nothing
    assert all(torch.equal(a, b) for a, b in zip(first[:4], again[:4], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first[:4], later[:4], strict=True))
    other_seed = build_draw(replace(CONFIG, train=replace(CONFIG.train, seed=4)), build_process(CONFIG), batches, 4)(5)
    assert not any(torch.equal(a, b) for a, b in zip(first[1:4], other_seed[1:4], strict=True))
    images, label, t, noise, weight, dropout_keys = first
    assert weight is None
    assert dropout_keys is None  # where there is no dropout
    assert (images.dtype, images.shape) == (torch.uint8, (64, 1, 8, 8))
    assert noise.shape == images.shape
    assert noise.dtype == torch.float32
    assert t.min() >= 0
    assert t.max() <= 999
    assert label.max() <= 4


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_several_processes_draw_the_rows_of_one(batches, size):
    """A batch of 64 over 1, 2, 3 and 5 processes: images, labels, times, noise and what is dropped."""
    config = replace(CONFIG, network=replace(CONFIG.network, dropout=0.5))
    process, whole = build_process(config), build_draw(config, build_process(config), batches, 4)(7)
    images, labels, rows = (
        batches.images,
        batches.labels.numpy(),
        [ProcessGroup(rank, size).local_rows(64) for rank in range(size)],
    )
    shares = [Batches(images, labels, batches.batch, batches.seed, flip=True, rows=own) for own in rows]
    parts = [build_draw(config, process, share, 4)(7) for share in shares]
    assert max(len(part[0]) for part in parts) - min(len(part[0]) for part in parts) <= 1
    for one, *pieces in zip(whole, *parts, strict=True):
        assert (one is None and set(pieces) == {None}) or torch.equal(torch.cat(pieces), one)
    assert len(set(whole[5].tolist())) == 64


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_labels_are_forgotten_one_by_one(batches, share):
    config = replace(CONFIG, train=replace(CONFIG.train, label_dropout=share))
    draw = build_draw(config, build_process(config), batches, 4)
    drawn = [(draw(step)[1], batches(step)[1]) for step in range(40)]
    forgotten = torch.stack([kept == 4 for kept, _ in drawn]).float()
    assert forgotten.mean().item() == pytest.approx(share, abs=0.04)  # 3 standard deviations of 2,560 coins: 0.026
    for kept, label in drawn:
        assert torch.equal(kept[kept != 4], label[kept != 4])
    if 0 < share < 1:
        assert forgotten.mean(dim=1).std() < 0.2  # within every batch, not whole batches


def test_without_classes_there_is_no_label(batches):
    assert build_draw(CONFIG, build_process(CONFIG), batches, 0)(0)[1] is None


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_half_precision_touches_the_network_alone(batches, precision):
    config = replace(CONFIG, train=replace(CONFIG.train, precision=precision))
    seen = []

    def network(x, t, label):
        seen.append((torch.is_autocast_enabled("cpu"), x.dtype, t.dtype))
        return torch.zeros_like(x)

    batch = build_draw(config, build_process(config), batches, 4)(0)
    errors = build_loss(config, build_process(config), PixelCodec(), CPU)(network, *batch)
    assert seen == [(precision == "bf16", torch.float32, torch.float32)]
    assert errors.dtype == torch.float32
    torch.testing.assert_close(errors, batch[3].square().mean(dim=(1, 2, 3)))  # the error of "no noise" is the noise


def test_images_too_small_for_the_levels_are_refused():
    deep = replace(CONFIG, network=replace(TINY, multipliers=(1, 1, 1)))
    assert build_network(deep, (1, 4, 9), 0, CPU).min_side == 4
    with pytest.raises(InputError, match="3 x 9 images are too small for 3 levels: each side must be at least 4"):
        build_network(deep, (1, 3, 9), 0, CPU)


class LabelsNetwork(torch.nn.Linear):
    """Some module with weights, whose output is its label: 4 stands for none."""

    null_label = 4

    def __init__(self, learned=False):
        super().__init__(1, 1)
        self.learned, self.batches = learned, []

    def forward(self, x, t, label=None):
        self.batches.append(len(x))
        value = torch.zeros_like(x) + (4.0 if label is None else label.float()[:, None, None, None])
        return torch.cat([value, 0.5 + 0 * x], dim=1) if self.learned else value


X, LABEL = torch.zeros(2, 1, 4, 4), torch.tensor([0, 1])
NOW, NXT = Level(10, 0.8, 0.6), Level(5, 0.9, 0.19**0.5)


def sampling(settings, network=None, label=LABEL, weak=None, **process):
    """The denoiser and the step of a network that predicts x0, and the network."""
    network = network or LabelsNetwork()
    config = replace(CONFIG, process=ProcessConfig(prediction="x0", **process))
    return *build_sampling(network, config, settings, build_process(config), label, weak), network


@pytest.mark.parametrize(("guidance", "wanted"), [(1.0, (0, 1)), (0.0, (4, 4)), (3.0, (-8, -5))])
def test_guidance_pulls_from_no_label_to_the_label(guidance, wanted):
    denoise, _, network = sampling(SampleConfig(guidance=guidance, clip=False))
    assert denoise(X, NOW)[:, 0, 0, 0].tolist() == pytest.approx(wanted)
    assert network.batches == [2 if guidance == 1 else 4]  # both estimates in one evaluation
    denoise, _, _ = sampling(SampleConfig(guidance=guidance))
    assert denoise(X, NOW)[:, 0, 0, 0].tolist() == [max(-1, min(1, value)) for value in wanted]


def test_guidance_acts_within_its_interval_and_is_rescaled():
    settings = SampleConfig(guidance=3.0, guidance_interval=(0.7, 0.8), clip=False)
    denoise, _, _ = sampling(settings)  # sigma / alpha is 0.75 at NOW, 0.48 at NXT
    assert denoise(X, NOW)[:, 0, 0, 0].tolist() == pytest.approx([-8, -5])
    assert denoise(X, NXT)[:, 0, 0, 0].tolist() == pytest.approx([0, 1])
    x = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    sloped = LabelsNetwork()
    sloped.forward = lambda x, t, label: x * (1 + label.float()[:, None, None, None])
    denoise, _, _ = sampling(SampleConfig(guidance=3.0, guidance_rescale=1.0, clip=False), sloped)
    torch.testing.assert_close(
        denoise(x, NOW).std((1, 2, 3)), (x * torch.tensor([1, 2])[:, None, None, None]).std((1, 2, 3))
    )


def test_autoguidance_pulls_from_the_weaker_model():
    def weak(x, level):
        return torch.full_like(x, 2.0)

    denoise, _, network = sampling(SampleConfig(guidance=3.0, clip=False), weak=weak)
    assert denoise(X, NOW)[:, 0, 0, 0].tolist() == pytest.approx([-4, -1])
    assert network.batches == [2]
    denoise, _, _ = sampling(SampleConfig(guidance=3.0, clip=False), label=None, weak=weak)
    assert denoise(X, NOW)[:, 0, 0, 0].tolist() == pytest.approx([8, 8])  # and needs no label


def test_guidance_without_labels_or_a_weaker_model_is_refused():
    with pytest.raises(InputError, match="--guidance 3 needs class labels, and this run has none"):
        sampling(SampleConfig(guidance=3.0), label=None)


def resolved(settings, **process):
    config = replace(CONFIG, process=ProcessConfig(**({"prediction": "v"} | process)))
    return resolved_sampling(settings, config, build_process(config))


def test_ddpm_takes_the_large_variance_on_the_full_chain_only():
    """Song et al. 2021, table 1: at 1000 steps the large variance is the better one, at 100 it spoils the images."""
    ddpm = SampleConfig("ddpm", steps=1000)
    assert resolved(ddpm).reverse_variance == "large"
    assert resolved(replace(ddpm, steps=999)).reverse_variance == "small"
    assert resolved(ddpm, diffusion="edm").reverse_variance == "small"  # has no full chain
    assert resolved(ddpm, variance="learned", objective="hybrid").reverse_variance == "learned"
    assert (
        resolved(replace(ddpm, reverse_variance="small"), variance="learned", objective="vlb").reverse_variance
        == "small"
    )
    assert resolved(SampleConfig("ddim", steps=1000)).reverse_variance == "auto"
    for variance, std in (("large", 1 - (0.8 / 0.9) ** 2), ("small", (1 - (0.8 / 0.9) ** 2) * 0.19 / 0.36)):
        denoise, step, _ = sampling(SampleConfig("ddpm", reverse_variance=variance))
        moved = step(X, NOW, NXT, denoise, torch.ones_like)[0] - step(X, NOW, NXT, denoise, torch.zeros_like)[0]
        torch.testing.assert_close(moved, torch.full_like(X, std**0.5))


@pytest.mark.parametrize(("guidance", "evaluations"), [(1.0, 1), (3.0, 3)])
def test_a_learned_variance_is_that_of_the_labels_own_evaluation(guidance, evaluations):
    learned = {"variance": "learned", "objective": "hybrid"}
    settings = SampleConfig("ddpm", guidance=guidance, clip=False)
    denoise, step, network = sampling(settings, LabelsNetwork(learned=True), **learned)
    one, zero = (step(X, NOW, NXT, denoise, like)[0] for like in (torch.ones_like, torch.zeros_like))
    large = 1 - (0.8 / 0.9) ** 2
    variance = large**0.75 * (large * 0.19 / 0.36) ** 0.25  # fraction 0.5
    torch.testing.assert_close(one - zero, torch.full_like(X, variance**0.5))
    assert network.batches == [2] * evaluations  # two steps from the same x: one for the label, and one each without


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "ddpm"])
def test_a_step_is_the_one_of_its_name(name):
    step = sampling(SampleConfig(name))[1]
    if sampler_facts(name).sigma_data:
        assert step.keywords == {"sigma_data": 1.0}
        step = step.func
    assert step is SAMPLERS[name]


def test_options_reach_the_step():
    def moved_by_noise(settings):
        denoise, step, _ = sampling(settings)
        one, zero = (step(X, NOW, NXT, denoise, like, None)[0] for like in (torch.ones_like, torch.zeros_like))
        return (one - zero).abs().max().item()

    small = (1 - (0.8 / 0.9) ** 2) * 0.19 / 0.36
    assert moved_by_noise(SampleConfig("ddim", eta=0.5)) == pytest.approx(0.5 * small**0.5, rel=1e-5)
    assert moved_by_noise(SampleConfig("ddim")) == 0
    assert moved_by_noise(SampleConfig("heun")) == 0
    few, many = (SampleConfig("heun", steps=steps, churn=2.0, clip=False) for steps in (10, 20))
    assert moved_by_noise(few) > moved_by_noise(many) > 0  # each step has churn / steps


def test_the_most_churn_is_a_step_whatever_it_is_divided_by():
    """(most * steps) / steps may be the next number above: each step still multiplies sigma / alpha by sqrt(2)."""
    config = replace(CONFIG, process=ProcessConfig(timesteps=50, prediction="x0"))
    seen, process, network = [], build_process(config), LabelsNetwork()

    def denoise(x, level):
        seen.append(level.half_log_snr)
        return x

    for steps in range(1, 1001):
        settings = SampleConfig("euler", steps=steps, churn=MAX_CHURN * steps)
        _, step = build_sampling(network, config, settings, process, None)
        step(X, process.level(1.0), process.level(1.5), denoise, torch.zeros_like)
    assert any(MAX_CHURN * steps / steps > MAX_CHURN for steps in range(1, 1001))
    assert seen == pytest.approx([1.0 - math.log(2) / 2] * 1000, abs=1e-9)


@pytest.mark.parametrize(("diffusion", "spacing"), [("ddpm", "trailing"), ("edm", "karras"), ("flow", "trailing")])
def test_auto_is_the_process_own_spacing_or_the_best_sampler(diffusion, spacing):
    assert resolved(SampleConfig(), diffusion=diffusion).spacing == spacing
    assert resolved(SampleConfig(spacing="leading"), diffusion=diffusion).spacing == "leading"
    for steps in (1, 4, 7, 8, 50):
        best = resolved(SampleConfig("auto", steps=steps), diffusion=diffusion)
        assert (best.sampler, best.spacing) == best_sampler(steps)
        assert resolved(SampleConfig("auto", steps=steps, spacing="karras"), diffusion=diffusion).spacing == "karras"
    once = resolved(SampleConfig("auto"), diffusion=diffusion)
    config = replace(CONFIG, process=ProcessConfig(diffusion=diffusion, prediction="v"))
    assert resolved_sampling(once, config, build_process(config)) == once


def test_the_denoiser_has_the_process_own_spread_of_data():
    """EDM's sigma_data is 0.5: c_in is 1 / sqrt(sigma^2 + 0.25)."""
    config = replace(CONFIG, process=ProcessConfig(diffusion="edm", prediction="v"))
    seen = []
    network = LabelsNetwork()
    network.forward = lambda x, t: seen.append(x) or torch.zeros_like(x)
    build_denoiser(network, config, build_process(config), None)(X + 1, Level(0.0, 1.0, 2.0))
    torch.testing.assert_close(seen[0], torch.full_like(X, 4.25**-0.5))


# ---- the processes


def test_every_process_is_built():
    edm = build_process(replace(CONFIG, process=ProcessConfig(diffusion="edm", prediction="v")))
    assert isinstance(edm, EDMProcess)
    for times, kind in (("auto", "uniform"), ("uniform", "uniform"), ("logit_normal", "logit_normal")):
        flow = build_process(replace(CONFIG, process=ProcessConfig(diffusion="flow", prediction="v", times=times)))
        assert isinstance(flow, RectifiedFlow)
        assert flow.times == kind


def test_a_learned_variance_doubles_the_networks_output():
    learned = replace(CONFIG, process=ProcessConfig(variance="learned", objective="hybrid"))
    network = build_network(learned, (3, 8, 8), 0, CPU)
    x = torch.randn(2, 3, 8, 8)
    assert network(x, torch.zeros(2)).shape == (2, 6, 8, 8)
    assert build_network(CONFIG, (3, 8, 8), 0, CPU)(x, torch.zeros(2)).shape == (2, 3, 8, 8)


@pytest.mark.parametrize(("diffusion", "scale"), [("ddpm", 1.0), ("edm", 1000.0), ("flow", 1000.0)])
def test_times_of_continuous_processes_are_spread_like_timesteps(diffusion, scale):
    config = replace(CONFIG, process=ProcessConfig(diffusion=diffusion, prediction="v"))
    assert build_network(config, (1, 8, 8), 0, CPU).time_scale == scale


@pytest.mark.parametrize("diffusion", ["edm", "flow"])
def test_batches_of_continuous_processes_have_real_times(batches, diffusion):
    config = replace(CONFIG, process=ProcessConfig(diffusion=diffusion, prediction="v"))
    draw = build_draw(config, build_process(config), batches, 4)
    t, weight = draw(3)[2], draw(3)[4]
    assert weight is None
    assert t.dtype == torch.float32
    assert len(t.unique()) == 64
    assert torch.equal(t, draw(3)[2])


def test_times_by_importance_come_with_their_weights(batches):
    process = ProcessConfig(timesteps=4, objective="vlb", variance="learned", times="importance")
    config = replace(CONFIG, process=process, sample=SampleConfig(steps=4))
    times, built = build_times(config, CPU), build_process(config)
    draw = build_draw(config, built, batches, 4, times)
    loss = build_loss(config, built, PixelCodec(), CPU, times)
    network = build_network(config, (1, 8, 8), 4, CPU)
    assert torch.equal(draw(0)[4], torch.ones(64))
    for step in range(3):
        images, label, t, noise, weight, _ = draw(step)
        weighted = loss(network, images, label, t, noise, weight)
        times.settle(lambda rows: rows)
        plain, _ = diffusion_loss(network, built, PixelCodec().to_model(images), "eps", label, t, noise, None, "vlb")
        torch.testing.assert_close(weighted, weight * plain)
    assert times.counts.sum() == 3 * 64
    t, weight = draw(3)[2], draw(3)[4]
    torch.testing.assert_close(weight, (1 / (4 * times.probabilities()[t])).float())
    assert weight.std() > 0.1
    assert build_times(CONFIG, CPU) is None


def test_devices():
    assert best_device("cpu") == CPU
    assert best_device("auto").type in ("cpu", "cuda", "mps")
    for name in ("nonsense", "cuda:99", "", "cpu:x"):
        with pytest.raises(InputError, match="is not on this machine; try auto or cpu"):
            best_device(name)


def test_a_device_that_holds_no_numbers():
    with pytest.raises(InputError):
        best_device("meta")


@pytest.mark.parametrize(
    ("diffusion", "sampler", "spacing"),
    [
        ("ddpm", "ddim", "trailing"),
        ("ddpm", "heun", "log_snr"),  # from sigma / alpha = 20,291 a straight line leaves the image
        ("edm", "heun", "karras"),
        ("flow", "heun", "trailing"),
        ("flow", "ddim", "trailing"),
    ],
)
def test_auto_spacing_is_what_suits_the_sampler(diffusion, sampler, spacing):
    config = replace(CONFIG, process=ProcessConfig(diffusion=diffusion, prediction="v"))
    settings = resolved_sampling(SampleConfig(sampler, steps=10), config, build_process(config))
    assert settings.spacing == spacing
    kept = resolved_sampling(SampleConfig(sampler, steps=10, spacing="quadratic"), config, build_process(config))
    assert kept.spacing == "quadratic"


def test_networks_made_in_threads_have_the_weights_of_their_seeds():
    """torch's own generator is one for all threads; and it is left as it was."""
    expected = [build_network(with_seed(seed), (1, 8, 8), 0, CPU).state_dict() for seed in (1, 2)]
    torch.manual_seed(0)
    before, found = torch.get_rng_state(), {}

    def make(k):
        found[k] = build_network(with_seed(1 + k % 2), (1, 8, 8), 0, CPU).state_dict()

    threads = [threading.Thread(target=make, args=(k,)) for k in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.equal(torch.get_rng_state(), before)
    for k, weights in found.items():
        assert all(torch.equal(weights[name], value) for name, value in expected[k % 2].items()), k


def with_seed(seed):
    return replace(CONFIG, train=replace(CONFIG.train, seed=seed))
