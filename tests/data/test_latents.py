"""Latents on the disk: encoded once, whole or not there, the same for everybody; and the batches drawn from them."""

import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from bytepixels import LatentCodec
from bytepixels.codec import encoder_of
from bytepixels.data import batches as module
from bytepixels.data import encoding, pack
from bytepixels.data.batches import Batches
from bytepixels.data.latents import LatentBatches, open_latents, store_latents
from bytepixels.data.locks import claim
from bytepixels.data.rows import Rows
from bytepixels.errors import InputError
from bytepixels.randomness import NOISE, seeded

from ..latents import Shuffled, Uneven
from .fixtures import FORK, write_all

NAMES = [f"{kind}/{number:02d}.png" for kind in ("cat", "dog") for number in range(10)]


@pytest.fixture
def packed(tmp_path):
    """Twenty pictures of two classes, 6 x 8."""
    return packed_of(tmp_path)


def packed_of(folder, names=NAMES, channels=None, **options):
    write_all(folder / "in", names, height=6, width=8, **options)
    return pack(folder / "in", cache=folder / "packs", channels=channels)


@pytest.fixture
def small(monkeypatch):
    """Parts of eight pictures, in calls of three, three and two."""
    monkeypatch.setattr(encoding, "PART", 8)
    monkeypatch.setattr(encoding, "PIXELS", 3 * 48 + 40)


CALLS = [(0, 3), (3, 6), (6, 8), (8, 11), (11, 14), (14, 16), (16, 19), (19, 20)]


class Counted:
    """An encoder that remembers how many pictures each call had."""

    def __init__(self, autoencoder):
        self.encode, self.calls = encoder_of(autoencoder), []

    def __call__(self, images):
        self.calls.append(len(images))
        return self.encode(images)


def contents(path):
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


def whole(cache):
    return sorted(path for path in (cache / "latents").glob("*") if not path.name.startswith("."))


def drafts(cache):
    return sorted((cache / "latents").glob(".packing-*"))


def uninterrupted(packed, tmp_path, flips=True):
    return contents(store_latents(packed, encoder_of(Uneven()), "a", flips, cache=tmp_path / "reference").path)


# what is stored


@pytest.mark.parametrize("flips", [False, True])
def test_the_moments_are_those_of_the_encoder_bit_for_bit(tmp_path, packed, small, flips):
    autoencoder = Uneven()
    latents = store_latents(packed, encoder_of(autoencoder), "a", flips, cache=tmp_path)
    assert latents.moments.dtype == np.float32
    assert latents.moments.shape == (20, 1 + flips, 6, 3, 4)
    assert latents.shape == (3, 3, 4)
    pictures = torch.from_numpy(packed.images.copy()).float() / 127.5 - 1
    with torch.no_grad():
        for way, seen in enumerate([pictures, pictures.flip(-1)][: 1 + flips]):
            expected = torch.cat([torch.cat(autoencoder.encode(seen[a:b]), 1) for a, b in CALLS])
            assert torch.equal(torch.from_numpy(latents.moments[:, way].copy()), expected)
    if flips:  # an encoder is not symmetric
        assert np.abs(latents.moments[:, 1] - latents.moments[:, 0, :, :, ::-1]).max() > 0.1


def test_what_lies_beside_them(tmp_path, packed):
    latents = store_latents(packed, encoder_of(Uneven()), "a", cache=tmp_path)
    assert latents.path.parent == tmp_path / "latents"
    assert np.array_equal(latents.labels, packed.labels)
    assert latents.classes == ("cat", "dog")
    assert len(latents) == 20
    meta = json.loads((latents.path / "meta.json").read_text())
    assert meta["pictures"] == packed.meta["sha256"]
    for name, digest in meta["sha256"].items():
        assert hashlib.sha256((latents.path / f"{name}.npy").read_bytes()).hexdigest() == digest
    assert sorted(meta["sha256"]) == ["labels", "moments"]


def test_what_is_stored_is_encoded_once(tmp_path, packed):
    first, again = Counted(Uneven()), Counted(Uneven())
    one = store_latents(packed, first, "a", cache=tmp_path)
    other = store_latents(packed, again, "a", cache=tmp_path)
    assert sum(first.calls) == 21  # one of them to learn the shape
    assert again.calls == []
    assert contents(one.path) == contents(other.path)
    assert np.array_equal(one.moments, other.moments)
    assert drafts(tmp_path) == []


def test_another_encoder_other_flips_or_other_pictures_are_another_folder(tmp_path, packed):
    changed = packed_of(tmp_path / "changed", seed=1)
    paths = {
        store_latents(pictures, encoder_of(Uneven()), key, flips, cache=tmp_path).path
        for pictures, key, flips in [
            (packed, "a", False),
            (packed, "b", False),
            (packed, "a", True),
            (changed, "a", False),
        ]
    }
    assert len(paths) == 4
    assert whole(tmp_path) == sorted(paths)


