"""Damage at any byte of images, archives and arrays: a reason or the right pixels, never anything else."""

import io
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bytepixels.data import pack
from bytepixels.data.sources.decode import open_image, read_header, to_pixels
from bytepixels.data.sources.fit import Layout
from bytepixels.errors import InputError
from tests.data import corpus
from tests.data.fixtures import as_tar, as_zip, cifar, colours, idx, write, write_all
from tests.data.test_webdataset import shard

FILES = {key: raw for key, raw in corpus.files().items() if key[0] not in corpus.NOT_READ and len(raw) < 20_000}
# Without a mark of its end: PCX may leave out its palette, and JPEG 2000 is cut between its head and its first tile.
CUT_UNSEEN = {("PCX", "P")} | {key for key in FILES if key[0] == "JPEG2000"}
CHECKSUMMED = {"PNG"}
SMALL = st.sampled_from(sorted(key for key in FILES if key[0] != "ICNS"))


def read(raw):
    """The pixels of an image file, or None where it is refused."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            header = read_header(open_image(io.BytesIO(raw)))
            layout = Layout(header.height, header.width, 3, "crop", (255, 255, 255))
            return to_pixels(open_image(io.BytesIO(raw)), layout).pixels
        except Exception:
            return None


@pytest.mark.parametrize("file_format", sorted({key[0] for key in FILES}))
def test_images_cut_at_any_byte(file_format, capfd):
    for key, raw in FILES.items():
        if key[0] == file_format:
            whole = read(raw)
            if whole is None:  # an ICNS whose palette Pillow cannot read
                continue
            seen = [read(raw[:cut]) for cut in range(0, len(raw), max(1, len(raw) // 60))]
            wrong = [pixels for pixels in seen if pixels is not None and not np.array_equal(pixels, whole)]
            assert not wrong or key in CUT_UNSEEN, key
            assert sum(pixels is None for pixels in seen) > len(seen) / 3 or key in CUT_UNSEEN
    assert capfd.readouterr() == ("", "")


def damaged(raw, cut, flips):
    """The bytes up to a share of them, with some changed. flips: (place as a share, what to change there)."""
    harmed = bytearray(raw[: round(cut * len(raw))])
    for place, change in flips:
        if harmed:
            harmed[int(place * len(harmed))] ^= change
    return bytes(harmed)


SHARE = st.floats(0, 1, exclude_max=True)
FLIPS = st.lists(st.tuples(SHARE, st.integers(1, 255)), min_size=1, max_size=4)
CUT = st.one_of(st.just(1.0), st.just(1.0), SHARE)


def check_image(key, cut, flips):
    after = read(damaged(FILES[key], cut, flips))
    if key[0] in CHECKSUMMED and after is not None:
        assert np.array_equal(after, read(FILES[key]))


def test_a_png_cut_within_its_checksum_is_refused():
    """All its pixels are there, changed ones among them: only the checksum, of which half is missing, could tell."""
    raw = FILES["PNG", "RGB"]
    end = raw.index(b"IEND") - 4  # of the checksum
    assert read(raw[:end]) is not None
    assert all(read(raw[: end - missing]) is None for missing in (1, 2, 3, 4))
    assert read(damaged(raw, 0.90625, [(0.875, 1)])) is None


@settings(max_examples=150)
@given(SMALL, CUT, FLIPS)
def test_damaged_images(key, cut, flips):
    check_image(key, cut, flips)


@pytest.mark.slow
@settings(max_examples=2000)
@given(SMALL, CUT, FLIPS)
def test_many_damaged_images(key, cut, flips):
    check_image(key, cut, flips)


PIXELS = colours(10, 32, 32)[..., 0]
NAMES = ["cat/2.png", "cat/10.png", "dog/1.png", "dög/b.png"]
SAMPLES = {f"{number}.{kind}": value for number in range(4) for kind, value in (("png", PIXELS[number]), ("cls", "1"))}


def _arrays(path):
    np.savez_compressed(path, images=PIXELS, labels=np.arange(10))
    return path


ARCHIVES = {
    "x.zip": lambda root, path: as_zip(root, path),
    "x.tar": lambda root, path: as_tar(root, path),
    "x.tar.gz": lambda root, path: as_tar(root, path),
    "x.tar.xz": lambda root, path: as_tar(root, path),
    "x.tar.bz2": lambda root, path: as_tar(root, path),
    "shard.tar": lambda root, path: shard(path, SAMPLES),
    "shard.tar.gz": lambda root, path: shard(path, SAMPLES),
    "a.npz": lambda root, path: _arrays(path),
    "train-images-idx3-ubyte.gz": lambda root, path: idx(path, PIXELS),
    "cifar-10-python.tar.gz": lambda root, path: cifar(path, colours(12, 32, 32), np.arange(12) % 10),
}


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """{name: (content, the images in it as bytes)}"""
    root = tmp_path_factory.mktemp("archives")
    write_all(root / "in", NAMES, height=8, width=8)
    whole = {}
    for name, make in ARCHIVES.items():
        path = make(root / "in", root / name)
        whole[name] = (path.read_bytes(), {bytes(image) for image in pack(path, cache=root / "cache").images})
    return whole


def check_archive(archives, name, cut, flips):
    raw, pictures = archives[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(damaged(raw, cut, flips))
        refusal, images = "", []
        try:
            images = pack(path, cache=Path(folder, "cache")).images
        except InputError as error:
            refusal = str(error)
        assert len(refusal.splitlines()) <= 1
        assert {bytes(image) for image in images} <= pictures


@pytest.mark.parametrize("name", ARCHIVES)
@settings(max_examples=10)
@given(cut=CUT, flips=FLIPS)
def test_damaged_archives(archives, name, cut, flips):
    check_archive(archives, name, cut, flips)


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHIVES)
@settings(max_examples=100)
@given(cut=CUT, flips=FLIPS)
def test_many_damaged_archives(archives, name, cut, flips):
    check_archive(archives, name, cut, flips)


def test_a_folder_of_damaged_images(tmp_path):
    """Every cut and many flips of one image at once, with whole ones between them."""
    raw = write(tmp_path / "whole.png", PIXELS[0]).read_bytes()
    (tmp_path / "in").mkdir()
    for place in range(0, len(raw), 4):
        flipped = raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]
        for kind, content in (("a-whole", raw), ("b-cut", raw[:place]), ("c-flipped", flipped)):
            (tmp_path / f"in/{place}{kind}.png").write_bytes(content)
    result = pack(tmp_path / "in", cache=tmp_path / "cache")
    assert (result.images == PIXELS[0]).all()
    wholes, skipped = len(range(0, len(raw), 4)), [name for name, _ in result.meta["skipped"]]
    assert not any("whole" in name for name in skipped)
    assert wholes <= len(result) < wholes + 10  # the last twelve bytes only say that this was all
