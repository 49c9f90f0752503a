"""A second time input: nothing in a fresh network, nothing where there is no way to go, and read where there is."""

import pytest
import torch

from bytepixels.errors import InputError
from tests.networks.test_dit import small as small_dit
from tests.networks.test_unet import awake, batch
from tests.networks.test_unet import small as small_unet

MAKES = pytest.mark.parametrize("make", [small_unet, small_dit], ids=["unet", "dit"])
WAYS = torch.tensor([0.0, 0.3, 1.0])


def pair(make, **changes):
    """A trained plain network, and one with destinations that took up its weights."""
    torch.manual_seed(0)
    plain = awake(make(num_classes=3, **changes))
    torch.manual_seed(1)
    other = make(num_classes=3, destinations=True, **changes)
    missing, unexpected = other.load_state_dict(plain.state_dict(), strict=False)
    assert unexpected == []
    assert missing == [f"destination.{layer}.{kind}" for layer in ("first", "last") for kind in ("weight", "bias")]
    return plain.eval(), other.eval()


@MAKES
@pytest.mark.parametrize("embedding", ["article", "ddpm"])
@pytest.mark.parametrize(("channels", "size"), [(1, (8, 8)), (3, (4, 12))])
def test_a_plain_checkpoint_gives_the_same_bits_whatever_the_destination(make, embedding, channels, size):
    plain, other = pair(make, embedding=embedding, channels=channels)
    x, t = batch(3, channels, *size)
    label = torch.tensor([0, 2, 3])
    expected = plain(x, t, label)
    for destination in (None, torch.zeros(3), WAYS):
        assert torch.equal(other(x, t, label, destination=destination), expected)


@MAKES
def test_no_way_to_go_is_no_destination_in_a_trained_network_too(make):
    network = awake(make(destinations=True)).eval()
    x, t = batch(3, 1, 8, 8)
    plain, told = network(x, t), network(x, t, destination=WAYS)
    assert torch.equal(network(x, t, destination=torch.zeros(3)), plain)
    moved = (told - plain).abs().amax(dim=(1, 2, 3))
    assert moved[0] == 0
    assert (moved[1:] > 1e-4).all()
    assert not torch.equal(network(x, t, destination=WAYS.flip(0))[2], told[2])


@MAKES
def test_the_other_weights_are_those_of_a_network_without(make):
    torch.manual_seed(7)
    plain = make().state_dict()
    torch.manual_seed(7)
    other = make(destinations=True).state_dict()
    assert all(torch.equal(other[name], weight) for name, weight in plain.items())


@MAKES
def test_the_projection_learns_where_there_is_a_way(make):
    network = awake(make(destinations=True))
    x, t = batch(3, 1, 8, 8)
    for way, moves in [(torch.zeros(3), False), (WAYS, True)]:
        network.zero_grad()
        network(x, t, destination=way).square().sum().backward()
        assert bool(network.destination.last.weight.grad.any()) is moves


@MAKES
def test_one_image_in_half_precision(make):
    network = awake(make(destinations=True)).bfloat16().eval()
    x, t = batch(1, 1, 8, 8)
    out = network(x.bfloat16(), t, destination=torch.ones(1))
    assert out.dtype == torch.bfloat16
    assert out.isfinite().all()


@pytest.mark.parametrize("destination", [torch.zeros(2), torch.zeros(3, 1), torch.zeros(3).long()])
def test_a_destination_that_does_not_fit_is_refused(destination):
    x, t = batch(3, 1, 8, 8)
    with pytest.raises(InputError, match=r"destination must be \[3\] of floating point"):
        small_unet(destinations=True)(x, t, destination=destination)


@MAKES
def test_a_network_without_destinations_says_so(make):
    with pytest.raises(InputError, match="build it with destinations=True"):
        make()(*batch(3, 1, 8, 8), destination=WAYS)
