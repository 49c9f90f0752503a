"""Latents on the disk: the moments that the encoder gives, and what they are like; and the batches drawn from them."""

import hashlib
import json

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from bytepixels import LatentCodec
from bytepixels.codec.codec import encoder_of
from bytepixels.codec.latent_cache import LatentBatches, store_latents
from bytepixels.data import batches as module
from bytepixels.data.batches import Batches
from bytepixels.errors import InputError
from bytepixels.randomness import NOISE, seeded
from tests.codec.autoencoders import Shuffled, Uneven
from tests.codec.encoded import CALLS, Counted, contents, drafts, in_small_parts, packed_of, whole


@pytest.fixture
def packed(tmp_path):
    """Twenty images of two classes, 6 x 8."""
    return packed_of(tmp_path)


@pytest.fixture
def small(monkeypatch):
    in_small_parts(monkeypatch)


# what is stored


@pytest.mark.parametrize("flips", [False, True])
def test_the_moments_are_those_of_the_encoder_bit_for_bit(tmp_path, packed, small, flips):
    autoencoder = Uneven()
    latents = store_latents(packed, encoder_of(autoencoder), "a", flips, cache=tmp_path)
    assert latents.moments.dtype == np.float32
    assert latents.moments.shape == (20, 1 + flips, 6, 3, 4)
    assert latents.shape == (3, 3, 4)
    images = torch.from_numpy(packed.images.copy()).float() / 127.5 - 1
    with torch.no_grad():
        for way, seen in enumerate([images, images.flip(-1)][: 1 + flips]):
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


def test_another_encoder_other_flips_or_other_images_are_another_folder(tmp_path, packed):
    changed = packed_of(tmp_path / "changed", seed=1)
    paths = {
        store_latents(images, encoder_of(Uneven()), key, flips, cache=tmp_path).path
        for images, key, flips in [
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
    monkeypatch.setattr("bytepixels.codec.latent_statistics.BLOCK_BYTES", 700)  # in several blocks
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
    with pytest.raises(InputError, match=r"the latents of 20 images need 0.0 GB in .*latents, where 0.0 GB are free"):
        store_latents(packed, encoder_of(Uneven()), "a", cache=tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 20 * 6 * 12 * 4}))
    assert len(store_latents(packed, encoder_of(Uneven()), "a", cache=tmp_path)) == 20


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


def test_the_latents_of_one_image_without_labels(tmp_path):
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
    with pytest.raises(InputError, match="flip needs the latents of the mirrored images"):
        LatentBatches(latents, 4, flip=True)