def test_the_cache_is_the_users_unless_told(packed, monkeypatch, tmp_path):
    monkeypatch.setenv("BYTEPIXELS_CACHE", str(tmp_path / "mine"))
    assert store_latents(packed, encoder_of(Uneven()), "a").path.parent == tmp_path / "mine/latents"


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("names", [["one.png"], [f"{number:03d}.png" for number in range(60)]])
@pytest.mark.parametrize("flips", [False, True])
def test_statistics_are_those_of_all_moments(tmp_path, monkeypatch, names, channels, flips):
    monkeypatch.setattr("bytepixels.data.rows.BLOCK_BYTES", 700)  # in several blocks
    packed = packed_of(tmp_path, names, channels)
    latents = store_latents(packed, encoder_of(Uneven(channels)), "a", flips, cache=tmp_path)
    mean, deviation = np.split(latents.moments.astype(np.float64), 2, axis=2)  # [N, F, 3, h, w]
    axes = (0, 1, 3, 4)
    found = latents.statistics
    np.testing.assert_allclose(found["mean"], mean.mean(axes), rtol=1e-12)
    np.testing.assert_allclose(found["deviation"], np.sqrt(mean.var(axes) + (deviation**2).mean(axes)), rtol=1e-10)
    np.testing.assert_allclose(found["low"], (mean - 4 * deviation).min(axes), rtol=1e-12)
    np.testing.assert_allclose(found["high"], (mean + 4 * deviation).max(axes), rtol=1e-12)


@pytest.mark.parametrize(("channels", "sigma_data"), [(1, 1.0), (3, 1.0), (3, 0.5)])
@pytest.mark.parametrize("flip", [False, True])
def test_whitened_draws_have_mean_0_and_deviation_sigma_data(tmp_path, channels, sigma_data, flip):
    packed = packed_of(tmp_path, [f"{number:03d}.png" for number in range(100)], channels)
    autoencoder = Uneven(channels)
    latents = store_latents(packed, encoder_of(autoencoder), "a", flip, cache=tmp_path)
    codec, batches = whitening(autoencoder, latents, sigma_data), LatentBatches(latents, 100, seed=1, flip=flip)
    drawn = torch.cat([codec.to_model(batches(step)[0]) for step in range(600)]).double() / sigma_data
    assert drawn.mean((0, 2, 3)).abs().max() < 0.01
    assert (drawn.std((0, 2, 3)) - 1).abs().max() < 0.01
    low, high = (bound / sigma_data for bound in codec.bounds)
    assert ((drawn < low) | (drawn > high)).double().mean() < 1e-4


def whitening(autoencoder, latents, sigma_data=1.0):
    found = latents.statistics
    return LatentCodec(
        autoencoder, found["mean"], found["deviation"], found["low"], found["high"], sigma_data=sigma_data
    )


@pytest.mark.parametrize(
    ("encode", "match"),
    [
        (lambda x: (x[:, :1] * torch.nan, x[:, :1].float()), "not finite, or have a negative deviation"),
        (lambda x: (x[:, :1].float(), torch.full(x[:, :1].shape, torch.inf)), "not finite, or have a negative"),
        (lambda x: (x[:, :1].float(), torch.full(x[:, :1].shape, -1.0)), "not finite, or have a negative deviation"),
        (lambda x: (x[:, :1], x[:, :2]), r"two tensors \[B, z, h, w\], got \[1, 1, 6, 8\] and \[1, 2, 6, 8\]"),
        (lambda x: (x[:, 0], x[:, 0]), r"must give two tensors \[B, z, h, w\], got \[1, 6, 8\]"),
        (lambda x: (x[0], x[0]), r"must give two tensors"),
        (lambda x: (torch.ones(len(x), 1, len(x), 1),) * 2, r"gives \(1, 2, 20, 1\) now, and gave \(1, 2, 1, 1\)"),
    ],
)
def test_an_encoder_that_gives_no_moments_is_refused_and_leaves_nothing(tmp_path, packed, encode, match):
    with pytest.raises(InputError, match=match) as caught:
        store_latents(packed, encode, "a", cache=tmp_path)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "latents").iterdir()) == []


def test_too_large_for_the_disk(tmp_path, packed, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 20 * 6 * 12 * 4 - 1}))
    with pytest.raises(InputError, match=r"the latents of 20 pictures need 0.0 GB in .*latents, where 0.0 GB are free"):
        store_latents(packed, encoder_of(Uneven()), "a", cache=tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 20 * 6 * 12 * 4}))
    assert len(store_latents(packed, encoder_of(Uneven()), "a", cache=tmp_path)) == 20


