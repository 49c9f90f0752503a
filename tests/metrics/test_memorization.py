"""The copyist is caught, held-out images are not, whatever the process; nor do mirrors hide a copy."""

import numpy as np
import pytest
import torch

from bytepixels import EDMProcess, GaussianDiffusion, RectifiedFlow
from bytepixels.codec.codec import PixelCodec
from bytepixels.data import pack
from bytepixels.metrics.memorization import copies, copies_more, copyist, nearest_images
from bytepixels.metrics.optimal_denoiser import EmpiricalImages
from bytepixels.metrics.precision_recall import Nearest

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """uint8 [1797, 1, 8, 8], shuffled."""
    images = pack("digits", cache=tmp_path_factory.mktemp("cache")).images
    return images[np.random.default_rng(0).permutation(len(images))]


def x0_of(images):
    return PixelCodec().to_model(torch.from_numpy(np.array(images)))


def test_nearest_are_those_of_brute_force_in_grey_levels(digits):
    known, asked = digits[:300], digits[300:340]
    found = nearest_images(x0_of(asked), EmpiricalImages(known, None, False), 3)
    squares = (known[None].astype(float) - asked[:, None]) ** 2
    distance = squares.mean((2, 3, 4)) ** 0.5
    assert (found.position.numpy() == distance.argsort(1)[:, :3]).all()
    assert np.allclose(found.distance, np.sort(distance, 1)[:, :3], rtol=1e-4)


def test_an_image_and_its_mirror_image_are_one_neighbour(digits, monkeypatch):
    monkeypatch.setattr("bytepixels.metrics.optimal_denoiser.BLOCK_NUMBERS", 64 * 2 * 7)  # blocks of 7
    known = digits[:30]
    mirrored = x0_of(known[11:12]).flip(-1)
    with_mirrors = nearest_images(mirrored, EmpiricalImages(known, None, True))
    assert with_mirrors.position[0, 0] == 11
    assert with_mirrors.position[0, 1] != 11
    assert with_mirrors.distance[0, 0] < 0.1
    assert nearest_images(mirrored, EmpiricalImages(known, None, False)).distance[0, 0] > 20


@pytest.mark.parametrize(
    "process", [GaussianDiffusion(), EDMProcess(), RectifiedFlow()], ids=lambda p: type(p).__name__
)
def test_the_copyist_is_caught_and_held_out_images_are_not(digits, process):
    known = EmpiricalImages(digits[:1000], None, False)
    held_out = nearest_images(x0_of(digits[1000:1400]), known)
    null = copies(held_out, held_out)
    caught = copies(nearest_images(copyist(known, process, range(40), CPU), known), held_out)
    assert caught.rate > 0.9
    assert caught.near > 0.9
    assert copies_more(caught, null)
    assert null.rate < 0.02
    assert null.near == pytest.approx(0.05, abs=0.005)
    others = copies(nearest_images(x0_of(digits[1400:1790]), known), held_out)
    assert not copies_more(others, null)


def test_a_tenth_of_copies_is_found_and_so_are_copies_of_what_is_there_twice(digits):
    """With every training image there twice the ratio sees nothing; that samples are nearer than others does."""
    twice = EmpiricalImages(
        np.concatenate([digits[:500], np.clip(digits[:500].astype(int) + 2, 0, 255).astype(np.uint8)]), None, False
    )
    held_out = nearest_images(x0_of(digits[500:900]), twice)
    null = copies(held_out, held_out)
    some = np.concatenate([digits[:50], digits[900:1300]])
    noisy = (some + np.random.default_rng(1).normal(0, 2, some.shape)).clip(0, 255).astype(np.uint8)
    found = copies(nearest_images(x0_of(noisy), twice), held_out)
    assert found.rate < 0.05
    assert copies_more(found, null)
    once = EmpiricalImages(digits[:500], None, False)
    assert copies(nearest_images(x0_of(noisy), once), None).rate == pytest.approx(50 / 450, abs=0.02)


def test_a_rate_of_nothing_has_an_interval_and_no_distance_is_a_copy():
    on_top = Nearest(torch.tensor([[0.0, 0.0]]).double(), torch.zeros(1, 2))
    assert copies(on_top, None).rate == 1
    apart = copies(Nearest(torch.tensor([[1.0, 1.2]]).double().repeat(100, 1), torch.zeros(100, 2)), None)
    assert apart.rate == 0
    assert 0.01 < apart.interval < 0.04  # the rule of three: 3 / n
    assert apart.near is None
