"""The order of the data: a function of (seed, step) alone."""

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch

from bytepixels.data import batches as module
from bytepixels.data.batches import Batches
from bytepixels.errors import InputError

IMAGES = np.arange(10 * 3 * 4 * 6, dtype=np.uint8).reshape(10, 3, 4, 6)
LABELS = np.arange(10)


def test_every_epoch_sees_every_image_once_in_another_order():
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


def test_one_image_is_enough():
    images, labels = Batches(IMAGES[:1], None, 5)(0)
    assert images.shape == (5, 3, 4, 6)
    assert labels is None


def test_images_and_labels_belong_together():
    batches = Batches(IMAGES, LABELS, 4, seed=3)
    images, labels = batches(2)
    assert images.dtype == torch.uint8
    for image, label in zip(images, labels.tolist(), strict=True):
        assert torch.equal(image, torch.from_numpy(IMAGES[label]))


def test_memory_mapped_and_resident_images_are_the_same(monkeypatch, tmp_path):
    np.save(tmp_path / "images.npy", IMAGES)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    resident = Batches(mapped, LABELS, 4, flip=True)
    monkeypatch.setattr(module, "free_memory", lambda device: 0.0)
    streamed = Batches(mapped, LABELS, 4, flip=True)
    assert resident.resident is not None
    assert streamed.resident is None
    for step in range(5):
        assert torch.equal(resident(step)[0], streamed(step)[0])


def test_half_of_the_images_are_mirrored_and_only_left_to_right():
    plain, flipped = Batches(IMAGES, None, 1000, seed=0), Batches(IMAGES, None, 1000, seed=0, flip=True)
    before, after = plain(1)[0], flipped(1)[0]
    same = (before == after).flatten(1).all(dim=1)
    mirrored = (before.flip(-1) == after).flatten(1).all(dim=1)
    assert (same | mirrored).all()
    assert 400 < int(mirrored.sum()) < 600
    assert torch.equal(after, flipped(1)[0])  # the coins too are a function of the step


# a set that is larger than memory


@pytest.fixture
def mapped(tmp_path, monkeypatch):
    """The images as a memory map, in a process that has no memory to keep them in."""
    monkeypatch.setattr(module, "free_memory", lambda device: 0.0)
    np.save(tmp_path / "images.npy", IMAGES)
    return np.load(tmp_path / "images.npy", mmap_mode="r")


STEPS = [0, 1, 2, 3, 50, 51, 7, 6, 5, 5, 0, 49, 8, 10]  # in order, a resume, back again, the same again


@pytest.mark.parametrize("view", [lambda m: m, lambda m: m[2:], lambda m: m[::-1], lambda m: m[:, :, :, :4], np.array])
@pytest.mark.parametrize("flip", [False, True])
def test_steps_in_any_order_are_those_of_a_resident_set(mapped, monkeypatch, view, flip):
    streamed = Batches(view(mapped), LABELS, 4, seed=3, flip=flip)
    monkeypatch.undo()
    resident = Batches(np.array(view(mapped)), LABELS, 4, seed=3, flip=flip)
    assert streamed.resident is None
    assert resident.resident is not None
    for step in STEPS:
        for one, other in zip(streamed(step), resident(step), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("step", [0, 7])
@pytest.mark.parametrize("streams", [False, True])
def test_rows_of_the_whole_batch(mapped, monkeypatch, step, streams):
    if not streams:
        monkeypatch.undo()
    whole = Batches(mapped, LABELS, 32, seed=5, flip=True)
    images, labels = whole(step)
    for rows in (slice(0, 16), slice(16, 32), slice(8, 9), slice(3, None, 4), slice(-2, None), slice(None)):
        part = Batches(mapped, LABELS, 32, seed=5, flip=True, rows=rows)
        assert (part.resident is None) == streams
        assert torch.equal(part(step)[0], images[range(32)[rows]])
        assert torch.equal(part(step)[1], labels[range(32)[rows]])
        assert np.array_equal(part.indices(step), whole.indices(step))


@pytest.mark.parametrize("rows", [slice(4, 8), slice(2, 2), slice(3, 1)])
def test_no_rows_are_refused(rows):
    with pytest.raises(InputError, match=rf"rows {rows.start}:{rows.stop} of a batch of 4 are none"):
        Batches(IMAGES, None, 4, rows=rows)


def test_the_next_steps_are_read_while_this_one_trains(mapped):
    batches = Batches(mapped, None, 4, seed=1)
    reading, read, go = [], batches._prefetch.read, threading.Event()

    def watched(positions):
        reading.append(positions.tolist())
        go.wait(600)
        return read(positions)

    batches._prefetch.read = watched
    go.set()
    batches(0)
    go.clear()
    assert eventually(lambda: len(reading) >= 2)  # step 1 is being read, and nobody has asked for it
    assert reading[:2] == [batches.indices(0).tolist(), batches.indices(1).tolist()]
    go.set()
    assert eventually(lambda: len(reading) == 3)
    time.sleep(0.05)
    assert len(reading) == 3  # two steps ahead, no further
    batches(1)
    assert eventually(lambda: len(reading) == 4)
    assert reading[3] == batches.indices(3).tolist()


def eventually(condition):
    end = time.monotonic() + 600
    while not condition() and time.monotonic() < end:
        time.sleep(0.001)
    return condition()


def test_a_set_that_can_no_longer_be_read_is_an_error_of_the_step_that_needs_it(mapped, tmp_path):
    batches = Batches(mapped, None, 4, seed=1)
    batches(0)
    os.truncate(tmp_path / "images.npy", 200)
    coming = (batches(step) for step in (1, 2, 3))  # of which two may have been read already
    with pytest.raises(OSError, match=r"images can no longer be read from .*images.npy: it ends too early") as caught:
        list(coming)
    assert "\n" not in str(caught.value)
    np.save(tmp_path / "other.npy", IMAGES)
    (tmp_path / "images.npy").write_bytes((tmp_path / "other.npy").read_bytes())
    assert len(batches(5)[0]) == 4  # an error is not for ever


def test_the_thread_ends_with_the_batches(mapped):
    before = set(threading.enumerate())
    batches = Batches(mapped, None, 4)
    batches(0)
    (reader,) = set(threading.enumerate()) - before
    del batches
    assert eventually(lambda: not reader.is_alive())


def test_the_process_ends_though_steps_are_being_read(tmp_path):
    np.save(tmp_path / "images.npy", IMAGES)
    code = f"""
import numpy as np
from bytepixels.data import batches
batches.free_memory = lambda device: 0.0
b = batches.Batches(np.load({str(tmp_path / "images.npy")!r}, mmap_mode="r"), None, 4)
b(0)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)


def test_processes_of_one_machine_share_its_memory(monkeypatch):
    alone = module.free_memory(torch.device("cpu"))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert module.free_memory(torch.device("cpu")) == pytest.approx(alone / 4, rel=0.2)
