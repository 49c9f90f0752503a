"""Drift: what differs is told, what does not is let pass as often as promised, and the numbers are what they say."""

import numpy as np
import pytest
import torch

from bytepixels.errors import InputError
from bytepixels.metrics.drift import drift, image_statistics


def some_images(n, seed, shift=0.0, contrast=1.0, smooth=0):
    """uint8 [n, 3, 16, 16] of blobs with noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:16, :16]
    centre = rng.uniform(4, 12, (n, 2, 1, 1))
    blob = np.exp(-((y - centre[:, 0]) ** 2 + (x - centre[:, 1]) ** 2) / 20)
    images = 80 + 100 * blob[:, None] * rng.uniform(0.5, 1, (n, 3, 1, 1)) + rng.normal(0, 12, (n, 3, 16, 16))
    for _ in range(smooth):
        images = (images + np.roll(images, 1, -1) + np.roll(images, 1, -2)) / 3
    return torch.from_numpy((128 + contrast * (images - 128) + shift).clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def data():
    return image_statistics(some_images(600, 0))


def outside(samples, data):
    return {one.name.split(",")[0] for one in drift(samples, data) if one.outside}


def test_data_of_the_same_law_passes(data):
    """Five statistics of 20 sets at 99% each: one alarm is expected, five are 3 in a thousand."""
    alarms = sum(len(outside(image_statistics(some_images(150, seed)), data)) for seed in range(1, 21))
    assert alarms <= 4


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"shift": 8}, "mean of each channel"),
        ({"contrast": 0.8}, "standard deviation of each channel"),
        ({"shift": 8}, "brightness"),
        ({"smooth": 1}, "power spectrum"),
    ],
)
def test_what_differs_is_told(data, change, told):
    assert told in outside(image_statistics(some_images(150, 1, **change)), data)


def test_a_class_too_often_is_told_and_only_where_classes_are_known(data):
    images = some_images(300, 1)

    def looks(shares):
        label = torch.from_numpy(np.random.default_rng(2).choice(3, len(images), p=shares))
        return image_statistics(images, torch.eye(3)[label])

    even, uneven = looks([0.3, 0.3, 0.4]), looks([0.6, 0.2, 0.2])
    assert outside(looks([0.3, 0.3, 0.4]), even) == set()
    assert outside(uneven, even) == {"classes"}
    assert outside(uneven, data) == set()
    classes = drift(uneven, even)[-1]
    assert classes.name == "classes"
    assert sum(classes.samples) == pytest.approx(1)


def test_the_numbers_are_what_they_say():
    images = some_images(40, 3)
    found = {one.name: one for one in drift(image_statistics(images), image_statistics(some_images(50, 4)))}
    values = images.double().movedim(1, 0).flatten(1)
    assert found["mean of each channel"].samples == pytest.approx(values.mean(1).tolist())
    assert found["standard deviation of each channel"].samples == pytest.approx(values.std(1, correction=0).tolist())
    grey = images.double().mean(1)
    histogram = np.histogram(grey.numpy(), bins=32, range=(0, 256))[0] / grey.numel()
    assert found["brightness"].samples == pytest.approx(histogram.tolist())


def test_a_wave_has_its_power_at_its_frequency():
    wave = 128 + 100 * np.sin(2 * np.pi * 5 * np.arange(32) / 32)
    images = torch.from_numpy(np.broadcast_to(wave, (2, 1, 32, 32)).astype(np.uint8).copy())
    power = image_statistics(images).power[0]
    assert power.argmax() == 4  # frequencies from 1 on
    assert power[4] > 100 * power[[3, 5]].max()


@pytest.mark.parametrize("shape", [(1, 1, 1), (4, 2, 3), (2, 8, 1)])
def test_any_shape(shape):
    images = torch.randint(0, 256, (5, *shape), dtype=torch.uint8)
    for one in drift(image_statistics(images), image_statistics(images)):
        assert np.isfinite([*one.samples, *one.data, *one.half]).all()
        assert not one.outside


def test_one_image_is_refused(data):
    with pytest.raises(InputError, match="two or more images, got 1 and 600"):
        drift(image_statistics(some_images(1, 0)), data)


def test_what_never_varies_in_the_data_has_an_interval_that_can_be_divided_by():
    """One image many times, and its like with another brightness."""
    same = torch.full((20, 3, 16, 16), 40, dtype=torch.uint8)
    assert all(min(one.half) > 0 for one in drift(image_statistics(same, None), image_statistics(same, None)))
    assert outside(image_statistics(same, None), image_statistics(same, None)) == set()
    assert "brightness" in outside(image_statistics(same + 50, None), image_statistics(same, None))
