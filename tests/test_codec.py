"""uint8 <-> [-1, 1]."""

import pytest
import torch

from bytepixels import PixelCodec

ALL = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)


def test_every_grey_level_returns():
    assert torch.equal(PixelCodec().to_images(PixelCodec().to_model(ALL)), ALL)


def test_grey_levels_are_even_from_minus_one_to_one():
    x0 = PixelCodec().to_model(ALL)
    assert x0.dtype == torch.float32
    torch.testing.assert_close(x0.flatten(), torch.arange(-255, 256, 2) / 255, rtol=0, atol=2e-7)
    assert x0.flatten()[[0, 255]].tolist() == [-1, 1]


@pytest.mark.parametrize(
    ("x0", "grey"), [(-1, 0), (1, 255), (-7, 0), (1.5, 255), (0.001, 128), (-0.001, 127), (-1 + 1.4 / 127.5, 1)]
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_x0_is_clamped_and_rounded_to_the_nearest_grey(x0, grey, dtype):
    images = PixelCodec().to_images(torch.full((1, 1, 1, 1), x0, dtype=dtype))
    assert images.dtype == torch.uint8
    assert images.item() == grey


def test_half_precision_comes_back_within_its_own_rounding():
    x0 = PixelCodec().to_model(ALL).to(torch.bfloat16)
    assert (PixelCodec().to_images(x0).int() - ALL.int()).abs().max() <= 1


def test_what_was_given_is_left_alone():
    pictures = ALL.clone()
    PixelCodec().to_model(pictures)
    assert torch.equal(pictures, ALL)
    x0 = torch.full((1, 1, 2, 2), 3.0)
    PixelCodec().to_images(x0)
    assert (x0 == 3).all()


def test_pictures_that_are_floats_already_are_refused():
    with pytest.raises(ValueError, match=r"pictures must be uint8, got torch\.float32"):
        PixelCodec().to_model(ALL.float())
