"""The loop on a problem small enough to do by hand: no diffusion in sight."""

import copy

import pytest
import torch
from torch import nn

from bytepixels.config.training import TrainConfig
from bytepixels.randomness import NOISE, seeded
from bytepixels.training.loop import TrainState, total_steps, train_step, train_steps

CONFIG = TrainConfig(images=64, batch=8, lr=0.01, warmup=0, clip_norm=0, ema_half_life=16)


def draw(step):
    """Inputs [8, 3] and targets [8, 1] of any step; the third tensor of the batch is absent."""
    x = torch.randn(8, 3, generator=seeded(0, NOISE, step))
    return x, x.sum(dim=1, keepdim=True), None


def loss(model, x, y, nothing):
    assert nothing is None
    return (model(x) - y).square().flatten()


def network(dropout=0.0):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 16), nn.Dropout(dropout), nn.Linear(16, 1))


def tensors(state):
    return {f"{stem}.{name}": t.clone() for stem, named in state.tensors().items() for name, t in named.items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_one_step_is_adams_on_the_mean_loss():
    state = TrainState.fresh(network(), CONFIG)
    reference = copy.deepcopy(state.model)
    optimizer = torch.optim.Adam(reference.parameters(), lr=0.01)
    result = train_step(state, draw(0), loss, CONFIG)
    x, y, _ = draw(0)
    mean = torch.nn.functional.mse_loss(reference(x), y)
    mean.backward()
    optimizer.step()
    for ours, theirs in zip(state.model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(result.losses.mean(), mean.detach())
    assert result.step == state.step == 1


def test_weight_decay_is_decoupled():
    config = TrainConfig(images=64, batch=8, lr=0.01, warmup=0, clip_norm=0, weight_decay=0.1)
    state = TrainState.fresh(network(), config)
    assert isinstance(state.optimizer, torch.optim.AdamW)
    assert state.optimizer.defaults["weight_decay"] == 0.1


@pytest.mark.parametrize("micro_batch", [1, 3, 4, 8])
def test_gradients_of_micro_batches_are_averaged_not_summed(micro_batch):
    whole, parts = TrainState.fresh(network(), CONFIG), TrainState.fresh(network(), CONFIG)
    config = TrainConfig(images=64, batch=8, micro_batch=micro_batch, lr=0.01, warmup=0, clip_norm=0)
    a, b = train_step(whole, draw(0), loss, CONFIG), train_step(parts, draw(0), loss, config)
    torch.testing.assert_close(a.losses, b.losses)
    torch.testing.assert_close(a.grad_norm, b.grad_norm)
    for one, other in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_the_gradient_is_clipped_and_its_norm_reported_before_that():
    config = TrainConfig(images=64, batch=8, lr=0.01, warmup=0, clip_norm=0.01)
    state = TrainState.fresh(network(), config)
    result = train_step(state, draw(0), loss, config)
    clipped = torch.stack([p.grad.norm() for p in state.model.parameters()]).norm()
    assert result.grad_norm > 0.1
    assert clipped == pytest.approx(0.01, rel=1e-3)


def test_it_learns_and_ends_with_the_budget():
    config = TrainConfig(images=3201, batch=8, lr=0.01, warmup=0)
    state = TrainState.fresh(network(), config)
    results = list(train_steps(state, draw, loss, lambda: config))
    assert len(results) == total_steps(config) == 401
    assert results[-1].losses.mean() < 0.05 * results[0].losses.mean()


def test_a_state_that_was_saved_and_loaded_goes_on_bitwise():
    config = TrainConfig(
        images=160, batch=8, lr=0.01, warmup=50, lr_decay="cosine", ema_half_life=30, weight_decay=0.01
    )
    straight = TrainState.fresh(network(dropout=0.5), config)
    for _ in train_steps(straight, draw, loss, lambda: config):
        pass
    first = TrainState.fresh(network(dropout=0.5), config)
    for result in train_steps(first, draw, loss, lambda: config):
        if result.step == 7:
            break
    saved = {stem: {n: t.clone() for n, t in named.items()} for stem, named in first.tensors().items()}
    torch.manual_seed(99)  # nothing may hang on the state of the global generator
    torch.rand(5)
    second = TrainState.fresh(nn.Sequential(nn.Linear(3, 16), nn.Dropout(0.5), nn.Linear(16, 1)), config)
    second.load(7, saved)
    for _ in train_steps(second, draw, loss, lambda: config):
        pass
    assert same(tensors(second), tensors(straight))


def test_a_fresh_average_is_a_copy_not_the_model():
    state = TrainState.fresh(network(), CONFIG)
    train_step(state, draw(0), loss, CONFIG)
    train_step(state, draw(1), loss, CONFIG)
    assert not same(state.model.state_dict(), state.ema.state_dict())
    assert not any(p.requires_grad for p in state.ema.parameters())
    assert not state.ema.training
