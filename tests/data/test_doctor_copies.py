"""Near copies against a comparison of all pairs, written down a second time; and what counts as a copy."""

import io
from itertools import combinations

import numpy as np
import pytest
from PIL import Image
from scipy.fft import dctn

from bytepixels.data.inspection import duplicates
from bytepixels.data.inspection.duplicates import (
    equal_images,
    fingerprints,
    joined,
    members,
    near_copies,
    near_groups,
)


def smooth(seed, side=64):
    """An image with large shapes, as photographs have: uint8 [side, side, 3]."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))


def thumb(pixels):
    """uint8 [H, W, 3] -> [3, 16, 16]."""
    return np.asarray(Image.fromarray(pixels).resize((16, 16), Image.Resampling.LANCZOS)).transpose(2, 0, 1)


def again(pixels, file_format="JPEG", **options):
    """Written to a lossy file and read again."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, file_format, **options)
    return np.asarray(Image.open(file).convert("RGB"))


def resized(pixels, side):
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC))


def shifted(pixels, amount):
    return np.clip(pixels.astype(int) + amount, 0, 255).astype(np.uint8)


def alone(n):
    """The groups of n images of which no two are equal."""
    return np.arange(n)


def groups_of(images):
    thumbs = np.stack([thumb(image) for image in images])
    return near_copies(alone(len(images)), thumbs)


def reference_bits(thumbs):
    """The signs of the 64 lowest frequencies but the mean, by scipy's transform and in a plain loop."""
    rows = []
    for one in thumbs.astype(np.float64):
        spectrum = dctn(0.299 * one[0] + 0.587 * one[1] + 0.114 * one[2], type=2) / 4
        waves = [(down + across, down, across) for down in range(16) for across in range(16)]
        values = np.array([spectrum[down, across] for _, down, across in sorted(waves)[1:65]])
        rows.append(values > 0.1 * np.sqrt((values**2).mean()))
    return np.array(rows)


def reference_groups(bits, turned, small):
    """Groups by comparing every pair: 7 bits, a correlation of 0.95, either way round; then along chains. Also what
    each pair was: (bits that differ, correlation)."""
    small = small.astype(np.float64)
    small = small - small.mean(axis=(2, 3), keepdims=True)
    flat = np.sqrt((small**2).mean(axis=(1, 2, 3))) < 1
    near, pairs = [], []
    for a, b in combinations(np.flatnonzero(~flat).tolist(), 2):
        ways = [(bits[a], bits[b], small[b]), (bits[a], turned[b], small[b][..., ::-1])]
        ways += [(turned[a], bits[b], small[b][..., ::-1])]
        for own, other, shape in ways:
            differ, alike = int((own != other).sum()), np.corrcoef(small[a].ravel(), shape.ravel())[0, 1]
            pairs.append((differ, alike))
            near += [(a, b)] if differ <= 7 and alike >= 0.95 else []
    of = list(range(len(small)))
    for _ in of:
        for a, b in near:
            of[a] = of[b] = min(of[a], of[b])
    return of, np.array(pairs)


@pytest.fixture(scope="module")
def mixed():
    """Thumbnails of 40 images and of copies that are more and more unlike them."""
    images, draw = [], np.random.default_rng(0)
    for seed in range(40):
        image = smooth(seed)
        images += [image, again(image, quality=int(draw.integers(5, 60)))]
        if seed % 2:
            images.append(image[:, ::-1])
        if seed % 3 == 0:
            images.append(np.roll(image, int(draw.integers(1, 6)), axis=1))
        noise = draw.normal(0, draw.uniform(10, 120), (8, 8, 3))
        images.append(shifted(image, np.kron(noise, np.ones((8, 8, 1))).astype(int)))
    return np.stack([thumb(image) for image in images])


