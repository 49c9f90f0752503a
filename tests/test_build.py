"""build: the names of a config become the objects that they promise, and randomness is a function of (seed, step)."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from bytepixels.build import (
    best_device,
    best_precision,
    build_denoiser,
    build_draw,
    build_loss,
    build_network,
    build_process,
    build_sampler,
)
from bytepixels.codec import PixelCodec
from bytepixels.data.batches import Batches
from bytepixels.errors import InputError
from bytepixels.process import Level
from bytepixels.runs.config import Config, NetworkConfig, ProcessConfig, SampleConfig, TrainConfig
from bytepixels.samplers import SAMPLERS
from bytepixels.schedules import SCHEDULES, zero_terminal_snr

CPU = torch.device("cpu")
TINY = NetworkConfig(width=8, multipliers=(1,), blocks=1, attention=(), dropout=0.0)
CONFIG = Config(network=TINY, train=TrainConfig(batch=64, seed=3, precision="float32"))


@pytest.fixture
def batches():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (100, 1, 8, 8), np.uint8)
    return Batches(images, rng.integers(0, 4, 100), CONFIG.train.batch, CONFIG.train.seed, flip=True)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_process_has_the_schedule(schedule):
    process = build_process(replace(CONFIG, process=ProcessConfig(timesteps=200, schedule=schedule)))
    assert torch.equal(process.betas, SCHEDULES[schedule](200))


def test_zero_terminal_snr_rescales_the_schedule():
    config = replace(CONFIG, process=ProcessConfig(200, "cosine", zero_terminal_snr=True, prediction="v"))
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
    net = NetworkConfig(16, (1, 2), 3, attention=(0,), heads=2, dropout=0.25, embedding="ddpm")
    network = build_network(replace(CONFIG, network=net), (3, 8, 8), 7, CPU)
    assert network.first.weight.shape[:2] == (16, 3)
    assert network.null_label == 7
    assert network.min_side == 2
    assert {m.p for m in network.modules() if isinstance(m, torch.nn.Dropout)} == {0.25}
    assert build_network(replace(CONFIG, network=net), (3, 8, 8), 0, CPU).null_label is None
    t = torch.tensor([300.0])
    assert not torch.equal(network.embed(t, 16), build_network(CONFIG, (3, 8, 8), 0, CPU).embed(t, 16))


def test_a_batch_is_a_function_of_seed_and_step(batches):
    draw = build_draw(CONFIG, build_process(CONFIG), batches, 4)
    first, again, later = draw(5), draw(5), draw(6)
    torch.manual_seed(0)  # what others draw in between changes nothing
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, later, strict=True))
    other_seed = build_draw(replace(CONFIG, train=replace(CONFIG.train, seed=4)), build_process(CONFIG), batches, 4)(5)
    assert not any(torch.equal(a, b) for a, b in zip(first[1:], other_seed[1:], strict=True))
    images, label, t, noise = first
    assert (images.dtype, images.shape) == (torch.uint8, (64, 1, 8, 8))
    assert noise.shape == images.shape
    assert noise.dtype == torch.float32
    assert t.min() >= 0
    assert t.max() <= 999
    assert label.max() <= 4


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


def test_pictures_too_small_for_the_levels_are_refused():
    deep = replace(CONFIG, network=replace(TINY, multipliers=(1, 1, 1)))
    assert build_network(deep, (1, 4, 9), 0, CPU).min_side == 4
    with pytest.raises(InputError, match="3 x 9 pictures are too small for 3 levels: each side must be at least 4"):
        build_network(deep, (1, 3, 9), 0, CPU)


def test_guidance_pulls_from_no_label_to_the_label():
    """x0 = (c_skip x + c_out net) with a network whose output is its label: 4 stands for none."""

    class Network(torch.nn.Linear):  # some module with weights
        def forward(self, x, t, label=None):
            value = 4.0 if label is None else label.float()[:, None, None, None]
            return torch.zeros_like(x) + value

    network = Network(1, 1)
    config = replace(CONFIG, process=ProcessConfig(prediction="x0"))
    x, level, label = torch.zeros(2, 1, 4, 4), Level(10, 0.8, 0.6), torch.tensor([0, 1])
    for guidance, wanted in ((1.0, (0, 1)), (0.0, (4, 4)), (3.0, (-8, -5))):
        settings = SampleConfig(guidance=guidance, clip=False)
        denoise = build_denoiser(network, config, settings, build_process(config), label)
        assert denoise(x, level)[:, 0, 0, 0].tolist() == pytest.approx(wanted)
    clipped = build_denoiser(network, config, SampleConfig(guidance=3.0), build_process(config), label)
    assert clipped(x, level).unique().tolist() == [-1.0]
    with pytest.raises(InputError, match="--guidance 3 needs class labels, and this run has none"):
        build_denoiser(network, config, SampleConfig(guidance=3.0), build_process(config), None)


def test_ddpm_takes_the_large_variance_on_the_full_chain_only():
    """Song et al. 2021, table 1: at 1000 steps the large variance is the better one, at 100 it spoils the pictures."""
    assert build_sampler(SampleConfig("ddpm", steps=1000), 1000).keywords == {"variance": "large"}
    assert build_sampler(SampleConfig("ddpm", steps=999), 1000).keywords == {"variance": "small"}
    assert build_sampler(SampleConfig("ddim", eta=0.5), 1000).keywords == {"eta": 0.5}
    for name in ("heun", "dpmpp_2m"):
        assert build_sampler(SampleConfig(name), 1000) is SAMPLERS[name]


def test_devices():
    assert best_device("cpu") == CPU
    assert best_device("auto").type in ("cpu", "cuda", "mps")
    for name in ("nonsense", "cuda:99", "", "cpu:x"):
        with pytest.raises(InputError, match="is not on this machine; try auto or cpu"):
            best_device(name)


def test_a_device_that_holds_no_numbers():
    with pytest.raises(InputError):
        best_device("meta")


def test_precision():
    for name in ("float32", "bf16"):
        assert best_precision(name, CPU) == name
    assert best_precision("auto", CPU) in ("float32", "bf16")
    assert best_precision("auto", torch.device("mps")) == "float32"
