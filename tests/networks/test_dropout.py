"""Dropout by key: what is dropped is a function of the image's key, the layer and the place, and nothing else."""

import pytest
import torch

from bytepixels.networks import UNet
from bytepixels.networks.dropout import Dropout, mixed

KEYS = torch.tensor([5, 99, 2**31 - 1, 0, 123456])


def kept(layer, x, keys=None):
    return layer(x, keys) != 0


def test_an_image_is_dropped_alike_in_any_batch_and_memory_format():
    layer, x = Dropout(0.3), torch.ones(5, 3, 5, 7)
    whole = kept(layer, x, KEYS)
    assert torch.equal(kept(layer, x[[3, 1]], KEYS[[3, 1]]), whole[[3, 1]])
    assert torch.equal(kept(layer, x.to(memory_format=torch.channels_last), KEYS), whole)
    assert torch.equal(kept(layer, x.double(), KEYS.to(torch.int32)), whole)
    torch.manual_seed(1)
    assert torch.equal(kept(layer, x, KEYS), whole)


def test_keys_layers_and_places_are_dropped_independently():
    """Correlations of 200 masks of 2,304 numbers stay within what chance gives: 5 of its standard deviations."""
    layer, other = Dropout(0.4), Dropout(0.4)
    other.number = 1
    keys, x = torch.arange(100), torch.ones(100, 9, 16, 16)
    masks = torch.cat([kept(one, x, keys) for one in (layer, other)]).double().flatten(1)  # [200, 2304]
    away = (masks - 0.6) / 0.24**0.5
    between = (away @ away.T / away.shape[1]).fill_diagonal_(0)
    assert between.abs().max() < 5 / away.shape[1] ** 0.5
    for lag in (1, 2, 9, 16 * 9):
        neighbours = (away[:, lag:] * away[:, :-lag]).mean()
        assert neighbours.abs() < 5 / away.numel() ** 0.5, lag
    assert masks.mean().item() == pytest.approx(0.6, abs=5 * (0.24 / masks.numel()) ** 0.5)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.999999])
def test_the_mean_stays_what_it_was(p):
    x = torch.ones(64, 8, 16, 16)
    y = Dropout(p)(x, torch.arange(64))
    assert (y == 0).double().mean().item() == pytest.approx(p, abs=0.003)
    if p < 0.9:
        assert y.mean().item() == pytest.approx(1, abs=0.01)
    assert torch.equal(Dropout(p).eval()(x, torch.arange(64)), x)


def test_gradients_pass_where_the_numbers_did():
    x = torch.randn(4, 2, 3, 3, requires_grad=True)
    layer, keys = Dropout(0.5), torch.arange(4)
    layer(x, keys).sum().backward()
    assert torch.equal(x.grad != 0, kept(layer, torch.ones_like(x), keys))


def test_without_keys_torch_draws_them():
    layer, x = Dropout(0.5), torch.ones(2, 4, 8, 8)
    torch.manual_seed(0)
    one, other = kept(layer, x), kept(layer, x)
    assert not torch.equal(one, other)
    assert not torch.equal(one[0], one[1])
    torch.manual_seed(0)
    assert torch.equal(kept(layer, x), one)


def test_mixing_is_one_to_one():
    words = torch.arange(-(2**17), 2**17, dtype=torch.int32)
    assert len(mixed(words).unique()) == len(words)


def test_every_layer_of_a_network_drops_otherwise():
    network = UNet(channels=1, width=8, multipliers=(1, 2), blocks=1, attention=(), dropout=0.5)
    numbers = [layer.number for layer in network.modules() if isinstance(layer, Dropout)]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) > 4


def test_a_network_answers_for_an_image_alike_alone_and_in_a_batch():
    torch.manual_seed(0)
    network = UNet(channels=1, width=8, multipliers=(1, 2), blocks=1, attention=(1,), dropout=0.5).double()
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    x, t = torch.randn(5, 1, 6, 8, dtype=torch.float64), torch.arange(5)
    whole = network(x, t, dropout_keys=KEYS)
    torch.testing.assert_close(network(x[2:4], t[2:4], dropout_keys=KEYS[2:4]), whole[2:4], rtol=1e-9, atol=1e-9)
    assert not torch.allclose(network(x, t, dropout_keys=KEYS + 1), whole)
