"""Tiles put together: exact where a network sees no farther than the overlap, close elsewhere."""

import itertools

import pytest
import torch
from torch import nn

from bytepixels.errors import InputError
from bytepixels.networks.autoencoder import Autoencoder
from bytepixels.networks.tiling import OVERLAP, TILE, Tiled, _spans, blended, decode_tiled, encode_tiled


def small(kind="kl", attention=True):
    """Of factor 2, with random numbers in place of a fresh one's zeros."""
    torch.manual_seed(0)
    network = Autoencoder(1, 8, (1, 2), 1, latent_channels=3, kind=kind, codes=16, attention=attention)
    with torch.no_grad():
        for p in network.parameters():
            if not p.any():
                p.normal_(std=0.1)
    return network


def images(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("side", [5, 8, 9, 15, 16, 31, 100])
@pytest.mark.parametrize(("tile", "overlap"), [(8, 0), (8, 2), (8, 6), (16, 4)])
def test_tiles_cover_a_side_and_share_the_overlap(side, tile, overlap):
    side *= 2
    spans = _spans(side, tile, overlap, 2)
    assert spans[0].start == 0
    assert spans[-1].stop == side
    for one, other in itertools.pairwise(spans):
        assert one.stop - one.start == tile
        assert one.stop - other.start >= overlap
        assert other.start % 2 == 0


def test_what_sees_a_pixel_alone_is_exact():
    x = images(2, 3, 40, 52)
    torch.testing.assert_close(blended(lambda part: 3 * part + 1, x, 16, 4, 1, 1), 3 * x + 1)
    pool = nn.AvgPool2d(4)
    torch.testing.assert_close(blended(pool, x, 16, 4, 4, 1), pool(x))
    up = nn.Upsample(scale_factor=2)
    torch.testing.assert_close(blended(up, x, 16, 0, 1, 2), up(x))


def test_neighbours_fade_into_each_other():
    """Tiles that say where they begin, along a row: steps become slopes of the overlap's length."""
    x = torch.arange(12.0).expand(1, 1, 1, 12)
    out = blended(lambda part: torch.full_like(part, part.min()), x, 8, 4, 1, 1)[0, 0, 0]
    torch.testing.assert_close(out, torch.tensor([0.0] * 4 + [0.5, 1.5, 2.5, 3.5] + [4.0] * 4))


def without_norms(network):
    """The norms' statistics, which are of a tile, out of the way."""
    for module in network.modules():
        if isinstance(module, nn.GroupNorm):
            module.forward = lambda h: h
    return network


@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_convolutions_differ_near_a_tiles_edge_alone(kind):
    """Halfway through the overlap is farther from any edge than they see (at most 20 pixels)."""
    network = without_norms(small(kind, attention=False))
    x = images(1, 1, 96, 144)
    with torch.no_grad():
        mean, std = network.encode(x)
        tiled = encode_tiled(network, x, 96, 48)
        one, other = mean[..., 36:], tiled[0][..., 36:]
        assert (mean[..., :14] - tiled[0][..., :14]).abs().max() < 1e-5  # the first tile's alone
        assert (one[..., 22:] - other[..., 22:]).abs().max() < 1e-5  # the last one's
        assert (mean - tiled[0]).abs().max() < 0.05 * mean.std()
        if kind == "kl":
            torch.testing.assert_close(std, tiled[1], rtol=0.05, atol=0.05)
        whole, tiles = network.decode(mean), decode_tiled(network, mean, 96, 48)
        assert (whole - tiles).abs().mean() < 0.02 * whole.std()


def test_an_image_that_fits_is_encoded_whole():
    network, x = small(), images(2, 1, 16, 12)
    mean, std = network.encode(x)
    tiled = encode_tiled(network, x, 16, 4)
    assert torch.equal(mean, tiled[0])
    assert torch.equal(std, tiled[1])
    assert torch.equal(network.decode(mean), decode_tiled(network, mean, 16, 4))


@pytest.mark.parametrize(
    ("tile", "overlap", "sentence"),
    [
        (15, 4, "tile and overlap must be multiples of the factor 2, got 15 and 4"),
        (16, 3, "tile and overlap must be multiples of the factor 2, got 16 and 3"),
        (16, 16, "overlap must be below the tile's 16, got 16"),
        (0, 0, "tile must be at least 1, got 0"),
        (16, -2, "overlap must be at least 0, got -2"),
    ],
)
def test_settings_that_do_not_fit(tile, overlap, sentence):
    for work in (encode_tiled, decode_tiled):
        with pytest.raises(InputError, match=sentence):
            work(small(), images(1, 1 if work is encode_tiled else 3, 32, 32), tile, overlap)


def test_the_wrapper_is_the_network_itself_where_one_tile_is_enough_and_tiles_beyond():
    network = small(attention=False)
    tiled, x, large = Tiled(network), images(2, 1, 12, 20), images(1, 1, 16, TILE + 64)
    with torch.no_grad():
        for one, other in zip(tiled.encode(x), network.encode(x), strict=True):
            assert torch.equal(one, other)
        z = network.encode(x)[0]
        assert torch.equal(tiled.decode(z), network.decode(z))
        for one, other in zip(tiled.encode(large), encode_tiled(network, large, TILE, OVERLAP), strict=True):
            assert torch.equal(one, other)
        assert not torch.equal(tiled.encode(large)[0], network.encode(large)[0])
