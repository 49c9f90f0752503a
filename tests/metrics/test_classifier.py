"""Features of one's own labels: what is learnt, kept and read again, and what is refused."""

import json

import numpy as np
import pytest
import torch

from bytepixels.data import pack
from bytepixels.errors import InputError
from bytepixels.metrics.classifier import (
    ClassifierFeatures,
    Recipe,
    accuracy,
    augmented,
    save_classifier,
    train_classifier,
)

CPU = torch.device("cpu")
RECIPE = Recipe(width=8, epochs=3, batch=64, flip=False)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """uint8 [1797, 1, 8, 8] and labels, shuffled."""
    packed = pack("digits", cache=tmp_path_factory.mktemp("cache"))
    order = np.random.default_rng(0).permutation(len(packed))
    return torch.from_numpy(packed.images[order]), torch.from_numpy(packed.labels[order])


@pytest.fixture(scope="module")
def network(digits):
    images, labels = digits
    *_, (seen, _loss, network) = train_classifier(images[:1400], labels[:1400], 10, RECIPE, CPU)
    assert seen == 3 * (1400 // 64) * 64
    return network


def save(folder, network, **notes):
    save_classifier(folder, network, RECIPE, {"classes": list("0123456789"), "size": [8, 8], "channels": 1, **notes})
    return folder


def test_it_learns_the_classes(digits, network):
    images, labels = digits
    assert accuracy(network, images[1400:], labels[1400:], CPU) > 0.9


def test_it_is_a_function_of_the_seed(digits):
    images, labels = (part[:200] for part in digits)

    def weights(seed):
        *_, (_, _, network) = train_classifier(images, labels, 10, Recipe(width=4, epochs=1, batch=50, seed=seed), CPU)
        return network.head.weight

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_what_is_kept_gives_the_same_features_and_classes(digits, network, tmp_path):
    images, labels = (part[1400:] for part in digits)
    features = ClassifierFeatures(save(tmp_path / "my-digits", network))
    found = features(images)
    assert found.shape == (397, 64)
    assert torch.allclose(found, network.eval().features(images.float() / 127.5 - 1), atol=1e-5)
    probabilities = features.probabilities(images, found)
    assert torch.allclose(probabilities.sum(1), torch.ones(397), atol=1e-5)
    assert (probabilities.argmax(1) == labels).double().mean() == accuracy(network, images, labels, CPU)
    assert (features.name, features.resize) == ("my-digits", "bilinear to 8 x 8")
    large = images.repeat_interleave(2, -1).repeat_interleave(2, -2)
    assert (features.probabilities(large, features(large)).argmax(1) == labels).double().mean() > 0.8


def test_what_is_damaged_or_something_else_is_refused_in_a_sentence(network, digits, tmp_path):
    folder = save(tmp_path / "features", network)
    whole = (folder / "features.safetensors").read_bytes()
    notes = json.loads((folder / "features.json").read_text())
    with pytest.raises(InputError, match="of images with 1 channels, got 3"):
        ClassifierFeatures(folder)(digits[0][:2].expand(-1, 3, -1, -1))
    changed = bytearray(whole)
    changed[-1] ^= 1
    for content in (whole[:-9], bytes(changed), b""):
        (folder / "features.safetensors").write_bytes(content)
        with pytest.raises(InputError, match="holds no features of evaluate train-features") as refusal:
            ClassifierFeatures(folder)
        assert "\n" not in str(refusal.value)
    (folder / "features.safetensors").write_bytes(whole)
    for said in ({**notes, "format": 9}, {**notes, "classes": ["a"]}, [], {}):
        (folder / "features.json").write_text(json.dumps(said))
        with pytest.raises(InputError, match=r"format 9, this version reads 1|holds no features"):
            ClassifierFeatures(folder)
    with pytest.raises(InputError, match="holds no features"):
        ClassifierFeatures(tmp_path / "none")


def test_images_are_moved_by_at_most_an_eighth_and_mirrored_half_of_the_time():
    ramp = torch.arange(16, dtype=torch.uint8).expand(400, 1, 16, 16)
    moved = augmented(ramp, False, 0, 0)[:, 0, 8]  # a row of each
    shift = moved[:, 8].int() - 8
    assert shift.unique().tolist() == [-2, -1, 0, 1, 2]
    assert moved[shift == 2][0].tolist() == [*range(2, 16), 14, 13]
    assert moved[shift == -2][0].tolist() == [2, 1, *range(14)]
    mirrored = augmented(ramp, True, 0, 0)[:, 0, 8]
    share = (mirrored[:, 10] < mirrored[:, 5]).double().mean()
    assert share == pytest.approx(0.5, abs=0.08)
    assert not torch.equal(augmented(ramp, True, 0, 0), augmented(ramp, True, 0, 1))


@pytest.mark.parametrize(
    ("settings", "sentence"), [({"epochs": 0}, "--epochs must be at least 1, got 0"), ({"lr": 0}, "--lr must")]
)
def test_settings_out_of_range_are_refused(settings, sentence):
    with pytest.raises(InputError, match=sentence):
        Recipe(**settings)