# interrupted, damaged, shared


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
    """Start a process that stores, and puts (pictures encoded, contents) into `results`. It waits at the barrier when
    it has encoded its first part."""

    def child():
        encode = Counted(Uneven())

        def report(done, total):
            if barrier and len(encode.calls) == 2 + 2:  # the shape, and a first call, both ways
                barrier.wait(60)
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
        process.join(60)
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
    assert reached.wait(60)
    waiting = storing(results, packed, tmp_path)
    waiting.join(1)
    assert waiting.is_alive()  # the part is taken
    hanging.kill()
    waiting.join(60)
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


# batches


@pytest.fixture
def latents(tmp_path, packed):
    return store_latents(packed, encoder_of(Uneven()), "a", True, cache=tmp_path)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("batch", [1, 7, 20, 64])
def test_latents_decode_to_what_batches_gives_out(tmp_path, packed, flip, batch):
    """Order, labels and mirroring, through an autoencoder that loses nothing."""
    autoencoder = Shuffled()
    latents = store_latents(packed, encoder_of(autoencoder), "a", flip, cache=tmp_path)
    pictures = Batches(packed.images, packed.labels, batch, seed=5, flip=flip)
    codec, batches = whitening(autoencoder, latents), LatentBatches(latents, batch, seed=5, flip=flip)
    for step in (0, 1, 9):
        (images, labels), (drawn, marks) = pictures(step), batches(step)
        assert drawn.shape == (batch, 12, 3, 4)
        assert torch.equal(codec.to_images(codec.to_model(drawn)), images)
        assert torch.equal(marks, labels)
        assert np.array_equal(batches.indices(step), pictures.indices(step))


def test_the_latents_of_one_picture_without_labels(tmp_path):
    latents = store_latents(packed_of(tmp_path, ["one.png"]), encoder_of(Uneven()), "a", cache=tmp_path)
    drawn, labels = LatentBatches(latents, 5)(0)
    assert drawn.shape == (5, 3, 3, 4)
    assert labels is None


def noise_in(latents, batches, step):
    """(latent - mean) / deviation, of the way that was not mirrored."""
    mean, deviation = torch.from_numpy(latents.moments[batches.indices(step), 0]).chunk(2, dim=1)
    return (batches(step)[0] - mean) / deviation


def test_the_noise_is_standard_normal_and_new_at_every_step(latents):
    batches = LatentBatches(latents, 20, seed=3)
    noise = [noise_in(latents, batches, step) for step in range(20)]
    together = torch.stack(noise).flatten(1)  # [20, 720]
    assert kstest(together.flatten().numpy(), "norm").pvalue > 1e-3
    assert (torch.corrcoef(together) - torch.eye(20)).abs().max() < 5 / 720**0.5
    assert (torch.corrcoef(torch.stack(noise).flatten(0, 1).flatten(1).T) - torch.eye(36)).abs().max() < 5 / 400**0.5
    other = noise_in(latents, LatentBatches(latents, 20, seed=4), 0)
    assert abs(float(torch.corrcoef(torch.stack([other.flatten(), together[0]]))[0, 1])) < 5 / 720**0.5


def test_the_noise_of_latents_is_not_that_of_the_process(latents):
    drawn = noise_in(latents, LatentBatches(latents, 20, seed=3), 4)
    process = torch.empty(20, 3, 3, 4).normal_(generator=seeded(3, NOISE, 4))
    assert (drawn - process).abs().mean() > 0.5


STEPS = [0, 1, 2, 3, 50, 51, 7, 6, 5, 5, 0, 49, 8, 10]  # in order, a resume, back again, the same again


@pytest.mark.parametrize("flips", [False, True])
def test_steps_in_any_order_from_memory_or_disk_are_the_same_bits(latents, monkeypatch, flips):
    resident = LatentBatches(latents, 4, seed=3, flip=flips)
    monkeypatch.setattr(module, "free_memory", lambda device: 0.0)
    streamed = LatentBatches(latents, 4, seed=3, flip=flips)
    assert resident.resident is not None
    assert streamed.resident is None
    for step in STEPS:
        for one, other in zip(streamed(step), resident(step), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("streams", [False, True])
def test_rows_of_the_whole_batch(latents, monkeypatch, streams):
    if streams:
        monkeypatch.setattr(module, "free_memory", lambda device: 0.0)
    drawn, labels = LatentBatches(latents, 32, seed=5, flip=True)(7)
    for rows in (slice(0, 16), slice(16, 32), slice(8, 9), slice(3, None, 4), slice(-2, None), slice(None)):
        part = LatentBatches(latents, 32, seed=5, flip=True, rows=rows)
        assert (part.resident is None) == streams
        assert torch.equal(part(7)[0], drawn[range(32)[rows]])
        assert torch.equal(part(7)[1], labels[range(32)[rows]])


def test_flips_that_were_not_encoded_are_refused(tmp_path, packed):
    latents = store_latents(packed, encoder_of(Uneven()), "a", cache=tmp_path)
    with pytest.raises(InputError, match="flip needs the latents of the mirrored pictures"):
        LatentBatches(latents, 4, flip=True)
