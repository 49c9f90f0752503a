"""Perceptual losses: files of every kind, and the gradient of ImageNet's on images that are flat."""

import re

import pytest
import torch
from torch import nn

from bytepixels.errors import InputError
from bytepixels.training.perceptual import LAYERS, open_perceptual
from tests.codec.test_reconstruction_losses import CPU, images


class Features(nn.Module):
    """Of one image: a weight, rows' means."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, 2.0, 4.0]))

    def forward(self, x: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        return (x * self.weight.view(1, 3, 1, 1)).mean(3) * scale


class Apart(nn.Module):
    """Of two images: a number each, or a map, as LPIPS has them."""

    def __init__(self, axes: int):
        super().__init__()
        self.axes = axes

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        apart = (x - y).abs().amax(dim=(1, 2, 3))
        return apart.view(-1, 1, 1, 1) if self.axes == 4 else apart


class StyleGANs(nn.Module):
    """As the vgg16.pt that StyleGAN2 is published with is called; what it gives is too simple."""

    def forward(self, x: torch.Tensor, resize_images: bool = True, return_lpips: bool = False) -> torch.Tensor:
        if resize_images or not return_lpips:
            return torch.zeros(len(x), 4096)
        return (x / 255).mean((2, 3))


class StyleGANsMean(nn.Module):
    def forward(self, x: torch.Tensor, resize_images: bool = True, return_lpips: bool = False) -> torch.Tensor:
        return x.mean()


class StyleGANsApart(nn.Module):
    """Of two images, with options of the same names."""

    def forward(
        self, x: torch.Tensor, y: torch.Tensor, resize_images: bool = False, return_lpips: bool = False
    ) -> torch.Tensor:
        assert not return_lpips
        return (x - y).abs().amax(dim=(1, 2, 3))


class Halvings(nn.Module):
    """Four, which leave nothing of less than 16 pixels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(4):
            x = torch.max_pool2d(x, 2)
        return x


class AtLeast(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[2] >= 16, "too small"
        return x


class Between(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return x + y + z


class One(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x - y).abs().mean()


def scripted(network, folder):
    path = folder / "network.pt"
    torch.jit.script(network).save(str(path))
    return str(path)


def test_perceptual_features_are_compared_and_do_not_learn(tmp_path):
    distance = open_perceptual(scripted(Features(), tmp_path), CPU)
    x, y = (z.float() for z in images(2, 3, 4, 5))
    y.requires_grad_()
    weight = torch.tensor([1.0, 2.0, 4.0]).view(1, 3, 1)
    expected = ((x.mean(3) - y.mean(3)) * weight).square().mean((1, 2))
    torch.testing.assert_close(distance(x, y), expected)
    distance(x, y).sum().backward()
    assert y.grad.abs().sum() > 0


@pytest.mark.parametrize("axes", [1, 4])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_perceptual_distances_of_two_images_of_any_channels(tmp_path, axes, channels):
    distance = open_perceptual(scripted(Apart(axes), tmp_path), CPU)
    x, y = images(3, channels, 4, 5)
    torch.testing.assert_close(distance(x, y), (x - y)[:, :3].abs().amax((1, 2, 3)))


def test_stylegans_vgg16_is_asked_for_lpips_of_grey_levels(tmp_path):
    distance = open_perceptual(scripted(StyleGANs(), tmp_path), CPU)
    x, y = (z.float() for z in images(2, 3, 4, 5))
    expected = ((x.mean((2, 3)) - y.mean((2, 3))) / 2).square().sum(1)
    torch.testing.assert_close(distance(x, y), expected)
    black, white = -torch.ones(1, 1, 4, 4), torch.ones(1, 1, 4, 4)
    torch.testing.assert_close(distance(black, white), torch.tensor([3.0]))


def test_a_network_of_two_images_is_never_stylegans(tmp_path):
    distance = open_perceptual(scripted(StyleGANsApart(), tmp_path), CPU)
    x, y = images(2, 3, 4, 5)
    torch.testing.assert_close(distance(x, y), (x - y).abs().amax((1, 2, 3)))


def test_one_channel_becomes_three_alike(tmp_path):
    distance = open_perceptual(scripted(Features(), tmp_path), CPU)
    x, y = (z.float() for z in images(2, 1, 4, 4))
    torch.testing.assert_close(distance(x, y), distance(x.repeat(1, 3, 1, 1), y.repeat(1, 3, 1, 1)))


def test_what_is_no_perceptual_network_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"must take one image or two, it takes 3$"):
        open_perceptual(scripted(Between(), tmp_path), CPU)
    (tmp_path / "letter.pt").write_text("mine")
    for path in (tmp_path / "letter.pt", tmp_path / "none.pt", tmp_path):
        said = f"--perceptual takes a TorchScript file; {path} cannot be read as one"
        with pytest.raises(InputError, match=f"^{re.escape(said)}$"):
            open_perceptual(str(path), CPU)


@pytest.mark.parametrize("network", [One, StyleGANsMean])
def test_one_number_for_several_images_is_refused(tmp_path, network):
    distance = open_perceptual(scripted(network(), tmp_path), CPU)
    with pytest.raises(InputError, match=r"must give each image numbers of its own, got \[\] for 2 images$"):
        distance(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4))