def borderline(seed):
    """(bits, mirrored, thumbs) about the limits: 5 to 9 bits differ, correlations from 0.9 to 1, some have no shape."""
    draw = np.random.default_rng(seed)
    bits, mirrored, thumbs = [], [], []
    for k in range(60):
        own, other, shape = draw.choice([-1, 1], 64), draw.choice([-1, 1], 64), draw.normal(0, 40, (3, 8, 8))
        if k % 10 == 0:
            shape *= 0.02  # less than a grey level
        for _ in range(2):
            turn = draw.random() < 0.3
            one, two = own.copy(), other.copy()
            one[draw.permutation(64)[: draw.integers(0, 6)]] *= -1
            two[draw.permutation(64)[: draw.integers(0, 6)]] *= -1
            seen = shape + draw.normal(0, draw.uniform(0, 0.3) * shape.std(), shape.shape)
            bits.append(two if turn else one)
            mirrored.append(one if turn else two)
            thumbs.append(np.round(128 + (seen[..., ::-1] if turn else seen)).clip(0, 255))
    return np.array(bits, np.int8), np.array(mirrored, np.int8), np.array(thumbs, np.uint8)


def assert_groups_are_those_of_comparing_all_pairs(bits, mirrored, thumbs):
    expected, pairs = reference_groups(bits, mirrored, thumbs)
    assert near_groups(alone(len(bits)), bits, mirrored, thumbs).tolist() == expected
    return pairs


def test_the_groups_are_those_of_comparing_all_pairs(mixed):
    assert_groups_are_those_of_comparing_all_pairs(*fingerprints(mixed))


@pytest.mark.parametrize("seed", range(3))
def test_the_limits_are_where_they_should_be(seed):
    pairs = assert_groups_are_those_of_comparing_all_pairs(*borderline(seed))
    differ, alike = pairs[:, 0], pairs[:, 1]
    assert min((differ[alike >= 0.95] == limit).sum() for limit in (6, 7, 8)) > 0
    assert min(((alike > low) & (alike < low + 0.03))[differ <= 7].sum() for low in (0.92, 0.95)) > 0


@pytest.mark.parametrize("byte", range(8))
def test_one_byte_in_common_is_enough(byte):
    """Seven bits differ, one in each of the other bytes, which are made of every eighth bit."""
    bits = np.ones((2, 64), np.int8)
    bits[1, [8 * 3 + k for k in range(8) if k != byte]] = -1
    thumbs = np.random.default_rng(0).integers(0, 256, (1, 3, 8, 8), np.uint8).repeat(2, axis=0)
    assert near_groups(alone(2), bits, -bits, thumbs).tolist() == [0, 0]
    bits[1, byte] = -1
    assert near_groups(alone(2), bits, -bits, thumbs).tolist() == [0, 1]


def test_the_groups_do_not_depend_on_how_many_are_compared_at_a_time(mixed, monkeypatch):
    expected = near_copies(alone(len(mixed)), mixed)
    assert len(members(expected)) > 30
    monkeypatch.setattr(duplicates, "PAIRS", 3)
    monkeypatch.setattr(duplicates, "CHUNK", 2)
    assert near_copies(alone(len(mixed)), mixed).tolist() == expected.tolist()


def test_bits_are_those_of_scipys_transform(mixed):
    bits, mirrored, _ = fingerprints(mixed)
    assert ((bits > 0) == reference_bits(mixed)).all()
    assert ((mirrored > 0) == reference_bits(mixed[..., ::-1])).all()
    assert set(np.unique(bits)) == {-1, 1}


