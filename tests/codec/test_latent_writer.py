"""Latents in the making: taken up where they were interrupted, made by one process at a time, never taken for whole."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bytepixels.codec.codec import encoder_of
from bytepixels.codec.latent_cache import open_latents, store_latents
from bytepixels.data import pack_writer as module
from bytepixels.data.rows import NpyRows
from tests.codec.autoencoders import Uneven
from tests.codec.encoded import CALLS, Counted, contents, drafts, in_small_parts, packed_of, uninterrupted, whole
from tests.data.fixtures import FORK


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
    assert [open_latents(path / "finished") for path in drafts(tmp_path)] == [None]
    encode, steps = Counted(Uneven()), []
    latents = store_latents(packed, encode, "a", True, tmp_path, lambda *step: steps.append(step))
    assert steps == [(done, 20) for _, done in CALLS[3:]]
    assert sum(encode.calls) == 2 * (1 + 11)
    assert contents(latents.path) == expected
    assert drafts(tmp_path) == []


def test_the_encoder_is_called_with_the_same_images_whatever_was_lost(tmp_path, packed, small):
    """What an image becomes may depend, in its last bit, on those beside it."""
    expected = uninterrupted(packed, tmp_path)
    interrupted(packed, tmp_path, after=14)
    path = drafts(tmp_path)[0] / "done"
    done = np.fromfile(path, np.uint8)
    done[[4, 12]] = 0
    done.tofile(path)
    encode = Counted(Uneven())
    assert contents(store_latents(packed, encode, "a", True, tmp_path).path) == expected
    assert encode.calls[2::2] == [3, 3, 3, 2]


def killed(packed, cache, event):
    """Store in another process that is killed at its event number `event`; whether it came so far."""

    def child():
        left = event

        def count(name, arguments):
            nonlocal left
            left -= name.startswith(("open", "os.", "shutil.", "bytepixels."))
            if left < 0 and name != "os.kill":
                os.kill(os.getpid(), signal.SIGKILL)

        original = NpyRows.write
        NpyRows.write = lambda *arguments: sys.audit("bytepixels.write") or original(*arguments)
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
        ("finished/moments.npy", lambda path: os.truncate(path, 300)),
        ("finished/moments.npy", lambda path: flip(path, 3)),
        ("finished/moments.npy", os.unlink),
        ("done", lambda path: os.truncate(path, 6)),
        ("finished/meta.json", lambda path: path.write_text("{")),
        ("finished/labels.npy", lambda path: path.write_bytes(b"half")),
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


def storing(results, packed, cache, progress=None):
    """Start a process that stores, and puts (images encoded, contents) into `results`."""

    def child():
        encode = Counted(Uneven())
        path = store_latents(packed, encode, "a", True, cache, progress).path
        results.put((sum(encode.calls) // 2, contents(path)))

    process = FORK.Process(target=child)
    process.start()
    return process


@pytest.mark.parametrize("is_killed", [False, True])
def test_one_process_encodes_while_another_waits(tmp_path, packed, small, monkeypatch, is_killed):
    monkeypatch.setattr(module, "SAVE_SECONDS", 0)
    expected, results = uninterrupted(packed, tmp_path), FORK.SimpleQueue()
    reached, seen = FORK.Event(), FORK.Event()

    def hang(done, total):
        if done == 6:
            reached.set()
            seen.wait(600)
            time.sleep(600 * is_killed)

    first = storing(results, packed, tmp_path, hang)
    assert reached.wait(600)
    waiting = storing(results, packed, tmp_path, lambda done, total: seen.set() if done >= 6 else None)
    assert seen.wait(600)
    if is_killed:
        first.kill()
    for process in (first, waiting):
        process.join(600)
    assert waiting.exitcode == 0
    found = [results.get() for _ in range(2 - is_killed)]
    assert all(made == expected for _, made in found)
    assert sorted(count for count, _ in found) == ([1 + 14] if is_killed else [0, 1 + 20])  # one tells the shape
    assert drafts(tmp_path) == []


def test_latents_are_on_the_disk_before_they_are_in_their_place(tmp_path, packed, synced, monkeypatch):
    synced.clear()  # of the pack's own files
    before, rename = [], os.rename
    monkeypatch.setattr(os, "rename", lambda *paths: before.append(list(synced)) or rename(*paths))
    store_latents(packed, encoder_of(Uneven()), "a", cache=tmp_path)
    assert [Path(path).name for path in before[-1]] == ["moments.npy", "labels.npy", "meta.json"]
