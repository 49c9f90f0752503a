"""Muon beside torch's own, as a singular value decomposition sees it, and through every way a run can go."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from bytepixels.config.training import TrainConfig
from bytepixels.errors import InputError
from bytepixels.randomness import NOISE, seeded
from bytepixels.training.loop import TrainState, train_step
from bytepixels.training.optimizers import Muon, orthogonal
from tests.tiny import checkpoints, cli, plain, same_bits, tensors, train

CONFIG = TrainConfig(images=64, batch=8, optimizer="muon", lr=0.01, warmup=0, clip_norm=0, ema_half_life=16)


def draw(step):
    """Images [8, 3, 6, 6] of any step."""
    return (torch.randn(8, 3, 6, 6, generator=seeded(0, NOISE, step)),)


def loss(model, x):
    return (model(x) - x.mean((1, 2, 3))[:, None]).square().flatten()


def network():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3), nn.SiLU(), nn.Conv2d(8, 12, 3), nn.Flatten(), nn.Linear(48, 20), nn.Linear(20, 1)
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def fresh(config=CONFIG):
    return TrainState.fresh(network(), config)


def kept(state):
    return {f"{stem}.{n}": t.clone() for stem in ("model", "optimizer") for n, t in state.tensors()[stem].items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("precision", ["bf16", "float32"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_it_is_torchs_muon_on_matrices_and_adam_on_the_rest(weight_decay, precision):
    """Torch makes steps orthogonal in bf16: equal to the bit where ours do, else but for that
    rounding, which decides the directions that a gradient of low rank leaves open."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.Linear(16, 12), nn.LayerNorm(12), nn.Linear(12, 24), nn.Linear(24, 2))
    config = replace(CONFIG, weight_decay=weight_decay, precision=precision)
    state, theirs, start = TrainState.fresh(model, config), copy.deepcopy(model), copy.deepcopy(model)
    matrices = [theirs[1].weight, theirs[3].weight]
    others = [p for p in theirs.parameters() if all(p is not matrix for matrix in matrices)]
    muon = torch.optim.Muon(matrices, lr=0.01, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.AdamW(others, lr=0.01, weight_decay=weight_decay, fused=True)
    x = torch.randn(8, 4, generator=seeded(1, NOISE))
    for _ in range(3):
        train_step(state, (x,), lambda network, x: network(x).square().mean(1), config)
        for optimizer in (muon, adam):
            optimizer.zero_grad()
        (theirs(x).square().mean(1).sum() / 8).backward()
        for optimizer in (muon, adam):
            optimizer.step()
    triples = list(zip(*(network.parameters() for network in (model, theirs, start)), strict=True))
    assert all(torch.equal(ours, other) for ours, other, _ in triples) == (precision == "bf16")
    for ours, other, begun in triples:
        assert (ours - other).norm() <= 0.5 * (ours - begun).norm()


@pytest.mark.parametrize("shape", [(5, 40), (40, 5), (12, 12)])
def test_newton_schulz_beside_the_singular_values_themselves(shape):
    """Each goes through the same five polynomials; the vectors stay."""
    matrix = torch.randn(shape, generator=seeded(3, NOISE))
    u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    s = s / matrix.double().norm()
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    torch.testing.assert_close(orthogonal(matrix).double(), u @ s.diag() @ v, atol=1e-5, rtol=0)
    assert orthogonal(torch.zeros(shape)).count_nonzero() == 0


def test_a_convolutions_step_is_its_gradient_made_orthogonal():
    """U S V' of the gradient becomes U V', its singular values about 1: this one's end up in 0.68..1.14."""
    model = network()
    weight, optimizer = model[2].weight, Muon(model, 0.01, weight_decay=0.0)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=seeded(2, NOISE))  # [12, 8, 3, 3], in another layout
    before = weight.detach().clone()
    optimizer.step()
    u, _, v = torch.linalg.svd(weight.grad.flatten(1), full_matrices=False)
    inner = u.T @ (before - weight.detach()).flatten(1) @ v.T / (0.01 * 0.2 * 72**0.5)
    assert ((inner.diagonal() > 0.6) & (inner.diagonal() < 1.25)).all()
    assert (inner - inner.diagonal().diag()).abs().max() < 0.05


def test_the_layout_in_memory_changes_nothing():
    last, first = fresh(), TrainState.fresh(network().to(memory_format=torch.contiguous_format), CONFIG)
    train_step(last, draw(0), loss, CONFIG)
    train_step(first, draw(0), loss, CONFIG)
    for one, other in zip(last.model.parameters(), first.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)
    shapes = {name: tuple(p.shape) for name, p in last.model.named_parameters()}
    momenta = {n: t for n, t in last.tensors()["optimizer"].items() if n.endswith("momentum_buffer")}
    assert {n.removesuffix(".momentum_buffer") for n in momenta} == {"2.weight", "4.weight"}  # not what has 3 or 1
    assert all(tuple(t.shape) == shapes[n.removesuffix(".momentum_buffer")] for n, t in momenta.items())


def test_a_state_that_was_saved_and_loaded_goes_on_bitwise():
    straight, first, second = fresh(), fresh(), fresh()
    for step in range(6):
        train_step(straight, draw(step), loss, CONFIG)
    for step in range(3):
        train_step(first, draw(step), loss, CONFIG)
    saved = {stem: {n: t.clone().contiguous() for n, t in named.items()} for stem, named in first.tensors().items()}
    second.load(3, saved)
    for step in range(3, 6):
        train_step(second, draw(step), loss, CONFIG)
    assert same(kept(second), kept(straight))


def test_a_step_that_is_left_out_changes_nothing():
    config = replace(CONFIG, on_nonfinite="skip")
    state, other = fresh(config), fresh()
    for step in range(2):
        train_step(state, draw(step), loss, config)
        train_step(other, draw(step), loss, CONFIG)
    assert same(kept(state), kept(other))  # looking for it changes nothing either
    result = train_step(state, draw(2), lambda model, x: loss(model, x) * torch.nan, config)
    assert result.grad_norm.isnan()
    assert same(kept(state), kept(other))
    train_step(state, draw(3), loss, config)
    assert not same(kept(state), kept(other))
    assert all(value.isfinite().all() for value in kept(state).values())


def test_a_run_goes_on_bitwise_and_not_with_another_optimizer(tmp_path, capsys):
    flags = ("--optimizer", "muon", "--lr-decay", "none", "--flip", "yes", "--dropout", 0.2)
    straight, extended = tmp_path / "straight", tmp_path / "extended"
    assert train(straight, *flags, steps=5) == train(extended, *flags, steps=2) == 0
    assert train(extended, *flags, steps=5) == 0
    assert same_bits(checkpoints(straight)[-1], checkpoints(extended)[-1]) == []
    names = tensors(checkpoints(straight)[-1])
    assert "optimizer/down.0.conv1.weight.momentum_buffer" in names
    assert "optimizer/first.weight.exp_avg" in names
    assert cli("train", "digits", "--run", straight, "--optimizer", "adam", "--images", 999) == 2
    assert "begun with other settings (--optimizer muon -> adam)" in plain(capsys.readouterr().err)


def test_it_does_not_go_with_shard():
    with pytest.raises(InputError, match="--shard needs --optimizer adam, got muon"):
        TrainConfig(optimizer="muon", shard=True)
    with pytest.raises(InputError, match="--optimizer must be one of adam, muon; got 'moon'; did you mean 'muon'"):
        TrainConfig(optimizer="moon")
