"""The Haar stem: exact laws of the transform, and a network that keeps every size."""

import pytest
import torch

from bytepixels.errors import InputError
from bytepixels.networks import UNet
from bytepixels.networks.haar import chosen_stem, even, haar, unhaar
from tests.networks.test_unet import awake, batch


@pytest.mark.parametrize("shape", [(2, 3, 8, 6), (1, 1, 2, 2), (0, 3, 4, 4), (3, 4, 10, 2)])
def test_nothing_is_lost(shape):
    x = torch.randint(-8, 8, shape).double()
    y = haar(x)
    assert y.shape == (shape[0], 4 * shape[1], shape[2] // 2, shape[3] // 2)
    assert torch.equal(unhaar(y), x)


def test_the_matrix_is_haars_and_orthonormal():
    """One block of 2 x 2 pixels, against the products of the one-dimensional transform (a + b, a - b) / sqrt 2."""
    matrix = haar(torch.eye(4, dtype=torch.float64).view(4, 1, 2, 2)).flatten(1).T
    pair = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64) / 2**0.5
    torch.testing.assert_close(matrix, torch.kron(pair, pair), rtol=0, atol=1e-15)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(4, dtype=torch.float64), rtol=0, atol=1e-15)


def test_channels_stay_together_and_places_too():
    x = torch.zeros(1, 3, 6, 8)
    x[0, 1, 2, 5] = 1.0  # in block (1, 2), upper right
    y = haar(x)
    expected = torch.zeros(4, 3, 3, 4)  # means, differences of columns, of rows, of both; by colour
    expected[:, 1, 1, 2] = torch.tensor([0.5, -0.5, 0.5, -0.5])
    assert torch.equal(y[0], expected.flatten(0, 1))


def test_an_odd_side_repeats_its_last_pixels():
    x = torch.arange(15.0).view(1, 1, 3, 5)
    padded = even(x)
    assert padded.shape == (1, 1, 4, 6)
    assert torch.equal(padded[..., :3, :5], x)
    assert torch.equal(padded[0, 0, 3], torch.tensor([10.0, 11, 12, 13, 14, 14]))
    assert torch.equal(padded[0, 0, :, 5], torch.tensor([4.0, 9, 14, 14]))
    assert even(padded) is padded


def network(**changes):
    arguments = {"channels": 1, "width": 8, "multipliers": (1, 2), "blocks": 1, "attention": (1,), "dropout": 0.0}
    return awake(UNet(**(arguments | {"stem": "haar"} | changes))).eval()


@pytest.mark.parametrize("size", [(28, 28), (4, 4), (5, 5), (7, 31), (6, 9), (17, 16)])
@pytest.mark.parametrize("channels", [1, 3])
def test_sizes(size, channels):
    x, t = batch(2, channels, *size)
    out = network(channels=channels)(x, t)
    assert out.shape == x.shape
    assert out.isfinite().all()
    assert out.amax(dim=(2, 3)).min() != 0


def test_every_output_pixel_sees_every_input_pixel():
    model, (x, t) = network(), batch(1, 1, 12, 12)
    corner = x.clone()
    corner[0, 0, 11, 11] += 5
    assert ((model(corner, t) - model(x, t)).abs() > 0).all()


def test_level_0_has_half_the_sides():
    seen = []
    model = network()
    model.first.register_forward_hook(lambda _, inputs, out: seen.extend([inputs[0].shape[1:], out.shape[1:]]))
    model(*batch(2, 1, 12, 8))
    assert seen == [(4, 6, 4), (8, 6, 4)]


def test_learned_variance_doubles_the_channels():
    assert network(channels=3, out_channels=6)(*batch(2, 3, 8, 8)).shape == (2, 6, 8, 8)


def test_what_is_refused():
    with pytest.raises(InputError, match="3 x 8 images are too small for 2 levels: each side must be at least 4"):
        network()(*batch(1, 1, 3, 8))
    with pytest.raises(InputError, match="stem must be one of conv, haar; got 'harr'; did you mean 'haar'"):
        network(stem="harr")


@pytest.mark.parametrize(
    ("asked", "size", "stem"),
    [
        ("auto", (24, 24), "haar"),
        ("auto", (23, 64), "conv"),
        ("auto", (16, 16), "conv"),
        ("conv", (64, 64), "conv"),
        ("haar", (8, 8), "haar"),
    ],
)
def test_the_stem_of_a_size(asked, size, stem):
    assert chosen_stem(asked, *size) == stem