# ---------------------------------------------------------------------------- of ImageNet


@pytest.fixture(scope="module")
def distance():
    return open_perceptual("imagenet", CPU)


def flat(*colour):
    return torch.tensor(colour).view(1, 3, 1, 1).expand(1, 3, 32, 48).contiguous()


def scene(seed=0):
    """A smooth image in -1..1."""
    return images(1, 3, 32, 48, seed)[0].float()


def test_equal_images_are_not_apart_and_worse_ones_are_farther(distance):
    x = torch.cat([scene(0), scene(1)])
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    apart = torch.stack([distance(x, (x + s * noise).clamp(-1, 1)) for s in (0.0, 0.05, 0.1, 0.2, 0.4)])
    assert torch.equal(apart[0], torch.zeros(2))
    assert (apart.diff(dim=0) > 0.01).all()
    assert apart.max() < 4
    torch.testing.assert_close(distance(x, x.flip(0)), distance(x.flip(0), x))  # symmetric, and image by image
    torch.testing.assert_close(distance(x[:1], x[1:]), distance(x, x.flip(0))[:1])


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels(distance, channels):
    x, y = torch.rand(2, 2, channels, 32, 32) * 2 - 1
    colours = [one[:, :3] if channels == 4 else one.repeat(1, 3, 1, 1) for one in (x, y)]
    torch.testing.assert_close(distance(x, y), distance(*colours))


@pytest.mark.parametrize("colour", [(0.0, 0.0, 0.0), (-1.0, -1.0, -1.0), (1.0, 1.0, 1.0), (0.9, -0.7, -0.9)])
def test_the_gradient_on_flat_images_is_a_finite_one_and_true(distance, colour):
    x, y = flat(*colour), (0.9 * flat(*colour) + 0.01).requires_grad_()
    (gradient,) = torch.autograd.grad(distance(x, y).sum(), y)
    other = scene().requires_grad_()
    (usual,) = torch.autograd.grad(distance(scene(1), other).sum(), other)
    assert gradient.isfinite().all()
    assert gradient.abs().max() < 10 * usual.abs().max()
    step = 0.002 * gradient / gradient.abs().max()
    with torch.no_grad():
        change = (distance(x, y + step) - distance(x, y - step)) / 2
    torch.testing.assert_close(change.sum(), (gradient * step).sum(), rtol=0.25, atol=0)


@pytest.mark.parametrize("colour", [(0.0, 0.0, 0.0), (-1.0, -1.0, -1.0), (1.0, 1.0, 1.0)])
def test_what_no_one_sees_costs_little_on_flat_images(distance, colour):
    """A grey level of noise: without noise of its own the network would see it 5 to 200 times as well as in a scene."""
    noise = torch.randn(1, 3, 32, 48, generator=torch.Generator().manual_seed(3)) / 127.5
    usual = distance(scene(), scene() + noise).item()
    assert distance(flat(*colour), flat(*colour) + noise).item() < max(0.02, 8 * usual)


@pytest.mark.parametrize("off", [(0.1, 0.1, 0.1), (-0.1, 0.0, 0.1), (0.2, -0.1, 0.0), (0.0, 0.05, 0.0)])
@pytest.mark.parametrize("colour", [(0.6, 0.9, 0.2), (-0.8, 0.4, -0.6), (-0.7, -0.7, -0.7), (0.0, 0.0, 0.0)])
def test_the_gradient_on_flat_images_leads_to_their_colour(distance, colour, off):
    x = flat(*colour)
    y = (x + flat(*off)).requires_grad_()
    (gradient,) = torch.autograd.grad(distance(x, y).sum(), y)
    assert (gradient * (x - y.detach())).sum() < 0


def test_every_layer_counts_by_its_weight(distance, monkeypatch):
    x, y, found = scene(0), scene(1), {}
    for layer in LAYERS:
        with monkeypatch.context() as changed:
            for other in LAYERS:
                changed.setitem(LAYERS, other, float(other == layer))
            found[layer] = open_perceptual.__wrapped__("imagenet", CPU)(x, y)
    assert all(value > 0.01 for value in found.values())
    expected = sum(LAYERS[k] * value for k, value in found.items()) / sum(LAYERS.values())
    torch.testing.assert_close(distance(x, y), expected)
