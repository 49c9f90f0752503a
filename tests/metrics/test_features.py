"""What turns images into vectors: what it is called, what it depends on, and what is refused in a sentence."""

import numpy as np
import pytest
import torch
from torch import nn

from bytepixels.errors import InputError
from bytepixels.metrics import imagenet
from bytepixels.metrics.feature_cache import features_of, reference_of
from bytepixels.metrics.features import PixelFeatures, RandomFeatures, ScriptFeatures, rgb, title
from bytepixels.metrics.open_features import chosen_features


@pytest.fixture(scope="module")
def images():
    """uint8 [40, 3, 12, 10]."""
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (40, 3, 12, 10), dtype=np.uint8))


class Colours(nn.Module):
    """Mean and largest value of each channel, [B, 6, 1, 1]."""

    def forward(self, x):
        assert x.dtype == torch.uint8
        x = x.float()
        return torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)[:, :, None, None]


class FakeInception(nn.Module):
    def __init__(self, dimensions: int):
        super().__init__()
        self.dimensions = dimensions

    def forward(self, x, return_features: bool = False, no_output_bias: bool = False):
        mean = x.float().mean((1, 2, 3))
        if return_features:
            return mean[:, None].expand(-1, self.dimensions)
        assert no_output_bias
        return torch.stack([mean / 255, 1 - mean / 255], 1)


def script(module, path):
    torch.jit.script(module).save(path)
    return path


def test_random_features_are_a_function_of_the_image_alone(images):
    features = RandomFeatures(3)
    found = features(images)
    assert found.shape == (40, 2 * (24 + 32 + 40))
    assert torch.allclose(features(images[7:8]), found[7:8], atol=1e-6)
    assert torch.equal(RandomFeatures(3)(images), found)
    assert RandomFeatures(3).hash == features.hash
    assert len({features.hash, RandomFeatures(1).hash, RandomFeatures(3, seed=2).hash}) == 3
    assert features.probabilities(images, found) is None


@pytest.mark.parametrize("shape", [(1, 8, 8), (4, 1, 1), (2, 5, 3), (3, 64, 64)])
def test_random_features_take_any_shape_and_channels(shape):
    images = torch.randint(0, 256, (3, *shape), dtype=torch.uint8)
    found = RandomFeatures(shape[0])(images)
    assert found.isfinite().all()
    assert (found[0] - found[1]).abs().max() > 0.01


def test_random_features_see_blur_noise_and_colour(images):
    features, smooth = RandomFeatures(3), images.float().mean((2, 3), keepdim=True).expand(-1, -1, 12, 10).byte()
    swapped = images.clone()
    swapped[:, 0] //= 2
    far = [(features(other) - features(images)).norm(dim=1).min() for other in (smooth, swapped)]
    assert min(far) > 0.3


def test_pixel_features_are_the_principal_components_of_the_data(images):
    features = PixelFeatures(images.numpy())
    found, rows = features(images), images.float().flatten(1) / 127.5 - 1
    values = torch.linalg.svdvals(rows - rows.mean(0))
    assert found.shape == (40, 40)  # 40 images have no more of them
    assert torch.allclose(found.norm(dim=0)[:39], values[:39], rtol=1e-3)
    assert torch.allclose(found.mean(0), torch.zeros(40), atol=1e-4)
    assert features.resize == "none"
    large = torch.randint(0, 256, (6, 1, 128, 64), dtype=torch.uint8)
    assert PixelFeatures(large.numpy()).resize == "area to 32 x 16"
    assert PixelFeatures(large.numpy()).hash != features.hash
    with pytest.raises(InputError, match="two or more images, got 1"):
        PixelFeatures(large[:1].numpy())


def test_any_torchscript_file_is_features_under_its_own_name(images, tmp_path):
    features = ScriptFeatures(script(Colours(), tmp_path / "colours.pt"))
    expected = torch.cat([images.float().mean((2, 3)), images.float().amax((2, 3))], 1)
    assert torch.allclose(features(images), expected)
    assert title(features.name) == "Frechet distance (features colours)"
    grey = images[:, :1]
    assert torch.equal(features(grey)[:, 3], features(grey)[:, 5])


def test_only_inceptions_is_called_fid(images, tmp_path):
    features = ScriptFeatures(script(FakeInception(2048), tmp_path / "inception-2015-12-05.pt"))
    found = features(images)
    assert found.shape == (40, 2048)
    assert features.probabilities(images, found).shape == (40, 2)
    assert title(features.name) == "FID"
    assert title(RandomFeatures(3).name) == "Frechet distance (features random)"
    (tmp_path / "other").mkdir()
    other = ScriptFeatures(script(FakeInception(64), tmp_path / "other" / "inception-2015-12-05.pt"))
    with pytest.raises(InputError, match="is not Inception: it has 64 features, not 2048"):
        other(images)


def test_files_that_are_no_features_are_refused_in_a_sentence(images, tmp_path):
    (tmp_path / "noise.pt").write_bytes(b"no archive")
    for path, sentence in (
        ("noise.pt", "noise.pt is no TorchScript file"),
        ("none.pt", "none.pt is no TorchScript file"),
    ):
        with pytest.raises(InputError, match=sentence) as refusal:
            ScriptFeatures(tmp_path / path)
        assert "\n" not in str(refusal.value)

    class Fixed(nn.Module):
        def forward(self, x):
            return x.float() @ torch.ones(7, 1)

    with pytest.raises(InputError, match=r"cannot take uint8 images, 3 channels, of shape \[40, 3, 12, 10\]"):
        ScriptFeatures(script(Fixed(), tmp_path / "fixed.pt"))(images)


def test_transparent_images_are_seen_on_white():
    image = torch.tensor([[0, 100, 200, 51]], dtype=torch.uint8)[..., None, None]
    assert rgb(image).flatten().tolist() == [204, 224, 244]
    assert rgb(image[:, [1, 3]]).flatten().tolist() == [224, 224, 224]


# ---- kept features


class Counting(RandomFeatures):
    calls = 0

    def __call__(self, images):
        Counting.calls += len(images)
        return super().__call__(images)


def test_features_of_a_set_are_kept_by_the_hash_of_data_features_and_resize(images, tmp_path):
    features, images = Counting(3), images.numpy()

    def found(data="data", features=features, most=30):
        Counting.calls = 0
        return reference_of(features, images, data, tmp_path, most)

    first = found()
    assert Counting.calls == len(first) == 30
    again = found()
    assert Counting.calls == 0
    assert torch.equal(again.features, first.features)
    assert again.hash == first.hash
    other = Counting(3)
    other.resize = "to 8 x 8"
    hashes = {first.hash, found("other").hash, found(features=Counting(3, seed=5)).hash, found(features=other).hash}
    assert len(hashes) == 4
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-9])
    assert torch.equal(found().features, first.features)
    assert Counting.calls == 30
    assert torch.equal(found(most=1000).features.sort(0).values, features_of(features, images).features.sort(0).values)


def test_moments_of_kept_features_are_those_of_all_at_once(images, monkeypatch):
    monkeypatch.setattr("bytepixels.metrics.feature_cache.CHUNK", 7)
    found = features_of(RandomFeatures(3), images, batch=9)
    assert torch.allclose(found.moments.covariance, torch.cov(found.features.double().T), atol=1e-12)
    assert found.moments.n == 40


def test_features_that_know_objects_are_the_default_where_they_are_installed(monkeypatch):
    assert chosen_features("auto") == "random"  # as the tests have it
    monkeypatch.setattr(imagenet, "installed", lambda: True)
    assert (chosen_features("auto"), chosen_features("pixels")) == ("imagenet", "pixels")
