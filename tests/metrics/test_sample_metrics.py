"""What is measured of a set, and the ladder that says what the numbers mean."""

import numpy as np
import pytest
import torch

from bytepixels.data import pack
from bytepixels.errors import InputError
from bytepixels.metrics.feature_cache import FeatureSet, features_of
from bytepixels.metrics.features import RandomFeatures
from bytepixels.metrics.sample_metrics import LADDER, NOISES, as_noise, blurred, frechet, ladder, measure


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """uint8 [1797, 1, 8, 8], shuffled."""
    images = pack("digits", cache=tmp_path_factory.mktemp("cache")).images
    return torch.from_numpy(images[np.random.default_rng(0).permutation(len(images))])


@pytest.fixture(scope="module")
def reference(digits):
    return features_of(RandomFeatures(1), digits[:1000])


def test_every_measure_tells_noise_from_data(digits, reference):
    features, held_out = RandomFeatures(1), digits[1000:1700]
    noisy = dict(ladder(held_out))["noise 64"]
    good, bad = (measure(features_of(features, x), reference, reference.moments) for x in (held_out, noisy))
    for name in good:
        worse = bad[name]["value"] - good[name]["value"]
        assert worse < 0 if name in ("precision", "recall", "density", "coverage") else worse > 0, name
    assert good.keys() == {"frechet", "kernel", "precision", "recall", "coverage", "density"}
    assert all(found["interval"] is None or found["interval"] >= 0 for found in good.values())


def test_the_ladder_goes_up(digits, reference):
    rungs = {
        name: frechet(features_of(RandomFeatures(1), worse).features, reference.moments)[0]
        for name, worse in ladder(digits[1000:1400])
    }
    assert len(rungs) == LADDER
    noises = [rungs[f"noise {noise}"] for noise in NOISES]
    assert noises == sorted(noises)
    assert rungs["blur 0.5"] < rungs["blur 1"] < rungs["blur 2"]
    floor = frechet(features_of(RandomFeatures(1), digits[1000:1400]).features, reference.moments)[0]
    assert min(rungs[name] for name in ("noise 4", "brighter by 16", "half of them twice")) > floor


def test_a_distance_is_put_between_its_rungs():
    rungs = {f"noise {noise}": float(noise) for noise in NOISES}
    assert as_noise(1.0, rungs) == "noise of std 2/255 or less"
    assert as_noise(16.0, rungs) == "noise of std 16/255"
    assert as_noise(24.0, rungs) == "noise of std 23/255"  # half way, on a scale of factors
    assert as_noise(999.0, rungs) == "noise of more than std 128/255"


def test_blur_is_a_gaussian_that_keeps_the_mean():
    spike = torch.zeros(1, 2, 31, 31)
    spike[0, 0, 15, 15] = 1
    found = blurred(spike, 2.0)[0]
    assert found[1].abs().max() == 0
    assert found[0].sum() == pytest.approx(1, abs=1e-5)
    assert found[0, 15, 17] / found[0, 15, 15] == pytest.approx(np.exp(-0.5), rel=1e-4)
    assert torch.allclose(blurred(torch.full((1, 1, 4, 4), 7.0), 1.0), torch.full((1, 1, 4, 4), 7.0))


def test_few_images_are_refused(reference):
    few = FeatureSet(reference.features[:15], None)
    with pytest.raises(InputError, match="a set of 15 images says nothing: 16 or more"):
        measure(few, reference, reference.moments)
