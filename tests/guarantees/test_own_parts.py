"""Parts of one's own, under a name: trained with, sampled from and opened again like those that come along."""

import numpy as np
import pytest
import torch
from torch import nn

import bytepixels as bp
from bytepixels.core.objectives import simple_loss
from bytepixels.runs.overview import read_log
from bytepixels.sampling.trained_model import TrainedModel
from tests.tiny import same_bits

SETTINGS = {"preset": "digits", "images": 64, "batch": 32, "width": 8, "previews": 0, "precision": "float32"}


@pytest.fixture
def own(monkeypatch):
    """Gives a name to a part, until the test is over."""
    return lambda registry, part: monkeypatch.setitem(registry, "mine", part)


def trained(path, **settings):
    return bp.train("digits", path, **(SETTINGS | settings))


def newest(run):
    return sorted(run.directory.checkpoints.iterdir())[-1]


def test_a_schedule(tmp_path, own):
    def schedule(timesteps, end=0.02):
        return np.linspace(1e-4, end, timesteps)

    own(bp.SCHEDULES, schedule)
    run = trained(tmp_path / "mine", schedule="mine")
    assert same_bits(newest(run), newest(trained(tmp_path / "linear", schedule="linear"))) == []
    other = trained(tmp_path / "other", schedule="mine:end=0.015")
    assert same_bits(newest(run), newest(other)) != []
    assert TrainedModel.open(run.path).process.betas[-1] == 0.02
    assert TrainedModel.open(other.path).process.betas[-1] == 0.015
    with pytest.raises(bp.InputError, match="a parameter of --schedule mine"):
        trained(tmp_path / "third", schedule="mine:start=1")


def test_a_sampler(own):
    def euler(x, now, nxt, denoise, noise, memory=None):
        ratio = nxt.sigma / now.sigma
        return ratio * x + (nxt.alpha - ratio * now.alpha) * denoise(x, now), memory

    own(bp.SAMPLERS, bp.Sampler(euler, order=1))
    run = bp.Run.open("digits")
    mine, known = (run.sample(2, sampler=name, steps=5, seed=3) for name in ("mine", "ddim"))
    assert (mine.int() - known.int()).abs().max() <= 1
    with pytest.raises(bp.InputError, match=r"--eta 0\.5 needs --sampler ddim"):
        run.sample(2, sampler="mine", eta=0.5)


class Mixer(nn.Module):
    def __init__(self, channels, width, num_classes=None):
        super().__init__()
        self.layer, self.label = nn.Conv2d(channels, channels, 3, padding=1), nn.Embedding(num_classes + 1, width)
        self.out = nn.Linear(width, channels)

    def forward(self, x, t, label=None):
        return self.layer(x) + self.out(self.label(label))[:, :, None, None]


class Blank(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.layer = nn.Conv2d(channels, channels, 1)

    def forward(self, x, t):
        return self.layer(x)


@pytest.mark.parametrize("network", [Mixer, Blank])
def test_a_network(tmp_path, own, network, monkeypatch):
    own(bp.NETWORKS, network)
    run = trained(tmp_path / "run", backbone="mine", dropout=0.1)
    again = trained(tmp_path / "again", backbone="mine", dropout=0.1, images=32)
    again = trained(tmp_path / "again", backbone="mine", dropout=0.1)
    assert same_bits(newest(run), newest(again)) != []  # a learning rate that ended after 32
    images = run.sample(3, steps=3, label="2", guidance=2) if network is Mixer else run.sample(3, steps=3)
    assert images.shape == (3, 1, 8, 8)
    assert isinstance(TrainedModel.open(run.path).network.network, network)
    monkeypatch.delitem(bp.NETWORKS, "mine")
    with pytest.raises(bp.InputError, match="--backbone must be one of unet, dit, unet2d; got 'mine'"):
        bp.Run.open(tmp_path / "run")


def test_a_module_that_cannot_be_told_a_destination_is_refused_for_a_flow_map(tmp_path, own):
    own(bp.NETWORKS, Blank)
    with pytest.raises(
        bp.InputError, match="--objective flow_map needs a subclass of Network, and --backbone mine is none"
    ):
        trained(tmp_path / "run", backbone="mine", objective="flow_map", diffusion="flow", prediction="v")
    assert not (tmp_path / "run").exists()


def test_an_objective(tmp_path, own):
    own(bp.OBJECTIVES, lambda found, weighting: 4 * simple_loss(found, weighting))
    losses = []
    for name in ("mine", "simple"):
        trained(tmp_path / name, objective=name, images=32)
        losses.append(next(line["loss"] for line in read_log(tmp_path / name) if "loss" in line))
    assert losses[0] == pytest.approx(4 * losses[1], rel=1e-6)


def test_a_process(tmp_path, own):
    class Slower(bp.RectifiedFlow):
        """Rectified flow by another name."""

    own(bp.PROCESSES, bp.ForwardProcess(Slower, times=("uniform",)))
    run = trained(tmp_path / "run", diffusion="mine", prediction="v")
    flow = trained(tmp_path / "flow", diffusion="flow", times="uniform", prediction="v")
    assert same_bits(newest(run), newest(flow)) == []
    assert torch.equal(run.sample(2, steps=4), flow.sample(2, steps=4))
