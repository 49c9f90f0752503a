"""The residual autoencoder: what is known exactly of one that has learnt nothing."""

import pytest
import torch
from torch.nn import functional as F

from bytepixels.networks import Autoencoder
from bytepixels.networks.autoencoder import FRESH_STD
from bytepixels.networks.haar import coarse_first, from_coarse
from tests.networks.test_unet import awake


def fresh(**changes):
    arguments = {"channels": 3, "width": 8, "multipliers": (1, 2, 4), "blocks": 1, "latent_channels": 4}
    return Autoencoder(**(arguments | {"residual": True} | changes))


def images(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_the_transform_over_scales(factor):
    x = images(2, 3, 16, 24).double()
    y = coarse_first(x, factor)
    assert y.shape == (2, 3 * factor**2, 16 // factor, 24 // factor)
    torch.testing.assert_close(from_coarse(y, factor), x, rtol=0, atol=1e-14)
    torch.testing.assert_close(y.square().sum(), x.square().sum(), rtol=1e-14, atol=0)
    torch.testing.assert_close(y[:, :3] / factor, F.avg_pool2d(x, factor), rtol=0, atol=1e-14)
    if factor > 1:  # the next nine are the differences of the coarsest scale
        below = F.avg_pool2d(x, factor // 2) * (factor // 2)
        torch.testing.assert_close(y[:, :12], coarse_first(below, 2), rtol=0, atol=1e-14)


@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_latents_begin_as_mean_colours_and_the_image_as_the_transform_of_all_there_is(kind):
    network, x = fresh(kind=kind).eval(), images(2, 3, 16, 24)
    mean, std = network.encode(x)
    torch.testing.assert_close(mean[:, :3], F.avg_pool2d(x, 4))
    assert torch.equal(std, torch.zeros_like(std)) if kind == "vq" else torch.allclose(std, torch.tensor(FRESH_STD))
    y = coarse_first(x, 4)
    y[:, 4:] = 0
    torch.testing.assert_close(network.render(mean), from_coarse(y, 4))
    flat = torch.tensor([0.9, -0.5, 0.1]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    torch.testing.assert_close(network.render(network.encode(flat)[0]), flat)


@pytest.mark.parametrize(("multipliers", "latents"), [((1, 2), 12), ((1, 2), 20), ((1,), 3)])
def test_with_room_for_every_number_nothing_is_lost(multipliers, latents):
    network, x = fresh(multipliers=multipliers, latent_channels=latents).eval(), images(2, 3, 8, 8)
    torch.testing.assert_close(network(x), x)


def test_what_it_learns_is_added():
    network, x = awake(fresh()).eval(), images(2, 3, 16, 16)
    plain = awake(fresh(residual=False)).eval()
    plain.load_state_dict(network.state_dict())
    mean, own = network.encode(x)[0], plain.encode(x)[0]
    torch.testing.assert_close(mean - own, fresh().encode(x)[0], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(network.render(mean) - plain.render(mean), fresh().render(mean), atol=1e-5, rtol=1e-5)


def test_gradients_reach_every_parameter():
    network = awake(fresh())
    x = images(2, 3, 16, 16)
    (network(x, torch.randn(2, 4, 4, 4)) - x).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
