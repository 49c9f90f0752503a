"""Folders, archives, arrays and named sets: what is found, in which order, with which labels, and what is refused."""

import gzip
import io
import json
import os
import pickle
import struct
import tarfile
import unicodedata
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from bytepixels.data import SOURCES, pack
from bytepixels.data.sources import archives
from bytepixels.data.sources import tar as tars
from bytepixels.errors import InputError
from tests.data.fixtures import (
    TAR_MODES,
    as_tar,
    as_zip,
    cifar,
    colours,
    idx,
    python2_pickle,
    python3_pickle,
    stacked,
    tar_of,
    unpack,
    write,
    write_all,
)

CLASSES = ["cat/2.png", "cat/10.png", "dog/1.png", "dog/b.png"]  # in natural order


@pytest.fixture
def packed(tmp_path):
    return lambda source, **options: pack(source, cache=tmp_path / "cache", **options)


@pytest.fixture
def refused(packed):
    def check(match, source, **options):
        with pytest.raises(InputError, match=match) as caught:
            packed(source, **options)
        assert "\n" not in str(caught.value)

    return check


# folders


def test_flat_folder_in_natural_order_without_labels(tmp_path, packed):
    names = ["1.png", "2.png", "10.png", "a.png"]
    images = write_all(tmp_path / "in", names)
    result = packed(str(tmp_path / "in"))
    assert np.array_equal(result.images, stacked(images, names))
    assert result.labels is None
    assert result.classes == ()


def test_subfolders_are_classes(tmp_path, packed):
    images = write_all(tmp_path / "in", CLASSES)
    result = packed(tmp_path / "in")
    assert np.array_equal(result.images, stacked(images, CLASSES))
    assert result.labels.tolist() == [0, 0, 1, 1]
    assert result.labels.dtype == np.int64
    assert result.classes == ("cat", "dog")
    assert "2 classes from the subfolders: cat, dog." in result.notes


def test_class_folders_with_numbers_sort_as_numbers(tmp_path, packed):
    write_all(tmp_path / "in", ["10/a.png", "9/a.png"])
    assert packed(tmp_path / "in").classes == ("9", "10")


def test_folders_that_wrap_everything_are_looked_through(tmp_path, packed):
    flat = write_all(tmp_path / "flat", ["png/128/a.png", "png/128/b.png"])
    result = packed(tmp_path / "flat")
    assert np.array_equal(result.images, stacked(flat, flat))
    assert result.labels is None
    write_all(tmp_path / "classes", [f"data/images/{name}" for name in CLASSES])
    assert packed(tmp_path / "classes").classes == ("cat", "dog")


def test_deeper_folders_belong_to_the_class_above(tmp_path, packed):
    write_all(tmp_path / "in", ["cat/a/1.png", "cat/b/c/2.png", "dog/3.png"])
    result = packed(tmp_path / "in")
    assert result.classes == ("cat", "dog")
    assert result.labels.tolist() == [0, 0, 1]


def test_images_beside_subfolders_have_no_labels_and_say_so(tmp_path, packed):
    write_all(tmp_path / "in", ["top.png", "cat/1.png"])
    result = packed(tmp_path / "in")
    assert len(result) == 2
    assert result.labels is None
    (said,) = [note for note in result.notes if "without class labels" in note]
    assert said.startswith("warning: 1 image (top.png) beside the subfolders (cat): all 2 packed")


SPLIT = ["train/cat/1.png", "train/dog/1.png", "test/cat/1.png", "test/dog/1.png"]


@pytest.mark.parametrize(
    ("beside", "said"),
    [
        (["cover.png"], "1 image beside the splits: cover.png"),
        (["examples/a.png", "examples/b.png"], "2 images beside the splits: examples/ (2)"),
        ([f"again/{name}" for name in SPLIT], "4 images beside the splits: again/ (4)"),
        (
            ["b.png", *(f"{k}/a.png" for k in range(6))],
            "7 images beside the splits: 0/ (1), 1/ (1), 2/ (1), 3/ (1), 4/",
        ),
    ],
)
def test_splits_are_known_by_their_names_whatever_lies_beside_them(tmp_path, packed, beside, said):
    images = write_all(tmp_path / "in", [*SPLIT, *beside])
    for split, expected in {"train": SPLIT[:2], "test": SPLIT[2:]}.items():
        result = packed(tmp_path / "in", split=split)
        assert np.array_equal(result.images, stacked(images, expected))
        assert result.classes == ("cat", "dog")
        assert any(note.startswith(f"warning: left out {said}") for note in result.notes)
    assert len(packed(tmp_path / "in", split="all")) == len(SPLIT)


