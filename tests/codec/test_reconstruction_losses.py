"""How far a reconstruction is from its image: against torchmetrics, torch.distributions and sums by hand."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Normal
from torch.distributions import kl_divergence as divergence
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure as reference_ms_ssim,
)
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
)
from torchmetrics.functional.image import (
    structural_similarity_index_measure as reference_ssim,
)

from bytepixels.codec.reconstruction_losses import (
    SCALES,
    adaptive_weight,
    gradient_error,
    hinge,
    kl_divergence,
    l1,
    l2,
    ms_ssim,
    psnr,
    ssim,
)

CPU = torch.device("cpu")
RANGE = {"data_range": (-1.0, 1.0), "reduction": "none"}


def images(count, channels, height, width, seed=0):
    """Smooth ones in -1..1 and noisy copies, float64."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.linspace(0, 3, height), torch.linspace(0, 5, width), indexing="ij")
    phase = 6 * torch.rand(count, channels, 1, 1, generator=generator)
    smooth = torch.sin(2 * x + phase) * torch.cos(y * x / 2 - phase)
    noise = torch.randn(smooth.shape, generator=generator) * torch.arange(1, count + 1).view(-1, 1, 1, 1) / 10
    return smooth.double(), (0.9 * smooth + noise).clamp(-1, 1).double()


# ---------------------------------------------------------------------------- similarity


@pytest.mark.parametrize("shape", [(3, 16, 29), (1, 11, 11), (2, 40, 12)])
def test_ssim_is_torchmetrics_where_no_padding_reaches(shape):
    """Theirs reflects at the borders; the middle of their map, 5 pixels in, is what we average. To 1e-10."""
    x, y = images(3, *shape)
    _, whole = reference_ssim(x, y, return_full_image=True, **RANGE)
    torch.testing.assert_close(ssim(x, y), whole[:, :, 5:-5, 5:-5].mean((1, 2, 3)), atol=1e-10, rtol=0)
    torch.testing.assert_close(ssim(x.float(), y.float()).double(), ssim(x, y), atol=1e-4, rtol=0)


def reference_scales(x, y, weights):
    """MS-SSIM of torchmetrics' maps without their padding, which their own leaves in the last scale."""
    product = torch.ones(len(x), dtype=x.dtype)
    for scale, weight in enumerate(weights):
        _, contrast = reference_ssim(x, y, return_contrast_sensitivity=True, **RANGE)
        _, whole = reference_ssim(x, y, return_full_image=True, **RANGE)
        last = scale == len(weights) - 1
        product *= (whole[:, :, 5:-5, 5:-5].mean((1, 2, 3)) if last else contrast).clamp(min=0) ** weight
        x, y = nn.functional.avg_pool2d(x, 2), nn.functional.avg_pool2d(y, 2)
    return product


@pytest.mark.parametrize(
    ("scales", "sides"), [(1, (21, 64)), (2, (22, 43)), (3, (44, 50)), (4, (100, 88)), (5, (176, 180))]
)
def test_ms_ssim_has_as_many_scales_as_fit(scales, sides):
    """To 1e-7 of torchmetrics' maps: our weights are float32."""
    x, y = images(2, 1, *sides)
    weights = np.array(SCALES[:scales]) / sum(SCALES[:scales])
    torch.testing.assert_close(ms_ssim(x, y), reference_scales(x, y, weights), atol=1e-7, rtol=0)


def test_ms_ssim_is_torchmetrics_but_for_the_padding_of_its_last_scale():
    """To 0.02, where that scale is 22 pixels wide."""
    x, y = (z[1:].float() for z in images(2, 1, 400, 360))
    torch.testing.assert_close(ms_ssim(x, y), reference_ms_ssim(x, y, normalize="relu", **RANGE), atol=0.02, rtol=0)


@pytest.mark.parametrize("sides", [(1, 1), (2, 5), (4, 4), (8, 3), (10, 12)])
def test_tiny_images_have_a_window_of_all_there_is(sides):
    x, y = images(2, 1, *sides)
    size = min(11, *sides)
    at = np.arange(size) - (size - 1) / 2
    window = np.exp(-(at[:, None] ** 2 + at**2) / (2 * 1.5**2))
    window /= window.sum()
    expected = []
    for one, other in zip(x[:, 0].numpy(), y[:, 0].numpy(), strict=True):
        found = []
        for top in range(sides[0] - size + 1):
            for left in range(sides[1] - size + 1):
                a, b = (z[top : top + size, left : left + size] for z in (one, other))
                ma, mb = (window * a).sum(), (window * b).sum()
                va, vb, both = ((window * p).sum() for p in ((a - ma) ** 2, (b - mb) ** 2, (a - ma) * (b - mb)))
                c1, c2 = 0.02**2, 0.06**2
                found.append((2 * ma * mb + c1) * (2 * both + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2)))
        expected.append(np.mean(found))
    torch.testing.assert_close(ssim(x, y), torch.tensor(expected), atol=1e-10, rtol=0)
    torch.testing.assert_close(ms_ssim(x, y), ssim(x, y).clamp(min=0.01), atol=1e-10, rtol=0)


