"""The order of the data: a function of (seed, step) alone."""

import numpy as np
import pytest
import torch

from bytepixels.data import batches as module
from bytepixels.data.batches import Batches

IMAGES = np.arange(10 * 3 * 4 * 6, dtype=np.uint8).reshape(10, 3, 4, 6)
LABELS = np.arange(10)


def test_every_epoch_sees_every_picture_once_in_another_order():
    batches = Batches(IMAGES, LABELS, batch=4, seed=1)
    seen = np.concatenate([batches.indices(step) for step in range(10)])  # 40 = four epochs of 10
    epochs = seen.reshape(4, 10)
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs.tolist())
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 4


def test_steps_can_be_asked_for_in_any_order():
    one, other = Batches(IMAGES, None, 4, seed=1), Batches(IMAGES, None, 4, seed=1)
    forward = [one.indices(step).tolist() for step in range(12)]
    backward = [other.indices(step).tolist() for step in reversed(range(12))][::-1]
    assert forward == backward


def test_another_seed_is_another_order():
    assert (
        Batches(IMAGES, None, 10, seed=1).indices(0).tolist() != Batches(IMAGES, None, 10, seed=2).indices(0).tolist()
    )


@pytest.mark.parametrize("batch", [1, 7, 10, 64])
def test_a_batch_larger_than_the_set_runs_across_epochs(batch):
    indices = Batches(IMAGES, None, batch).indices(3)
    assert len(indices) == batch
    assert set(indices.tolist()) <= set(range(10))


def test_one_picture_is_enough():
    images, labels = Batches(IMAGES[:1], None, 5)(0)
    assert images.shape == (5, 3, 4, 6)
    assert labels is None


def test_pictures_and_labels_belong_together():
    batches = Batches(IMAGES, LABELS, 4, seed=3)
    images, labels = batches(2)
    assert images.dtype == torch.uint8
    for image, label in zip(images, labels.tolist(), strict=True):
        assert torch.equal(image, torch.from_numpy(IMAGES[label]))


def test_memory_mapped_and_resident_pictures_are_the_same(monkeypatch, tmp_path):
    np.save(tmp_path / "images.npy", IMAGES)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    resident = Batches(mapped, LABELS, 4, flip=True)
    monkeypatch.setattr(module, "_free_memory", lambda device: 0.0)
    streamed = Batches(mapped, LABELS, 4, flip=True)
    assert resident.resident is not None
    assert streamed.resident is None
    for step in range(5):
        assert torch.equal(resident(step)[0], streamed(step)[0])


def test_half_of_the_pictures_are_mirrored_and_only_left_to_right():
    plain, flipped = Batches(IMAGES, None, 1000, seed=0), Batches(IMAGES, None, 1000, seed=0, flip=True)
    before, after = plain(1)[0], flipped(1)[0]
    same = (before == after).flatten(1).all(dim=1)
    mirrored = (before.flip(-1) == after).flatten(1).all(dim=1)
    assert (same | mirrored).all()
    assert 400 < int(mirrored.sum()) < 600
    assert torch.equal(after, flipped(1)[0])  # the coins too are a function of the step
