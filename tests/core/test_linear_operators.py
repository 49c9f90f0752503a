"""Linear operators: what each measures, and that its transpose is one."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from bytepixels import InputError
from bytepixels.core.linear_operators import (
    LinearOperator,
    blur,
    check_transpose,
    downscale,
    grayscale,
    masked,
    operator_of,
    separable,
)

SHAPE = (2, 3, 6, 8)
KEEP = (torch.arange(48).view(1, 6, 8) % 3 > 0).double()
OPERATORS = {
    "downscale": downscale((6, 8), 2),
    "downscale by 1": downscale((6, 8), 1),
    "blur": blur((6, 8), 1.3),
    "blur wider than the image": blur((6, 8), 9.0),
    "no blur": blur((6, 8), 0),
    "grayscale": grayscale(),
    "mask": masked(KEEP),
    "mask of nothing": masked(torch.zeros(1, 6, 8)),
    "separable": separable(torch.randn(5, 6, dtype=torch.float64), torch.randn(3, 8, dtype=torch.float64)),
    "one's own": operator_of(lambda x: torch.fft.rfft2(x).real.cumsum(-1)[:, :2], (3, 6, 8)),
}


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("name", OPERATORS)
def test_transposes_are_adjoint_in_float64(name):
    operator, x = OPERATORS[name], normal(*SHAPE)
    y = normal(*operator.apply(x).shape, seed=1)
    one, other = (operator.apply(x) * y).sum(), (x * operator.transpose(y)).sum()
    assert operator.apply(x).dtype == operator.transpose(y).dtype == torch.float64
    assert operator.transpose(y).shape == x.shape
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    check_transpose(operator, x.float())


def test_downscale_is_the_mean_of_each_block():
    x = normal(*SHAPE)
    small = downscale((6, 8), 2).apply(x)
    assert small.shape == (2, 3, 3, 4)
    torch.testing.assert_close(small[1, 2, 1, 3], x[1, 2, 2:4, 6:8].mean())


def test_no_blur_and_a_factor_of_one_are_the_identity():
    x = normal(*SHAPE)
    for operator in (blur((6, 8), 0), downscale((6, 8), 1), masked(torch.ones(1, 6, 8))):
        torch.testing.assert_close(operator.apply(x), x, rtol=1e-15, atol=1e-15)


@pytest.mark.parametrize("std", [0.5, 1.5, 4.0])
def test_blur_is_scipys_with_mirrored_edges(std):
    x = normal(1, 2, 6, 8)
    known = gaussian_filter(x.numpy(), std, mode="reflect", truncate=1000, radius=int(np.ceil(4 * std)), axes=(2, 3))
    torch.testing.assert_close(blur((6, 8), std).apply(x).numpy(), known, rtol=1e-12, atol=1e-12)


def test_grayscale_is_pillows_to_its_rounding():
    image = torch.randint(0, 256, (3, 6, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    known = np.asarray(Image.fromarray(image.permute(1, 2, 0).numpy()).convert("L")).astype(float)
    assert np.abs(grayscale().apply(image[None].double())[0, 0].numpy() - known).max() <= 0.51


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: downscale((6, 8), 4), "factor must divide both sides of 6 x 8, got 4"),
        (lambda: downscale((6, 8), 0), "factor must be at least 1, got 0"),
        (lambda: blur((6, 8), -1.0), r"blur std must be at least 0, got -1.0"),
        (lambda: check(lambda x: x, lambda y: 2 * y), r"its transpose is not its own: <A x, y> is"),
        (lambda: check(lambda x: x + 1, lambda y: y), r"the operator is not linear"),
        (lambda: check(lambda x: x[..., :2], lambda y: y), r"transpose must return images \[1, 1, 4, 4\], got"),
    ],
)
def test_what_is_refused(make, sentence):
    with pytest.raises(InputError, match=sentence):
        make()


def check(apply, transpose):
    check_transpose(LinearOperator(apply, transpose), torch.zeros(1, 1, 4, 4))
