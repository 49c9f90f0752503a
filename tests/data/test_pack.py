"""Packing: settings, skipped files, the cache, damage, interruption, and two processes at once."""

import hashlib
import json
import os
import shutil
import threading
import warnings

import numpy as np
import pytest
from PIL import Image

from bytepixels.data import Packed, open_packed, pack, parallel
from bytepixels.data import make_pack as making
from bytepixels.data import packed as module
from bytepixels.data.packed import default_cache
from bytepixels.data.sources import decode
from bytepixels.errors import InputError
from tests.data.fixtures import as_tar, as_zip, colours, peak, stacked, write, write_all

NAMES = ["a.png", "b.png", "c.png"]


@pytest.fixture
def packed(tmp_path):
    return lambda source, **options: pack(source, cache=tmp_path / "cache", **options)


@pytest.fixture
def folder(tmp_path):
    write_all(tmp_path / "in", NAMES)
    return tmp_path / "in"


@pytest.fixture
def decodes(monkeypatch):
    """Counts the images that are decoded."""
    counted = []
    original = making.to_pixels
    monkeypatch.setattr(making, "to_pixels", lambda *args: counted.append(1) or original(*args))
    return counted


def packs(tmp_path):
    return sorted(path.name for path in (tmp_path / "cache" / "packs").iterdir())


# what a pack holds


def test_what_a_pack_holds(tmp_path, packed):
    images = write_all(tmp_path / "in", ["x/1.png", "y/1.png"], height=4, width=9)
    result = packed(tmp_path / "in")
    assert isinstance(result, Packed)
    assert isinstance(result.images, np.memmap)
    assert not result.images.flags.writeable
    assert result.images.dtype == np.uint8
    assert len(result) == 2
    assert np.array_equal(np.load(result.path / "images.npy"), stacked(images, images))
    assert np.load(result.path / "labels.npy").tolist() == [0, 1]
    meta = json.loads((result.path / "meta.json").read_text())
    assert meta == result.meta
    assert (meta["count"], meta["size"], meta["channels"], meta["classes"]) == (2, [4, 9], 3, ["x", "y"])
    assert meta["settings"]["background"] == [255, 255, 255]
    for name in ("images", "labels"):
        assert meta["sha256"][name] == hashlib.sha256((result.path / f"{name}.npy").read_bytes()).hexdigest()


def test_size_and_channels_come_from_the_data(tmp_path, packed):
    for index, (height, width) in enumerate([(10, 30), (14, 12), (40, 20)]):
        write(tmp_path / f"in/{index}.png", colours(1, height, width)[0, ..., 0])
    result = packed(tmp_path / "in")
    assert result.images.shape == (3, 1, 12, 12)  # all grey; median of 10, 12, 20
    assert any("12 x 12, the median short side" in note for note in result.notes)
    assert any("3 of 3 images have another aspect ratio than 12 x 12: cropped" in note for note in result.notes)
    write(tmp_path / "in/colour.png", colours(1, 12, 12)[0])
    assert packed(tmp_path / "in").images.shape == (4, 3, 12, 12)
    assert packed(tmp_path / "in", channels=1).images.shape == (4, 1, 12, 12)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_size_is_height_then_width(folder, packed, channels):
    assert packed(folder, size=(8, 16), channels=channels).images.shape == (3, channels, 8, 16)


