"""What makes a step fast costs no exactness: 500 steps of a run beside the same training written out plainly."""

import copy
import math

import pytest
import torch
from torch.nn import functional as F

from bytepixels.build import build_network, build_process
from bytepixels.data import pack
from bytepixels.data.batches import Batches
from bytepixels.runs.run_directory import open_run
from bytepixels.training.diffusion_task import build_draw
from tests.tiny import checkpoints, cli, log_of, tensors, words

STEPS, BATCH, PEAK, WARMUP, HALF_LIFE = 500, 16, 0.002, 800, 2000
FLAGS = words(
    f"""
    --preset digits --width 8 --multipliers 1 2 --attention 1 --heads 2 --blocks 1 --dropout 0.1 --label-dropout 0.1
    --schedule cosine --prediction v --batch {BATCH} --images {STEPS * BATCH} --lr {PEAK} --warmup {WARMUP}
    --lr-decay cosine --ema-half-life {HALF_LIFE} --device cpu --log-seconds 0 --previews 0 --seed 3
    """
)


def trained(run, *flags):
    """The losses of a run's steps, float64 [STEPS], and what its last checkpoint holds."""
    assert cli("train", "digits", *FLAGS, *flags, "--run", run) == 0
    losses = torch.tensor([line["loss"] for line in log_of(run)], dtype=torch.float64)
    assert len(losses) == STEPS
    return losses, tensors(checkpoints(run)[-1])


@pytest.fixture(scope="module")
def fast(tmp_path_factory):
    """A run of the real thing, in float32."""
    run = tmp_path_factory.mktemp("fast") / "run"
    return run, *trained(run, "--precision", "float32")


def attention(q, k, v, attn_mask=None):
    """Vaswani et al. 2017, eq. 1."""
    assert attn_mask is None
    return torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), dim=-1) @ v


def plainly(run):
    """The same training without any of what makes it fast: contiguous images and weights, attention as it is written,
    Adam and the average one weight after another. Weights, batches, times and noise come from the same seeds.
    """
    config, packed = open_run(run).config, pack("digits")
    process, seed = build_process(config), config.train.seed
    network = build_network(config, (1, 8, 8), 10, torch.device("cpu")).to(memory_format=torch.contiguous_format)
    assert all(parameter.is_contiguous() for parameter in network.parameters())
    average = copy.deepcopy(network)
    optimizer = torch.optim.Adam(network.parameters(), lr=PEAK, foreach=False, fused=False)
    draw = build_draw(config, process, Batches(packed.images, packed.labels, BATCH, seed), 10)
    losses = []
    for step in range(STEPS):
        images, label, t, noise, _, keys = draw(step)
        seen = step * BATCH
        for group in optimizer.param_groups:
            rise, fall = (seen + 1) / (WARMUP + 1), (1 + math.cos(math.pi * step / STEPS)) / 2
            group["lr"] = PEAK * min(1, rise) * fall
        alpha, sigma = process.alpha_sigma(t)
        x0 = images.float() / 127.5 - 1
        output = network((alpha * x0 + sigma * noise).contiguous(), t.float(), label, keys)
        loss = (output - (alpha * noise - sigma * x0)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        norm = math.sqrt(sum(p.grad.square().sum().item() for p in network.parameters()))
        for parameter in network.parameters():
            parameter.grad *= min(1.0, 1 / (norm + 1e-6))
        optimizer.step()
        half_life = min(HALF_LIFE, 0.05 * seen)
        decay = 0.5 ** (BATCH / half_life) if half_life else 0.0
        with torch.no_grad():
            for mean, parameter in zip(average.parameters(), network.parameters(), strict=True):
                mean.copy_(decay * mean + (1 - decay) * parameter)
        losses.append(loss.item())
    named = {"model": network.state_dict(), "ema": average.state_dict()}
    state = {f"{stem}/{name}": value for stem, values in named.items() for name, value in values.items()}
    return torch.tensor(losses, dtype=torch.float64), state


def weights(state):
    return torch.cat([state[name].double().flatten() for name in sorted(state) if name.startswith("model/")])


def lag(state):
    """From the weights to their average: a thousandth of them at the end of a run, and all that the average adds."""
    names = sorted(name for name in state if name.startswith("ema/"))
    return torch.cat([state[name].double().flatten() for name in names]) - weights(state)


def apart(values, expected):
    """The norm of the difference, as a share of what was expected."""
    return ((values - expected).norm() / expected.norm()).item()


def late(losses):
    """The mean of the last hundred."""
    return losses[-100:].mean().item()


@pytest.mark.slow
def test_fast_steps_are_plain_steps(fast, monkeypatch):
    """Measured: losses 3e-7 apart at most, weights 7e-6 and the average's lag 2e-4 after 500 steps."""
    run, losses, state = fast
    monkeypatch.setattr(F, "scaled_dot_product_attention", attention)
    plain, expected = plainly(run)
    torch.testing.assert_close(losses, plain, rtol=2e-6, atol=0)
    assert losses[0] > 2 * late(losses)  # it did learn something
    assert 0 < apart(weights(state), weights(expected)) < 5e-5
    assert 0 < apart(lag(state), lag(expected)) < 1e-3


@pytest.mark.slow
def test_bf16_learns_what_float32_does(fast, tmp_path):
    """Measured: losses 0.3% apart at most, the mean of the last 100 0.015%, weights 1% and the average's lag 7%."""
    _, expected, whole = fast
    losses, state = trained(tmp_path / "run", "--precision", "bf16")
    torch.testing.assert_close(losses, expected, rtol=0.01, atol=0)
    assert late(losses) == pytest.approx(late(expected), rel=1e-3)
    assert 1e-4 < apart(weights(state), weights(whole)) < 0.03
    assert apart(lag(state), lag(whole)) < 0.2