def test_equal_images_are_alike_and_opposite_ones_still_have_a_gradient():
    x, _ = images(2, 3, 48, 48)
    torch.testing.assert_close(torch.stack([ssim(x, x), ms_ssim(x, x)]), torch.ones(2, 2).double())
    y = (-x).requires_grad_()
    value = ms_ssim(x, y)
    assert (value < 0.2).all()
    value.sum().backward()
    assert y.grad.isfinite().all()


def test_psnr_is_torchmetrics():
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randint(256, (3, 1, 5, 7), generator=generator).to(torch.uint8) for _ in range(2))
    y[2] = x[2]
    y[1] = x[1].clamp(max=254) + 1
    theirs = peak_signal_noise_ratio(x.double(), y.double(), 255.0, reduction="none", dim=(1, 2, 3))
    torch.testing.assert_close(psnr(x, y)[:2], theirs[:2].double(), atol=1e-5, rtol=0)
    assert psnr(x, y)[2] == math.inf


# ---------------------------------------------------------------------------- errors


def test_errors_by_hand():
    """One image of two rows and three columns, and one that is met exactly."""
    off = torch.tensor([[[[1.0, 3.0, -1.0], [0.0, 2.0, -2.0]]], [[[0.0] * 3] * 2]])
    x = torch.arange(12.0).view(2, 1, 2, 3)
    assert l1(x, x - off).tolist() == [1.5, 0]
    assert l2(x, x - off).tolist() == [pytest.approx(19 / 6), 0]
    down, across = (1 + 1 + 1) / 3, (2 + 4 + 2 + 4) / 4
    assert gradient_error(x, x - off).tolist() == [(down + across) / 2, 0]


def test_the_gradient_of_a_line_or_a_point_is_of_what_neighbours_there_are():
    x, y = torch.tensor([[[[0.0, 1.0, 4.0]]]]), torch.zeros(1, 1, 1, 3)
    assert gradient_error(x, y).tolist() == gradient_error(x.mT, y.mT).tolist() == [2]
    assert gradient_error(x[..., :1], y[..., :1]).tolist() == [0]


def test_kl_divergence_is_torchs():
    generator = torch.Generator().manual_seed(0)
    mean, std = torch.randn(3, 4, 2, 5, generator=generator), torch.rand(3, 4, 2, 5, generator=generator) * 2 + 1e-3
    theirs = divergence(Normal(mean, std), Normal(0.0, 1.0)).sum((1, 2, 3))
    torch.testing.assert_close(kl_divergence(mean, std), theirs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(kl_divergence(torch.zeros(2, 1, 1, 1), torch.ones(2, 1, 1, 1)), torch.zeros(2))


def test_hinge_by_hand():
    real = torch.tensor([[[[2.0, 0.5]]], [[[-1.0, 1.0]]]])
    fake = torch.tensor([[[[-3.0, 0.0]]], [[[1.0, -1.0]]]])
    assert hinge(real, fake).tolist() == [(0 + 0.5 + 0 + 1) / 4, (2 + 0 + 2 + 0) / 4]


def test_adaptive_weight_by_hand():
    """Slopes of 2 (y - 1) and of a constant vector: their norms' ratio, image by image, clamped."""
    y = torch.tensor([[4.0, 5.0], [1.0, 1.0], [1e9, 1.0]]).view(3, 1, 1, 2).requires_grad_()
    judged = (y.flatten(1) * torch.tensor([0.6, 0.8])).sum(1)
    error = (y - 1).square().flatten(1).sum(1)
    weight = adaptive_weight(error, judged, y)
    torch.testing.assert_close(weight, torch.tensor([10 / 1.0001, 0, 1e4]))


def test_adaptive_weight_depends_on_no_other_image():
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(4, 1, 6, 6, generator=generator) for _ in range(2))

    def weights(rows):
        own = y[rows].clone().requires_grad_()
        return adaptive_weight(l1(x[rows], own), own.pow(3).flatten(1).mean(1), own)

    alone = torch.cat([weights(slice(k, k + 1)) for k in range(4)])
    torch.testing.assert_close(weights(slice(0, 4)), alone)
    assert len(alone.unique()) == 4


def test_no_pair_of_images_has_an_endless_gradient():
    """The root of a similarity near 0 would; of noise the similarities of single scales lie there."""
    x = torch.rand(500, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    y = (torch.rand(500, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1).requires_grad_()
    (gradient,) = torch.autograd.grad(ms_ssim(x, y).sum(), y)
    assert gradient.flatten(1).norm(dim=1).max() < 0.2