def test_settings_reach_the_pixels(tmp_path, packed):
    write(tmp_path / "in/a.png", np.full((4, 8, 4), [10, 20, 30, 255], np.uint8))
    write(tmp_path / "in/b.png", np.zeros((8, 8, 4), np.uint8))
    result = packed(tmp_path / "in", size=(8, 8), fit="pad", background="#ff8000")
    assert result.images[0, :, 0, 0].tolist() == [255, 128, 0]
    assert result.images[0, :, 4, 4].tolist() == [10, 20, 30]
    assert (result.images[1] == np.array([255, 128, 0])[:, None, None]).all()
    assert "1 of 2 images have transparent parts: composed on #ff8000." in result.notes
    assert any("1 of 2 images have another aspect ratio than 8 x 8: padded." in note for note in result.notes)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"size": (0, 8)}, "height must be in 1..8192, got 0"),
        ({"size": (8, 9000)}, "width must be in 1..8192, got 9000"),
        ({"size": 8}, r"size must be \(height, width\) in pixels, got 8"),
        ({"channels": 5}, "channels must be 1, 2, 3 or 4, got 5"),
        ({"fit": "corp"}, "fit must be one of crop, pad, squash; got 'corp'; did you mean 'crop'"),
        ({"split": "trian"}, "split must be one of train, val, test, all; got 'trian'; did you mean 'train'"),
        ({"background": "whit"}, "background must be a CSS colour such as white or #80c0ff, got 'whit'"),
        ({"background": "#ffffff00"}, "background must be an opaque colour"),
    ],
)
def test_settings_out_of_range(folder, packed, options, match):
    with pytest.raises(InputError, match=match):
        packed(folder, **options)