COPIES = {
    "compressed": lambda p: again(p, quality=40),
    "another format": lambda p: again(p, "WEBP", quality=50),
    "smaller": lambda p: resized(p, 24),
    "larger": lambda p: resized(p, 200),
    "mirrored": lambda p: p[:, ::-1],
    "brighter": lambda p: shifted(p, 25),
    "less contrast": lambda p: (p // 2 + 60).astype(np.uint8),
    "mirrored and compressed": lambda p: again(p[:, ::-1], quality=40),
}
OTHERS = {
    "upside down": lambda p: p[::-1],
    "a quarter turned": lambda p: np.rot90(p),
    "negative": lambda p: 255 - p,
    "other colours": lambda p: p[..., [1, 2, 0]],
    "half another image": lambda p: np.where(np.arange(64)[:, None] < 32, p, smooth(999)).astype(np.uint8),
}


@pytest.mark.parametrize("change", COPIES.values(), ids=COPIES)
def test_a_changed_copy_is_found(change):
    images = [smooth(seed) for seed in range(20)]
    groups = groups_of([*images, *map(change, map(np.copy, images))])
    assert groups.tolist() == [*range(20), *range(20)]


@pytest.mark.parametrize("change", OTHERS.values(), ids=OTHERS)
def test_another_image_is_none(change):
    images = [smooth(seed) for seed in range(20)]
    groups = groups_of([*images, *map(change, images)])
    assert members(groups) == []


def test_symmetric_images_are_known_again():
    """Their odd frequencies across are zero, and compression gives each of them a sign by chance."""
    images = [np.concatenate([half, half[:, ::-1]], axis=1) for half in (smooth(k)[:, :32] for k in range(20))]
    groups = groups_of([*images, *(again(image, quality=40) for image in images)])
    assert groups.tolist() == [*range(20), *range(20)]


def test_images_of_one_colour_are_not_nearly_alike():
    flat = [np.full((64, 64, 3), level, np.uint8) for level in (0, 1, 128, 255)]
    groups = groups_of(flat)
    assert members(groups) == []


def test_exact_copies_stay_together_and_a_near_copy_of_one_is_a_copy_of_all():
    image = smooth(1)
    thumbs = np.stack([thumb(p) for p in (image, smooth(2), image, again(image, quality=40), smooth(2))])
    equal = equal_images([b"a", b"b", b"a", b"c", b"b"])
    assert equal.tolist() == [0, 1, 0, 3, 1]
    near = near_copies(equal, thumbs)
    assert near.tolist() == [0, 1, 0, 0, 1]
    assert equal.tolist() == [0, 1, 0, 3, 1]  # not changed by it
    assert [group.tolist() for group in members(near)] == [[0, 2, 3], [1, 4]]


def test_groups_join_along_chains_in_any_order():
    draw = np.random.default_rng(0)
    for _ in range(50):
        pairs = draw.integers(0, 30, (draw.integers(1, 25), 2))
        expected = list(range(30))
        for a, b in pairs.tolist():
            low, high = sorted((expected[a], expected[b]))
            expected = [low if one == high else one for one in expected]
        cut = len(pairs) // 2
        groups = joined(alone(30), pairs[:cut, 0], pairs[:cut, 1])
        assert joined(groups, pairs[cut:, 0], pairs[cut:, 1]).tolist() == expected


def test_no_images_at_all():
    groups = near_copies(equal_images([]), np.zeros((0, 3, 16, 16), np.uint8))
    assert members(groups) == []


@pytest.mark.slow
def test_a_hundred_thousand_images():
    """Of 1,000 planted copies in 100,000 images nearly all are found, within a minute, though images so smooth share
    bytes often: every other one is compared."""
    draw = np.random.default_rng(0)
    coarse = draw.integers(0, 256, (99_000, 3, 5, 5)).astype(np.float32)
    grid = np.linspace(0, 3.999, 16)
    low, part = grid.astype(int), (grid % 1).astype(np.float32)
    across = coarse[..., low] * (1 - part) + coarse[..., low + 1] * part
    originals = across[..., low, :] * (1 - part)[:, None] + across[..., low + 1, :] * part[:, None]
    copies = originals[:1000] + draw.normal(0, 4, (1000, 3, 16, 16))
    copies[500:] = copies[500:, ..., ::-1]
    thumbs = np.clip(np.concatenate([originals, copies]), 0, 255).astype(np.uint8)
    groups = near_copies(alone(100_000), thumbs)
    assert (groups[99_000:] == groups[:1000]).mean() > 0.99
    assert len(members(groups)) < 1100
