"""Latents in the making: taken up where they were interrupted, shared between processes, never taken for whole."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from bytepixels.codec.codec import encoder_of
from bytepixels.codec.latent_cache import open_latents, store_latents
from bytepixels.data.locks import claim
from bytepixels.data.rows import Rows
from bytepixels.errors import InputError

from ..latents import Uneven
from .encoded import CALLS, Counted, contents, drafts, in_small_parts, packed_of, uninterrupted, whole
from .fixtures import FORK


@pytest.fixture
def packed(tmp_path):
    """Twenty images of two classes, 6 x 8."""
    return packed_of(tmp_path)


@pytest.fixture
def small(monkeypatch):
    in_small_parts(monkeypatch)


def interrupted(packed, cache, after):
    def progress(done, total):
        if done >= after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store_latents(packed, encoder_of(Uneven()), "a", True, cache, progress)


def test_an_interrupted_encoding_goes_on_where_it_was(tmp_path, packed, small):
    expected = uninterrupted(packed, tmp_path)
    interrupted(packed, tmp_path, after=8)
    assert whole(tmp_path) == []
    assert [open_latents(path / "whole") for path in drafts(tmp_path)] == [None]
    encode, steps = Counted(Uneven()), []
    latents = store_latents(packed, encode, "a", True, tmp_path, lambda *step: steps.append(step))
    assert steps == [(done, 20) for _, done in CALLS[3:]]
    assert sum(encode.calls) == 2 * (1 + 12)
    assert contents(latents.path) == expected
    assert drafts(tmp_path) == []


def test_the_encoder_is_called_with_the_same_pictures_whatever_was_lost(tmp_path, packed, small):
    """What an image becomes may depend, in its last bit, on those beside it."""
    expected = uninterrupted(packed, tmp_path)
    interrupted(packed, tmp_path, after=14)
    path = drafts(tmp_path)[0] / "rows"
    words = np.fromfile(path, np.uint64)
    words[[4, 12]] = 0
    words.tofile(path)
    encode = Counted(Uneven())
    assert contents(store_latents(packed, encode, "a", True, tmp_path).path) == expected
    assert encode.calls[2::2] == [3, 3, 2, 3, 1]


def test_what_another_process_has_just_finished_is_not_encoded_again(tmp_path, packed):
    seen = []

    def encode(images):
        seen.append(len(images))
        if len(seen) == 1:  # the other is faster, while this one looks at its first image
            store_latents(packed, encoder_of(Uneven()), "a", cache=tmp_path)
        return encoder_of(Uneven())(images)

    latents = store_latents(packed, encode, "a", cache=tmp_path)
    assert seen == [1]
    assert whole(tmp_path) == [latents.path]
    assert drafts(tmp_path) == []


def killed(packed, cache, event):
    """Store in another process that is killed at its event number `event`; whether it came so far."""

    def child():
        left = event

        def count(name, arguments):
            nonlocal left
            left -= name.startswith(("open", "os.", "shutil.", "bytepixels."))
            if left < 0 and name != "os.kill":
                os.kill(os.getpid(), signal.SIGKILL)

        original = Rows.write
        Rows.write = lambda *arguments: sys.audit("bytepixels.write") or original(*arguments)
        sys.addaudithook(count)
        store_latents(packed, encoder_of(Uneven()), "a", True, cache)
        os._exit(0)

    process = FORK.Process(target=child)
    process.start()
    process.join()
    return process.exitcode == -signal.SIGKILL


@pytest.mark.slow
def test_killed_at_any_file_operation(tmp_path, packed, small):
    """Every open, rename, removal and written row in turn is the last thing that a process does."""
    expected, event = uninterrupted(packed, tmp_path), 0
    while killed(packed, tmp_path / f"cache{event}", event):
        cache = tmp_path / f"cache{event}"
        assert [contents(path) for path in whole(cache)] in ([], [expected])
        latents = store_latents(packed, encoder_of(Uneven()), "a", True, cache)
        assert contents(latents.path) == expected, event
        event += 1
    assert event > 50


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        ("whole/moments.npy", lambda path: flip(path, 128 + 12 * 12 * 4 * 2 + 1)),  # a row that is done
        ("whole/moments.npy", lambda path: os.truncate(path, 300)),
        ("whole/moments.npy", lambda path: flip(path, 3)),
        ("whole/moments.npy", os.unlink),
        ("rows", lambda path: flip(path, 8 * 2 + 5)),  # the checksum of that row
        ("rows", lambda path: flip(path, 8 * 18)),  # a row counts as done that is not
        ("rows", lambda path: os.truncate(path, 20)),
        ("whole/meta.json", lambda path: path.write_text("{")),
        ("whole/labels.npy", lambda path: path.write_bytes(b"half")),
    ],
)
def test_what_a_power_cut_may_leave_is_found(tmp_path, packed, small, name, harm):
    expected = uninterrupted(packed, tmp_path)
    interrupted(packed, tmp_path, after=8)
    harm(drafts(tmp_path)[0] / name)
    assert contents(store_latents(packed, encoder_of(Uneven()), "a", True, tmp_path).path) == expected


def changed_meta(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        ("moments.npy", lambda path: os.truncate(path, path.stat().st_size - 1)),
        ("moments.npy", lambda path: path.write_bytes(path.read_bytes() + b"x")),
        ("moments.npy", lambda path: np.save(path, np.load(path).astype(np.float16))),
        ("moments.npy", lambda path: np.save(path, np.load(path)[:-1])),
        ("moments.npy", os.unlink),
        ("labels.npy", os.unlink),
        ("labels.npy", lambda path: np.save(path, np.load(path)[1:])),
        ("meta.json", os.unlink),
        ("meta.json", lambda path: path.write_text(path.read_text()[:-9])),
        ("meta.json", lambda path: changed_meta(path, format=0)),
        ("meta.json", lambda path: changed_meta(path, shape=[3, 4, 3])),
        ("meta.json", lambda path: changed_meta(path, statistics={"mean": [0.0]})),
        ("meta.json", lambda path: changed_meta(path, statistics=None)),
    ],
)
def test_damaged_latents_are_made_again(tmp_path, packed, name, harm):
    path = store_latents(packed, encoder_of(Uneven()), "a", True, tmp_path).path
    expected = contents(path)
    harm(path / name)
    assert open_latents(path) is None
    again = store_latents(packed, encoder_of(Uneven()), "a", True, tmp_path)
    assert again.path == path
    assert contents(path) == expected
    assert whole(tmp_path) == [path]
    assert drafts(tmp_path) == []


def storing(results, packed, cache, progress=None, barrier=None):
    """Start a process that stores, and puts (images encoded, contents) into `results`. It waits at the barrier when
    it has encoded its first part."""

    def child():
        encode = Counted(Uneven())

        def report(done, total):
            if barrier and len(encode.calls) == 2 + 2:  # the shape, and a first call, both ways
                barrier.wait(600)
            if progress:
                progress(done, total)

        path = store_latents(packed, encode, "a", True, cache, report).path
        results.put((sum(encode.calls) // 2 - 1, contents(path)))

    process = FORK.Process(target=child)
    process.start()
    return process


def test_processes_share_the_work(tmp_path, packed, small):
    expected = uninterrupted(packed, tmp_path)
    barrier, results = FORK.Barrier(2), FORK.SimpleQueue()
    processes = [storing(results, packed, tmp_path, barrier=barrier) for _ in range(2)]
    for process in processes:
        process.join(600)
        assert process.exitcode == 0
    counts, made = zip(*(results.get() for _ in processes), strict=True)
    assert all(one == expected for one in made)
    assert sum(counts) == 20
    assert min(counts) > 0
    assert len(whole(tmp_path)) == 1
    assert drafts(tmp_path) == []


def test_what_a_killed_process_was_at_is_done_by_another(tmp_path, packed, small):
    expected, results, reached = uninterrupted(packed, tmp_path), FORK.SimpleQueue(), FORK.Event()

    def hang(done, total):
        if done == 6:
            reached.set()
            time.sleep(600)

    hanging = storing(results, packed, tmp_path, hang)
    assert reached.wait(600)
    waiting = storing(results, packed, tmp_path)
    waiting.join(1)
    assert waiting.is_alive()  # the part is taken
    hanging.kill()
    waiting.join(600)
    assert waiting.exitcode == 0
    count, made = results.get()
    assert made == expected
    assert count == 14  # what the killed one had done is not done again


def test_latents_are_on_the_disk_before_they_are_in_their_place(tmp_path, packed, synced, monkeypatch):
    synced.clear()  # of the pack's own files
    before, rename = [], os.rename
    monkeypatch.setattr(os, "rename", lambda *paths: before.append(list(synced)) or rename(*paths))
    store_latents(packed, encoder_of(Uneven()), "a", cache=tmp_path)
    assert [Path(path).suffix for path in before[-1]] == [".npy", ".part", ".part"]
    assert before[-1][0].endswith("whole/moments.npy")


def test_a_draft_that_another_process_is_at_outlives_a_refusal(tmp_path, packed, small):
    interrupted(packed, tmp_path, after=8)
    lock = claim(drafts(tmp_path)[0] / "part-2.lock")
    with pytest.raises(InputError, match="not finite"):
        store_latents(packed, lambda x: (x[:, :1] * torch.nan,) * 2, "a", True, tmp_path)
    assert len(drafts(tmp_path)) == 1
    lock.release()