def test_too_large_for_the_disk(folder, packed):
    for index in range(300):
        os.link(folder / "a.png", folder / f"link{index}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10_000}))
        with pytest.raises(InputError, match=r"303 images of 6 x 6 need 0.0 GB in .* ask for a smaller size"):
            packed(folder)


# files that cannot be read


@pytest.fixture
def damaged(folder):
    """a, b and c are fine; three others are not."""
    (folder / "aa.png").write_text("this is text")
    content = (folder / "a.png").read_bytes()
    (folder / "bb.png").write_bytes(content[: len(content) // 2])
    Image.new("1", (13400, 13400)).save(folder / "cc.png")  # 180 megapixels in 22 kB
    return folder


def test_unreadable_files_are_counted_named_and_skipped(damaged, packed):
    expected = np.stack([np.asarray(Image.open(damaged / name)) for name in NAMES]).transpose(0, 3, 1, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = packed(damaged)
    assert np.array_equal(result.images, expected)
    assert [name for name, _ in result.meta["skipped"]] == ["aa.png", "bb.png", "cc.png"]
    note = next(note for note in result.notes if note.startswith("Skipped 3 of 6 files: "))
    assert "aa.png (not an image that Pillow can read)" in note
    assert "bb.png (" in note
    assert "more than 179 million pixels are too many" in note


def test_labels_follow_the_images_that_are_kept(tmp_path, packed):
    write_all(tmp_path / "in", ["x/1.png", "x/3.png", "y/1.png"])
    (tmp_path / "in/x/2.png").write_text("no image")
    result = packed(tmp_path / "in")
    assert result.labels.tolist() == [0, 0, 1]
    assert len(result) == 3


def test_strict_refuses_them_before_and_after_a_pack(tmp_path, damaged, packed):
    with pytest.raises(InputError, match=r"aa.png cannot be read \(not an image"):
        packed(damaged, strict=True)
    assert packs(tmp_path) == []
    packed(damaged)
    with pytest.raises(InputError, match=r"aa.png cannot be read \(not an image"):
        packed(damaged, strict=True)
    for name in ("aa.png", "bb.png", "cc.png"):
        (damaged / name).unlink()
    assert len(packed(damaged, strict=True)) == 3


# the cache


def test_the_second_time_nothing_is_decoded(folder, packed, decodes):
    first = packed(folder)
    assert len(decodes) == 3
    second = packed(folder)
    assert len(decodes) == 3
    assert second.path == first.path
    assert np.array_equal(second.images, first.images)
    assert (second.notes, second.meta) == (first.notes, first.meta)


@pytest.mark.parametrize(
    "options",
    [{"size": (5, 5)}, {"channels": 1}, {"fit": "pad"}, {"background": "black"}, {"split": "all"}],
    ids=lambda options: next(iter(options)),
)
def test_other_settings_are_another_pack(folder, packed, decodes, options):
    first = packed(folder)
    second = packed(folder, **options)
    assert len(decodes) == 6
    assert second.path != first.path
    assert open_packed(first.path) is not None
    assert second.meta["settings"] != first.meta["settings"]


def test_a_changed_folder_is_packed_again(folder, packed, decodes):
    packed(folder)
    fresh = colours(1, seed=9)[0]
    write(folder / "b.png", fresh)
    assert np.array_equal(packed(folder).images[1], fresh.transpose(2, 0, 1))
    write(folder / "d.png", fresh)
    assert len(packed(folder)) == 4
    (folder / "a.png").unlink()
    assert len(packed(folder)) == 3
    # the same size, only the time of change tells
    raw = (folder / "b.png").read_bytes()
    (folder / "b.png").write_bytes(raw)
    os.utime(folder / "b.png", (1, 1))
    before = len(decodes)
    packed(folder)
    assert len(decodes) > before


def test_two_folders_that_look_the_same_are_two_packs(tmp_path, packed):
    for name, seed in (("one", 1), ("two", 2)):
        Image.fromarray(colours(1, seed=seed)[0]).save(write_bmp := tmp_path / f"{name}.bmp")
        (tmp_path / name / "same").mkdir(parents=True)
        write_bmp.rename(tmp_path / name / "same/a.bmp")
        os.utime(tmp_path / name / "same/a.bmp", (5, 5))
    one, two = packed(tmp_path / "one/same"), packed(tmp_path / "two/same")
    assert not np.array_equal(one.images, two.images)


def test_an_archive_is_known_by_its_content(tmp_path, folder, packed, decodes):
    path = as_tar(folder, tmp_path / "x.tar.gz")
    packed(path)
    os.utime(path, (1, 1))
    packed(path)
    assert len(decodes) == 3
    write(folder / "b.png", colours(1, seed=9)[0])
    stat = path.stat()
    as_tar(folder, path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    packed(path)
    assert len(decodes) == 6


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path):
    path.write_bytes(path.read_bytes() + b"x")


def other_array(path):
    np.save(path, np.zeros((3, 3, 6, 6), np.int16))


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        ("images.npy", truncate),
        ("images.npy", lengthen),
        ("images.npy", other_array),
        ("images.npy", os.unlink),
        ("labels.npy", truncate),
        ("labels.npy", os.unlink),
        ("meta.json", truncate),
        ("meta.json", os.unlink),
        ("meta.json", lambda path: path.write_text(path.read_text().replace('"format": 1', '"format": 0'))),
    ],
)
def test_a_damaged_pack_is_made_again(tmp_path, packed, name, harm):
    images = write_all(tmp_path / "in", ["x/1.png", "y/1.png", "y/2.png"])
    path = packed(tmp_path / "in").path
    harm(path / name)
    assert open_packed(path) is None
    again = packed(tmp_path / "in")
    assert again.path == path
    assert np.array_equal(again.images, stacked(images, images))
    assert again.labels.tolist() == [0, 1, 1]
    assert packs(tmp_path) == [path.name]


def test_order_and_memory_with_many_images(tmp_path, packed):
    """Far more images than are under way at a time, each known by its value."""
    values = np.arange(300)
    for value in values:
        write(tmp_path / f"in/{value}.png", np.full((2, 2), value % 256, np.uint8))
    for source in (tmp_path / "in", as_tar(tmp_path / "in", tmp_path / "x.tar")):
        assert np.array_equal(packed(source).images[:, 0, 0, 0], values % 256)


def test_only_a_few_images_are_under_way(monkeypatch):
    from bytepixels.data.parallel import CHUNK, in_parallel
    from bytepixels.data.sources.source import ImageRef

    def held(size, result=0):
        begun, most, seen = 0, 0, 0

        def stream():
            nonlocal begun
            for index in range(2000):
                begun += 1
                yield ImageRef(index, lambda: Image.new("L", (2, 2)), size)

        for seen, (index, _) in enumerate(in_parallel(lambda image: image.size, stream(), result), 1):
            assert index == seen - 1
            most = max(most, begun - seen)
        assert seen == 2000
        return most

    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert held(0) <= (2 * threads + 1) * CHUNK
    assert held(5 << 20) <= 2 * threads + 1  # large files are handed over one by one
    monkeypatch.setattr(parallel, "HELD_BYTES", 12 << 20)
    assert held(5 << 20) <= 3  # two, and one that has been read and waits its turn
    assert held(0, 5 << 20) <= 3  # nor do large results pile up
    assert held(50 << 20) <= 2


@pytest.mark.slow
def test_many_large_images_need_little_memory(tmp_path, monkeypatch):
    """184 MB of pixels, from sources that are read in very different ways."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1}, raising=False)
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    for number in range(32):
        pixels = np.broadcast_to(rng.integers(0, 256, (400, 1, 1200, 3), np.uint8), (400, 4, 1200, 3))
        Image.fromarray(pixels.reshape(1600, 1200, 3)).save(tmp_path / f"in/{number}.png", compress_level=1)
    for make in (lambda root, path: root, as_tar, as_zip):
        source = make(tmp_path / "in", tmp_path / ("x.tar" if make is as_tar else "x.zip"))
        assert peak(lambda source=source: pack(source, cache=tmp_path / "cache")) < 100, source


def test_only_two_large_images_are_decoded_at_a_time(tmp_path, monkeypatch, packed):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(parallel, "CHUNK", 1)
    write_all(tmp_path / "in", [f"{number}.png" for number in range(24)])
    now, most, awaited, original, changed = 0, 0, 3, decode._decode, threading.Condition()

    def counted(*arguments):
        """The first few wait for one another: as many as are awaited are at it at once, if they may."""
        nonlocal now, most
        with changed:
            now, most = now + 1, max(most, now + 1)
            changed.notify_all()
            assert changed.wait_for(lambda: most >= awaited, 600)
            now -= 1
        return original(*arguments)

    monkeypatch.setattr(decode, "_decode", counted)
    packed(tmp_path / "in")
    assert most > 2
    most, awaited = 0, 2
    monkeypatch.setattr(decode, "LARGE", 35)  # pixels; these have 36
    packed(tmp_path / "in", size=(5, 5))
    assert most == 2


def test_the_cache_folder(monkeypatch, tmp_path, folder):
    monkeypatch.setenv("BYTEPIXELS_CACHE", str(tmp_path / "mine"))
    assert default_cache() == tmp_path / "mine"
    assert pack(folder).path.parent == tmp_path / "mine" / "packs"


def test_a_cache_that_cannot_be_written(tmp_path, folder):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(InputError, match=r"the cache .*taken cannot be written \(Not a directory\)"):
        pack(folder, cache=tmp_path / "taken")


def test_images_of_0_and_1_alone_are_a_warning(tmp_path):
    """Masks saved as they are: two shades of black."""
    folder = tmp_path / "masks"
    for k in range(3):
        write(folder / f"{k}.png", (colours(1, seed=k)[0] > 128).astype(np.uint8))
    write(folder / "3.png", colours(1)[0])
    (said,) = [note for note in pack(folder, cache=tmp_path / "cache").notes if "black" in note]
    assert said.startswith("warning: 3 of 4 images are black or nearly so: no value above 1 of 255 (such as 0.png).")
    assert "multiply their values by 255" in said


@pytest.mark.parametrize("home", ["file/cache", "made/cache"])
def test_without_a_home_that_can_be_written_the_cache_is_among_the_temporary_files(
    tmp_path, monkeypatch, capsys, console, home
):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.delenv("BYTEPIXELS_CACHE")
    monkeypatch.setattr("pooch.os_cache", lambda name: tmp_path / home / name)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    module._home_cache.cache_clear()
    found = module.default_cache()
    module._home_cache.cache_clear()
    said = capsys.readouterr().out
    if home == "made/cache":
        assert (found, said) == (tmp_path / home / "bytepixels", "")
    else:
        assert found.parent == tmp_path / "temporary"
        assert (
            said
            == f"No home folder that can be written: the cache is {found} (BYTEPIXELS_CACHE=FOLDER takes another)\n"
        )