def test_splits_deeper_down_are_found_beside_a_stray_image(tmp_path, packed):
    images = write_all(tmp_path / "in", ["cover.png", *(f"set/{name}" for name in SPLIT)])
    result = packed(tmp_path / "in")
    assert np.array_equal(result.images, stacked(images, [f"set/{name}" for name in SPLIT[:2]]))
    assert result.classes == ("cat", "dog")


def test_splits_within_the_classes(tmp_path, packed):
    names = ["cat/test/1.png", "cat/train/1.png", "dog/test/1.png", "dog/train/1.png", "bird/1.png"]
    images = write_all(tmp_path / "in", names)
    result = packed(tmp_path / "in")
    assert np.array_equal(result.images, stacked(images, ["cat/train/1.png", "dog/train/1.png"]))
    assert result.classes == ("cat", "dog")
    assert "warning: left out 1 image beside the splits: bird/ (1)." in result.notes


def test_a_few_images_in_folders_of_splits_do_not_make_the_others_go(tmp_path, packed):
    write_all(tmp_path / "in", ["cat/1.png", "cat/2.png", "dog/1.png", "dog/more/train/1.png", "dog/more/test/1.png"])
    assert len(packed(tmp_path / "in")) == 5


def test_a_class_whose_images_cannot_be_read_is_left_out_and_said(tmp_path, packed, refused):
    write_all(tmp_path / "in", CLASSES)
    for number, name in enumerate(("bee", "cow")):
        (tmp_path / "in" / name).mkdir()
        (tmp_path / f"in/{name}/{number}.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    result = packed(tmp_path / "in")
    assert result.classes == ("cat", "dog")
    assert result.labels.tolist() == [0, 0, 1, 1]
    assert result.labels.dtype == np.int64
    assert "warning: left out 2 classes without a readable image: bee, cow; 2 remain." in result.notes
    refused("bee/0.png cannot be read", tmp_path / "in", strict=True)


def test_a_folder_of_other_files_beside_the_classes_is_named(tmp_path, packed):
    write_all(tmp_path / "in", [f"set/{name}" for name in CLASSES])
    (tmp_path / "in/set/bee").mkdir()
    (tmp_path / "in/set/bee/1.xyz").write_bytes(b"")
    (tmp_path / "in/set/cat/1.txt").write_bytes(b"")
    result = packed(tmp_path / "in")
    assert result.classes == ("cat", "dog")
    assert "warning: no image that can be read in bee: it is no class." in result.notes


@pytest.mark.parametrize("names", [("train", "test"), ("Training", "validation", "test")])
def test_splits(tmp_path, packed, refused, names):
    files = [f"{split}/{name}" for split in names for name in CLASSES]
    images = write_all(tmp_path / "in", files)
    train = packed(tmp_path / "in")
    assert np.array_equal(train.images, stacked(images, files[:4]))
    assert train.classes == ("cat", "dog")
    assert any(note.startswith("Splits found: train (4), ") and "packed train" in note for note in train.notes)
    test = packed(tmp_path / "in", split="test")
    assert np.array_equal(test.images, stacked(images, files[-4:]))
    everything = packed(tmp_path / "in", split="all")
    assert len(everything) == len(files)
    assert np.bincount(everything.labels).tolist() == [len(files) // 2] * 2
    if len(names) == 2:
        refused("split must be one of train, test, all; got 'val'", tmp_path / "in", split="val")
    else:
        assert np.array_equal(packed(tmp_path / "in", split="val").images, stacked(images, files[4:8]))


@pytest.mark.parametrize("held_out", ["test", "val"])
def test_images_flat_beside_a_lone_split_are_those_to_learn_from(tmp_path, packed, held_out):
    write_all(tmp_path / "in", ["a.png", "b.png", f"{held_out}/a.png", f"{held_out}/b.png", f"{held_out}/c.png"])
    assert len(result := packed(tmp_path / "in")) == 2
    assert result.labels is None
    assert f"Splits found: train (2), {held_out} (3); packed train, 2 images." in result.notes
    assert [len(packed(tmp_path / "in", split=split)) for split in (held_out, "all")] == [3, 5]


def test_folders_that_wrap_a_split_are_looked_through(tmp_path, packed):
    files = [f"set/{split}/images/{name}" for split in ("train", "test") for name in CLASSES]
    images = write_all(tmp_path / "in", files)
    result = packed(tmp_path / "in", split="test")
    assert np.array_equal(result.images, stacked(images, files[4:]))
    assert result.classes == ("cat", "dog")


def test_a_class_named_train_is_a_class(tmp_path, packed):
    write_all(tmp_path / "in", ["train/1.png", "plane/1.png"])
    result = packed(tmp_path / "in")
    assert result.classes == ("plane", "train")
    assert any(note.startswith("warning: train is taken for a class") for note in result.notes)


def test_a_split_that_is_not_there_is_refused(tmp_path, refused):
    write_all(tmp_path / "in", CLASSES)
    refused("has no test split", tmp_path / "in", split="test")
    refused("digits has no test split", "digits", split="test")


def test_hidden_files_and_other_files_are_ignored(tmp_path, packed):
    images = write_all(tmp_path / "in", ["a.png", "b.png"])
    write_all(tmp_path / "in", [".hidden.png", "._a.png", "__MACOSX/._a.png", ".git/x.png"], seed=1)
    (tmp_path / "in/names.csv").write_text("a.png,a cat")
    (tmp_path / "in/notes.txt").write_text("")
    result = packed(tmp_path / "in")
    assert np.array_equal(result.images, stacked(images, ["a.png", "b.png"]))
    assert any("Ignored 2 other files (.csv, .txt)" in note for note in result.notes)
    archived = packed(as_zip(tmp_path / "in", tmp_path / "in.zip"))
    assert np.array_equal(archived.images, result.images)


def test_links_are_followed_but_not_in_circles(tmp_path, packed):
    write_all(tmp_path / "elsewhere", ["1.png", "2.png"])
    write_all(tmp_path / "in", ["dog/1.png"])
    os.symlink(tmp_path / "elsewhere", tmp_path / "in/cat")
    os.symlink(tmp_path / "in", tmp_path / "in/dog/loop")
    os.symlink(tmp_path / "nowhere.png", tmp_path / "in/dog/dangling.png")
    result = packed(tmp_path / "in")
    assert result.classes == ("cat", "dog")
    assert result.labels.tolist() == [0, 0, 1]


def test_one_image_is_enough(tmp_path, packed):
    images = write_all(tmp_path / "in", ["only.png"])
    for source in (tmp_path / "in", tmp_path / "in/only.png"):
        assert np.array_equal(packed(source).images, stacked(images, images))


# archives


@pytest.mark.parametrize("kept", [0, 400, 1 << 26])
def test_a_compressed_tar_is_read_once_where_its_images_fit_in_memory_else_twice(tmp_path, packed, monkeypatch, kept):
    """They take about 600 bytes here. What is packed is the same."""
    images = write_all(tmp_path / "in", CLASSES)
    path, times, read_tar = as_tar(tmp_path / "in", tmp_path / "x.tar.xz"), [], tars.read_tar
    for module in (archives, tars):
        monkeypatch.setattr(module, "read_tar", lambda *which: times.append(1) or read_tar(*which))
    monkeypatch.setattr(archives, "KEPT_BYTES", kept)
    result = packed(path, size=(6, 6), channels=3)
    assert np.array_equal(result.images, stacked(images, CLASSES))
    assert len(times) == (1 if kept > 1000 else 2)


@pytest.mark.parametrize("suffix", [".zip", *TAR_MODES])
@pytest.mark.parametrize("prefix", ["", "./", "wrapped/"])
def test_archives_equal_the_folder(tmp_path, packed, suffix, prefix):
    images = write_all(tmp_path / "in", CLASSES)
    (tmp_path / "in/readme.txt").write_text("")
    make = as_zip if suffix == ".zip" else as_tar
    result = packed(make(tmp_path / "in", tmp_path / f"archive{suffix}", prefix))
    assert np.array_equal(result.images, stacked(images, CLASSES))
    assert result.labels.tolist() == [0, 0, 1, 1]
    assert result.classes == ("cat", "dog")


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_names_that_lead_outside_are_just_names(tmp_path, packed):
    pixels = colours(3)
    contents = {name: png(image) for name, image in zip(["../1.png", "/etc/2.png", "a\\3.png"], pixels, strict=True)}
    before = sorted(tmp_path.rglob("*.png"))
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    for path in (tmp_path / "x.zip", tar_of(tmp_path / "x.tar.gz", contents)):
        result = packed(path)
        assert sorted(map(bytes, result.images)) == sorted(bytes(image.transpose(2, 0, 1).copy()) for image in pixels)
        assert result.labels is None  # 1.png lies at the top
    assert sorted(tmp_path.rglob("*.png")) == before


def test_damaged_archives_are_refused(tmp_path, refused):
    write_all(tmp_path / "in", CLASSES)
    for make, name in ((as_zip, "x.zip"), (as_tar, "x.tar.xz"), (as_tar, "x.tar.gz"), (as_tar, "x.tar")):
        path = make(tmp_path / "in", tmp_path / name)
        path.write_bytes(path.read_bytes()[:-500] if name != "x.tar" else path.read_bytes()[:3000])
        refused("damaged", path)
    (tmp_path / "x.zip").write_bytes(b"no archive")
    refused(r"x.zip is no image, .npz, .npy, .zip or .tar archive, or it is damaged", tmp_path / "x.zip")


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tar.xz", ".tar.bz2"])
def test_a_tar_cut_anywhere_before_its_end_mark_is_refused(tmp_path, refused, suffix):
    """Also where a member ends and the next would begin: tarfile itself takes that for the end."""
    write_all(tmp_path / "in", CLASSES)
    path = as_tar(tmp_path / "in", tmp_path / f"x{suffix}")
    content = path.read_bytes()
    if suffix == ".tar":
        with tarfile.open(path) as archive:
            end = archive.getmembers()[-1].offset_data + 512  # each image fills one block
        cuts = [*range(512, end, 512), *range(700, end, 1000), end]
    else:
        cuts = range(100, len(content) * 4 // 5, 97)
    for cut in cuts:
        path.write_bytes(content[:cut])
        refused("damaged", path)


def test_a_tar_with_a_damaged_header_in_the_middle_is_refused(tmp_path, refused):
    write_all(tmp_path / "in", CLASSES)
    path = as_tar(tmp_path / "in", tmp_path / "x.tar")
    with tarfile.open(path) as archive:
        offset = archive.getmembers()[2].offset
    content = bytearray(path.read_bytes())
    content[offset + 10] ^= 255
    path.write_bytes(content)
    refused("damaged", path)


def test_one_damaged_member_of_a_zip_is_skipped(tmp_path, packed):
    images = write_all(tmp_path / "in", CLASSES)
    path = as_zip(tmp_path / "in", tmp_path / "x.zip")
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        offset = archive.getinfo("cat/10.png").header_offset + 70
    path.write_bytes(content[:offset] + bytes([content[offset] ^ 255]) + content[offset + 1 :])
    result = packed(path)
    assert np.array_equal(result.images, stacked(images, [name for name in CLASSES if name != "cat/10.png"]))
    assert result.labels.tolist() == [0, 1, 1]
    assert result.meta["skipped"][0][0] == "cat/10.png"


# arrays


@pytest.mark.parametrize("key", ["images", "x", "arr_0", "x_train", "train_images", "something"])
def test_npz_with_labels(tmp_path, packed, key):
    images, split = colours(4), "train" in key
    label_key = {"x": "y", "arr_0": "arr_1", "x_train": "y_train", "train_images": "train_labels"}.get(key, "labels")
    other = {"x_test": images[:1], "y_test": [7]} if key == "x_train" else {}
    np.savez(tmp_path / "a.npz", **{label_key: np.array([3, 5, 3, 5]), key: images, **other})
    result = packed(tmp_path / "a.npz")
    assert np.array_equal(result.images, images.transpose(0, 3, 1, 2))
    assert result.labels.tolist() == [0, 1, 0, 1]
    assert result.classes == ("3", "5")
    assert any("split" in note for note in result.notes) == split
    if other:
        assert packed(tmp_path / "a.npz", split="test").classes == ("7",)


def test_array_layouts(tmp_path, packed):
    rgb = colours(3, 5, 7)
    grey = rgb[..., 0]
    layouts = {
        "hwc": (rgb, rgb.transpose(0, 3, 1, 2)),
        "chw": (rgb.transpose(0, 3, 1, 2), rgb.transpose(0, 3, 1, 2)),
        "hw": (grey, grey[:, None]),
        "hw1": (grey[..., None], grey[:, None]),
        "1hw": (grey[:, None], grey[:, None]),
        "tiny": (grey[:, None, :4, :4], grey[:, None, :4, :4]),
    }
    for name, (array, expected) in layouts.items():
        np.save(tmp_path / f"{name}.npy", array)
        assert np.array_equal(packed(tmp_path / f"{name}.npy").images, expected), name


def test_array_values(tmp_path, packed):
    whole = colours(3)[..., 0].astype(np.uint8)
    whole[0, 0, :2] = 0, 255
    ranges = {
        "unit": whole / 255,
        "signed": (whole / 127.5 - 1).astype(np.float32),
        "float255": whole.astype(np.float32),
        "int64": whole.astype(np.int64),
        "uint16": whole.astype(np.uint16) * 257,
    }
    for name, array in ranges.items():
        np.save(tmp_path / f"{name}.npy", array)
        assert np.array_equal(packed(tmp_path / f"{name}.npy").images[:, 0], whole), name
    np.save(tmp_path / "bool.npy", whole > 99)
    assert np.array_equal(packed(tmp_path / "bool.npy").images[:, 0], (whole > 99) * 255)


def test_array_refusals(tmp_path, refused):
    def saved(array):
        np.save(tmp_path / "a.npy", array, allow_pickle=True)
        return tmp_path / "a.npy"

    refused("must lie in 0..1, -1..1 or .*0..255, got values from -3 to 2", saved(np.array([[[-3.0, 2.0]]])))
    refused("got values from 0 to 9.5", saved(np.array([[[0, 9.5]]])))
    refused("must lie in", saved(np.array([[[0, np.nan]]])))
    refused(r"got shape \[5, 5\]", saved(np.zeros((5, 5))))
    refused(r"1 to 4 channels.*got shape \[2, 6, 6, 6\]", saved(np.zeros((2, 6, 6, 6))))
    refused("no readable array file", saved(np.array([[[{}]]], dtype=object)))
    np.savez(tmp_path / "a.npz", weights=np.zeros(3))
    refused("holds no array named images, .*; it has weights", tmp_path / "a.npz")
    (tmp_path / "b.npz").write_bytes(b"PK\x03\x04 cut short")
    refused("no readable array file", tmp_path / "b.npz")


def test_labels_that_are_none_are_ignored_in_words(tmp_path, packed):
    np.savez(tmp_path / "a.npz", images=colours(3), labels=np.zeros(2, int))
    result = packed(tmp_path / "a.npz")
    assert result.labels is None
    assert any("Labels of shape [2]" in note for note in result.notes)
    np.savez(tmp_path / "b.npz", images=colours(3), labels=np.array(["tea", "bun", "tea"]))
    result = packed(tmp_path / "b.npz")
    assert (result.labels.tolist(), result.classes) == ([1, 0, 1], ("bun", "tea"))


@pytest.mark.parametrize("kind", ["bool", "uint8", "int64", "uint16", "int8", "float32"])
def test_arrays_of_0_and_1_are_black_and_white(tmp_path, packed, kind):
    binary = colours(4)[..., 0] > 128
    np.savez(tmp_path / "a.npz", images=binary.astype(kind))
    result = packed(tmp_path / "a.npz")
    assert np.array_equal(result.images[:, 0], binary * np.uint8(255))
    assert any("read as 0..1" in note for note in result.notes)


def test_labels_one_hot_or_as_floats_are_classes(tmp_path, packed):
    wanted = np.array([2, 0, 1])
    for name, labels in {"hot": np.eye(3)[wanted], "float": wanted.astype(np.float32)}.items():
        np.savez(tmp_path / f"{name}.npz", images=colours(3), labels=labels)
        assert packed(tmp_path / f"{name}.npz").labels.tolist() == wanted.tolist()
    np.savez(tmp_path / "soft.npz", images=colours(3), labels=np.full((3, 3), 1 / 3))
    assert packed(tmp_path / "soft.npz").labels is None


def test_objects_beside_good_arrays_are_left_alone(tmp_path, packed):
    np.savez(tmp_path / "a.npz", images=colours(2), labels=np.array([{}, 1], object), paths=np.array(["a", 1], object))
    result = packed(tmp_path / "a.npz")
    assert (len(result), result.labels) == (2, None)
    assert any("labels are Python objects" in note for note in result.notes)


def zip_in(encoding, path, names, extra=False):
    """A zip with names in an encoding that it does not say, or says in Info-ZIP's extra field alone."""

    class Legacy(zipfile.ZipInfo):
        def _encodeFilenameFlags(self):  # noqa: N802
            return self.filename.encode(encoding), self.flag_bits & ~0x800

    with zipfile.ZipFile(path, "w") as archive:
        for name, pixels in zip(names, colours(len(names)), strict=True):
            member = Legacy(name)
            if extra:
                content = struct.pack("<BI", 1, zlib.crc32(name.encode(encoding))) + name.encode()
                member.extra = struct.pack("<HH", 0x7075, len(content)) + content
            archive.writestr(member, png(pixels))
    return path


@pytest.mark.parametrize(
    ("encoding", "names", "guessed"),
    [
        ("utf-8", ("caf\u00e9", "\u732b"), ""),
        ("utf-8", ("cafe\u0301", "\u732b"), ""),  # macOS takes accents apart
        ("gbk", ("\u72d7", "\u732b"), "Chinese"),
        ("cp932", ("\u306d\u3053", "\u30bd"), "Japanese"),  # one of them ends in the byte of a backslash
        ("cp437", ("caf\u00e9", "th\u00e9"), "DOS"),
    ],
)
def test_names_in_a_zip_in_any_encoding(tmp_path, packed, encoding, names, guessed):
    result = packed(zip_in(encoding, tmp_path / "x.zip", [f"{name}/1.png" for name in names]))
    assert result.classes == tuple(sorted(unicodedata.normalize("NFC", name) for name in names))
    warned = [note for note in result.notes if "does not say the encoding" in note]
    assert len(warned) == bool(guessed)
    assert not guessed or guessed in warned[0]


def test_info_zips_field_says_the_names(tmp_path, packed):
    result = packed(zip_in("gbk", tmp_path / "x.zip", ["\u732b/1.png", "\u72d7/1.png"], extra=True))
    assert result.classes == ("\u72d7", "\u732b")
    assert not any("encoding" in note for note in result.notes)


@pytest.mark.parametrize(("offset", "value", "match"), [(0, 1, "is encrypted"), (2, 9, "deflate64")])
@pytest.mark.parametrize("captions", [False, True])
def test_zips_that_python_cannot_unpack_are_refused(tmp_path, refused, offset, value, match, captions):
    write_all(tmp_path / "in", CLASSES)
    if captions:
        (tmp_path / "in/metadata.csv").write_text("file_name,text\ncat/2.png,one\n")
    content = bytearray(as_zip(tmp_path / "in", tmp_path / "x.zip").read_bytes())
    for mark, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = content.find(mark)
        while at >= 0:
            content[at + flags + offset] = value
            at = content.find(mark, at + 4)
    (tmp_path / "x.zip").write_bytes(content)
    refused(match, tmp_path / "x.zip")


# named sets and their official files


def test_digits(packed):
    from sklearn.datasets import load_digits

    result, digits = packed("digits"), load_digits()
    assert result.images.shape == (1797, 1, 8, 8)
    assert np.abs(result.images[:, 0] / 255 - digits.images / 16).max() <= 0.5 / 255 + 1e-9
    assert np.array_equal(result.labels, digits.target)
    assert result.classes == tuple("0123456789")


@pytest.mark.parametrize("dump", [python2_pickle, python3_pickle])
@pytest.mark.parametrize("unpacked", [False, True])
def test_cifar_by_path(tmp_path, packed, dump, unpacked):
    images, labels = colours(12, 32, 32), np.arange(12) % 10
    path = cifar(tmp_path / "cifar-10-python.tar.gz", images, labels, dump)
    if unpacked:
        path = unpack(path, tmp_path) / "cifar-10-batches-py"
    train, test = packed(path), packed(path, split="test")
    assert np.array_equal(train.images, images[:10].transpose(0, 3, 1, 2))
    assert np.array_equal(train.labels, labels[:10])
    assert train.classes[0] == "airplane"
    assert len(train.classes) == 10
    assert np.array_equal(test.images, images[10:].transpose(0, 3, 1, 2))
    assert len(packed(path, split="all")) == 12


class Hostile:
    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_a_pickle_that_would_run_code_is_refused(tmp_path, refused):
    Hostile.folder = tmp_path / "ran"
    for payload in (Hostile(), {"data": Hostile(), "labels": [1]}):
        content = {f"cifar-10-batches-py/{name}": pickle.dumps(payload) for name in ("data_batch_1", "test_batch")}
        refused(
            "no readable CIFAR-10 archive: it asks for .*mkdir", tar_of(tmp_path / "cifar-10-python.tar.gz", content)
        )
    assert not Hostile.folder.exists()


def test_a_pickle_inside_an_array_file_is_refused(tmp_path, refused):
    Hostile.folder = tmp_path / "ran"
    hostile = np.empty((1, 1, 1), object)
    hostile[0, 0, 0] = Hostile()
    np.savez(tmp_path / "a.npz", images=hostile)
    np.save(tmp_path / "a.npy", hostile, allow_pickle=True)
    refused("holds Python objects, which are not unpickled", tmp_path / "a.npz")
    refused("no readable array file", tmp_path / "a.npy")
    assert not Hostile.folder.exists()


def test_cifar_batches_that_hold_something_else(tmp_path, refused):
    for payload in ([1], {"data": np.zeros((2, 7), np.uint8), "labels": [1, 2]}, {"labels": [1]}):
        content = {f"x/{name}": pickle.dumps(payload) for name in ("data_batch_1", "test_batch")}
        refused("is no CIFAR-10 archive", tar_of(tmp_path / "cifar-10-python.tar.gz", content))
    flat = np.zeros((2, 3072), np.uint8)
    content = {f"x/{name}": python3_pickle(flat, [1, 12]) for name in ("data_batch_1", "test_batch")}
    refused(r"labels in 1\.\.12", tar_of(tmp_path / "cifar-10-python.tar.gz", content))


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_mnist_by_path(tmp_path, packed, suffix):
    images, labels = colours(7)[..., 0], np.array([0, 1, 2, 3, 4, 9, 8])
    root = tmp_path / "in"
    root.mkdir()
    for name, part in (("train", slice(0, 5)), ("t10k", slice(5, 7))):
        idx(root / f"{name}-images-idx3-ubyte{suffix}", images[part])
        idx(root / f"{name}-labels-idx1-ubyte{suffix}", labels[part])
    train, test = packed(root), packed(root, split="test")
    assert np.array_equal(train.images[:, 0], images[:5])
    assert train.labels.tolist() == [0, 1, 2, 3, 4]
    assert np.array_equal(test.images[:, 0], images[5:])
    assert test.labels.tolist() == [9, 8]
    assert np.array_equal(packed(root, split="all").images[:, 0], images)
    one = packed(root / f"t10k-images-idx3-ubyte{suffix}")
    assert np.array_equal(one.images, test.images)
    assert one.labels.tolist() == [9, 8]


def test_mnist_refusals(tmp_path, packed, refused):
    path = idx(tmp_path / "train-images-idx3-ubyte", colours(5)[..., 0])
    assert packed(path).labels is None  # no labels beside it
    refused("no idx file of the test split", tmp_path, split="test")
    idx(tmp_path / "train-labels-idx1-ubyte", np.zeros(4))
    refused("4 labels for 5 images", path)
    path.write_bytes(path.read_bytes()[:-1])
    refused("damaged or cut short: 179 values", path)
    path.write_bytes(b"nothing")
    refused("no idx file", path)
    path.unlink()
    path = idx(tmp_path / "train-images-idx3-ubyte.gz", colours(5)[..., 0])
    whole = path.read_bytes()
    for damaged in (whole[:-9], whole[:-5] + b"x" + whole[-4:]):  # cut short; another checksum
        path.write_bytes(damaged)
        refused("damaged or cut short", path)
    path.write_bytes(gzip.compress(struct.pack(">IIII", 0x803, 1 << 31, 1 << 31, 1 << 31) + bytes(999)))
    refused("damaged: it announces .* GB of images", path)


@pytest.mark.parametrize("name", [name for name in SOURCES if name != "digits"])
def test_a_failed_download_says_where_to_put_the_file(tmp_path, refused, monkeypatch, name):
    import pooch

    def offline(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr(pooch, "retrieve", offline)
    folder = tmp_path / "cache" / "downloads" / name
    refused(f"{name} could not be downloaded from http.*put .*gz into {folder} by hand", name)


@pytest.mark.parametrize("name", [name for name in SOURCES if name != "digits"])
def test_a_file_put_there_by_hand_is_used(tmp_path, packed, monkeypatch, name):
    from bytepixels.data.sources import known_datasets as named

    folder = tmp_path / "cache" / "downloads" / name
    folder.mkdir(parents=True)
    images = colours(12, 32, 32)
    if name == "cifar10":
        made = [cifar(folder / "cifar-10-python.tar.gz", images, np.arange(12) % 10)]
    else:
        made = [
            idx(folder / "train-images-idx3-ubyte.gz", images[:10, ..., 0]),
            idx(folder / "train-labels-idx1-ubyte.gz", np.arange(10)),
        ]
    sums = {file.name: named.hashlib.md5(file.read_bytes()).hexdigest() for file in made}
    monkeypatch.setattr(named, "_CIFAR_FILE", ("cifar-10-python.tar.gz", sums.get("cifar-10-python.tar.gz")))
    monkeypatch.setitem(named._IDX_FILES, name, sums)
    monkeypatch.setattr(named, "_FASHION_LABELS", set(sums.values()) if name == "fashion-mnist" else set())
    result = packed(name)
    assert np.array_equal(result.images[:, 0], images[:10, ..., 0])
    assert result.labels.tolist() == list(range(10))
    assert result.classes[9] == {"cifar10": "truck", "mnist": "9", "fashion-mnist": "Ankle boot"}[name]


# what cannot be a source


def test_refusals_name_what_was_meant(tmp_path, refused, monkeypatch):
    write_all(tmp_path / "flowers", ["a.png"])
    refused(r"'digit' is no file, no folder and no known data set; did you mean 'digits'", "digit")
    refused(rf"did you mean '{tmp_path / 'flowers'}'", tmp_path / "flower")
    refused("known: digits, cifar10, mnist, fashion-mnist", "zzz")
    refused("no known data set", "")
    monkeypatch.chdir(tmp_path)
    refused("did you mean 'flowers'", "Flowers")


def test_empty_and_imageless_folders(tmp_path, refused):
    (tmp_path / "empty").mkdir()
    refused("empty holds no image: it is empty", tmp_path / "empty")
    (tmp_path / "words").mkdir()
    (tmp_path / "words/a.xyz").write_text("")
    refused(r"words holds no image that Pillow can open: it has 1 other file \(.xyz\)", tmp_path / "words")
    (tmp_path / "words/a.png").write_text("no image at all")
    refused(r"holds no readable image: a.png \(not an image that Pillow can read\)", tmp_path / "words")


def test_a_home_folder_is_understood(tmp_path, packed, monkeypatch):
    write(tmp_path / "in/a.png", colours(1)[0])
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(packed("~/in")) == 1


@pytest.mark.parametrize("split", ["val", "all"])
def test_arrays_with_splits_say_which_they_have(tmp_path, split):
    images = np.zeros((3, 4, 4), np.uint8)
    np.savez(tmp_path / "digits.npz", images_train=images, test_images=images)
    with pytest.raises(InputError, match=f"digits.npz has no split {split}; it has train, test"):
        pack(tmp_path / "digits.npz", split=split, cache=tmp_path)


# what the program wrote itself


def write_run(path):
    """What a run and a folder of samples are known by, and images in both."""
    write_all(path, ["samples/step-10.png", "samples/ddim/seed-0.png"], seed=9)
    made_by = {"bytepixels": "0.1", "torch": "2"}
    for name in ("config.json", ".config.json"):
        (path / name).write_text(json.dumps({"format": 1, "config": {}, "made_by": [made_by]}))
    (path / "samples/ddim/manifest.json").write_text(json.dumps({"pictures": [], "made_by": made_by}))


@pytest.mark.parametrize("names", [CLASSES, ["1.png", "2.png"]])
@pytest.mark.parametrize("shape", ["folder", ".zip", ".tar", ".tar.gz"])
def test_runs_and_samples_within_a_source_are_left_out_and_said(tmp_path, packed, names, shape):
    root = tmp_path / "in"
    images = write_all(root, names)
    write_all(root, ["drawn/seed-0.png"], seed=8)
    write_run(root / "runs/first")
    (root / "drawn/manifest.json").write_bytes((root / "runs/first/samples/ddim/manifest.json").read_bytes())
    make = {"folder": lambda root, path: root, ".zip": as_zip}.get(shape, as_tar)
    result = packed(make(root, tmp_path / f"x{shape}"))
    assert np.array_equal(result.images, stacked(images, names))
    assert result.classes == (("cat", "dog") if names is CLASSES else ())
    said = "Left out 2 folders that bytepixels wrote (runs and samples are no data): drawn, runs/first."
    assert result.notes[0] == said


def test_a_growing_run_within_a_folder_does_not_change_the_pack(tmp_path, packed):
    write_all(tmp_path / "in", CLASSES)
    write_run(tmp_path / "in/runs/first")
    before = packed(tmp_path / "in").path
    write_all(tmp_path / "in", ["runs/first/samples/step-20.png"])
    (tmp_path / "in/runs/first/log.jsonl").write_text("{}")
    assert packed(tmp_path / "in").path == before


def test_a_damaged_config_still_marks_a_run(tmp_path, packed):
    write_all(tmp_path / "in", CLASSES)
    write_run(tmp_path / "in/run")
    (tmp_path / "in/run/config.json").write_bytes(b"")
    assert packed(tmp_path / "in").classes == ("cat", "dog")


def test_other_programs_files_of_these_names_leave_nothing_out(tmp_path, packed):
    write_all(tmp_path / "in", CLASSES)
    (tmp_path / "in/cat/manifest.json").write_text('{"name": "an app", "icons": []}')
    (tmp_path / "in/dog/config.json").write_text("{}")
    assert len(packed(tmp_path / "in")) == len(CLASSES)


def test_samples_may_be_a_source_and_a_run_may_not(tmp_path, packed, refused):
    write_run(tmp_path / "run")
    assert len(packed(tmp_path / "run/samples/ddim")) == 1
    refused("is a run, which is no source of images", tmp_path / "run")
