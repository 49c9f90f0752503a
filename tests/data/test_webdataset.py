"""WebDataset shards: which samples there are, in which order, with which classes, and what is refused."""

import gzip
import io
import json
import os
import tarfile

import numpy as np
import pytest
from PIL import Image

from bytepixels.data import pack
from bytepixels.data.sources import webdataset as shards
from bytepixels.data.sources.webdataset_samples import read_shard
from bytepixels.errors import InputError
from tests.data.fixtures import TAR_MODES, colours
from tests.data.test_pack_writer import contents, interrupted


def png(pixels):
    Image.fromarray(pixels).save(file := io.BytesIO(), "PNG")
    return file.getvalue()


def shard(path, contents):
    """A tar of {name: bytes, text, facts for a .json, or pixels}, in this order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, TAR_MODES["." + path.name.split(".", 1)[1].replace("tgz", "tar.gz")]) as archive:
        for name, value in contents.items():
            if isinstance(value, np.ndarray):
                value = png(value)
            elif isinstance(value, dict):
                value = json.dumps(value).encode()
            elif isinstance(value, str):
                value = value.encode()
            member = tarfile.TarInfo(name)
            member.size = len(value)
            archive.addfile(member, io.BytesIO(value))
    return path


PIXELS = colours(8)


def four_shards(root, suffix=".tar", facts=lambda number: {"cls": str(number % 3)}):
    """Two samples in each of the shards 2, 9, 10 and 100, numbered in natural order."""
    for index, number in enumerate((2, 9, 10, 100)):
        samples = {}
        for sample in (2 * index, 2 * index + 1):
            samples |= {f"{sample:04}.png": PIXELS[sample]}
            samples |= {f"{sample:04}.{name}": value for name, value in facts(sample).items()}
        shard(root / f"{number}{suffix}", samples)
    return root


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


# what is found


@pytest.mark.parametrize("suffix", [*TAR_MODES, ".tgz"])
def test_a_folder_of_shards(tmp_path, packed, suffix):
    root = four_shards(tmp_path / "in", suffix)
    (root / "README.md").write_text("not a shard")
    result = packed(root)
    assert np.array_equal(result.images, PIXELS.transpose(0, 3, 1, 2))
    assert result.labels.tolist() == [number % 3 for number in range(8)]
    assert result.classes == ("0", "1", "2")
    assert "8 samples in 4 shards." in result.notes
    assert "3 classes from the samples: 0, 1, 2." in result.notes


@pytest.mark.parametrize(
    "facts",
    [
        lambda n: {"cls": f" {'tea bun pie'.split()[n % 3]}\n"},
        lambda n: {"json": {"label": "tea bun pie".split()[n % 3], "url": "x"}},
        lambda n: {"json": {"class": "tea bun pie".split()[n % 3], "label": f"a caption {n}"}},
        lambda n: {"cls": "tea bun pie".split()[n % 3], "json": {"label": n}, "txt": "a caption"},
        lambda n: {"json": {"label": n}, "cls": "tea bun pie".split()[n % 3]},
    ],
)
def test_classes_by_name(tmp_path, packed, facts):
    result = packed(four_shards(tmp_path / "in", facts=facts))
    assert result.classes == ("bun", "pie", "tea")
    assert [result.classes[label] for label in result.labels] == [("tea", "bun", "pie")[n % 3] for n in range(8)]


def test_classes_by_number_are_in_numeric_order(tmp_path, packed):
    result = packed(four_shards(tmp_path / "in", facts=lambda n: {"json": {"label": 10 * n}}))
    assert result.classes == ("0", "10", "20", "30", "40", "50", "60", "70")
    assert result.labels.tolist() == list(range(8))
    padded = packed(four_shards(tmp_path / "padded", facts=lambda n: {"cls": f"{10 * n:05}"}))
    assert padded.classes == result.classes


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"json": {"url": "x"}},
        {"json": '{"label": 1'},
        {"json": {"label": [1, 2]}},
        {"json": {"label": None}},
        {"json": {"label": 0.5}},
        {"json": "[1]"},
        {"json": "[" * 100_000},
        {"json": '{"label": ' + "9" * 5000 + "}"},
        {"cls": ""},
        {"cls": "x" * 256},
        {"cls": " " * (1 << 20) + "1"},
    ],
)
def test_what_names_no_class(tmp_path, packed, facts):
    result = packed(four_shards(tmp_path / "in", facts=lambda n: facts))
    assert len(result) == 8
    assert result.labels is None
    if facts:
        assert any(f"Ignored 8 other files (.{next(iter(facts))})" in note for note in result.notes)


def test_one_sample_without_a_class_leaves_all_without(tmp_path, packed):
    root = four_shards(tmp_path / "in", facts=lambda n: {} if n == 5 else {"cls": "1"})
    result = packed(root)
    assert result.labels is None
    assert "No class beside 1 sample (the first is 0005.png): packed without class labels." in result.notes


def test_keys_end_at_the_first_dot_and_may_have_folders(tmp_path, packed):
    names = ["a/b.c/0001.png", "./a/b.c/0002.PNG", "a/0001.rgb.png", "z/0001.png"]
    samples = dict(zip(names, PIXELS, strict=False))
    samples |= {"a/b.c/0001.cls": "1", "a/b.c/0002.cls": "2", "a/0001.cls": "3", "z/0001.cls": "4", "0001.cls": "5"}
    result = packed(shard(tmp_path / "in/0.tar", samples).parent)
    assert np.array_equal(result.images, PIXELS[:4].transpose(0, 3, 1, 2))
    assert [result.classes[label] for label in result.labels] == ["1", "2", "3", "4"]


def test_folders_in_keys_are_classes_where_nothing_else_is(tmp_path, packed):
    shard(tmp_path / "in/0.tar", {"train/cat/1.png": PIXELS[0], "train/dog/1.png": PIXELS[1]})
    shard(tmp_path / "in/1.tar", {"train/cat/2.png": PIXELS[2]})
    result = packed(tmp_path / "in")
    assert (result.classes, result.labels.tolist()) == (("cat", "dog"), [0, 1, 0])


def test_one_image_of_each_sample(tmp_path, packed):
    samples = {
        "1.mask.png": PIXELS[0],
        "1.rgb.png": PIXELS[1],
        "2.png": PIXELS[2],
        "2.mask.png": PIXELS[3],
        "3.depth.png": PIXELS[4],
        "3.mask.png": PIXELS[5],
        "4.txt": "no image",
    }
    result = packed(shard(tmp_path / "in/0.tar", samples).parent)
    assert np.array_equal(result.images, PIXELS[[1, 2, 4]].transpose(0, 3, 1, 2))
    assert "Ignored 4 other files (.mask.png, .txt)." in result.notes


def test_hidden_files_and_links_are_no_samples(tmp_path, packed):
    path = shard(tmp_path / "in/0.tar", {"a.png": PIXELS[0], "._b.png": PIXELS[1], "__MACOSX/c.png": PIXELS[2]})
    with tarfile.open(path, "a") as archive:
        for kind in (
            tarfile.SYMTYPE,
            tarfile.LNKTYPE,
            tarfile.CHRTYPE,
            tarfile.BLKTYPE,
            tarfile.FIFOTYPE,
            tarfile.DIRTYPE,
        ):
            member = tarfile.TarInfo(f"d{kind[0]}.png")
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    assert np.array_equal(packed(path.parent).images, PIXELS[:1].transpose(0, 3, 1, 2))


def test_one_shard_is_told_from_a_tar_of_images(tmp_path, packed):
    path = shard(tmp_path / "x.tar.gz", {"2.png": PIXELS[0], "2.cls": "7", "1.png": PIXELS[1], "1.cls": "5"})
    result = packed(path)
    assert np.array_equal(result.images, PIXELS[:2].transpose(0, 3, 1, 2))  # in the archive's order
    assert [result.classes[label] for label in result.labels] == ["7", "5"]
    plain = shard(tmp_path / "y.tar.gz", {"2.png": PIXELS[0], "1.png": PIXELS[1], "notes.json": {"label": 3}})
    assert np.array_equal(packed(plain).images, PIXELS[[1, 0]].transpose(0, 3, 1, 2))  # in the order of names


def test_tars_beside_images_are_ignored(tmp_path, packed):
    root = four_shards(tmp_path / "in")
    (root / "a.png").write_bytes(png(PIXELS[0]))
    result = packed(root)
    assert len(result) == 1
    assert "Ignored 4 other files (.tar)." in result.notes


# braces and splits


def test_brace_patterns(tmp_path, packed, refused, monkeypatch):
    for number in range(8, 12):
        shard(tmp_path / f"s/x-{number:06}.tar", {"0.png": PIXELS[number - 8], "0.cls": str(number)})
        shard(tmp_path / f"s{number}/y.tar", {"0.png": PIXELS[number - 8], "0.cls": str(number)})
    monkeypatch.chdir(tmp_path)
    expected = PIXELS[:4].transpose(0, 3, 1, 2)
    for pattern in ("s/x-{000008..000011}.tar", tmp_path / "s/x-0000{08..11}.tar", "./s/x-00{00..00}{08..11}.tar"):
        assert np.array_equal(packed(pattern).images, expected)
    assert np.array_equal(packed("s{8..11}/y.tar").images, expected)
    assert packed("s/x-{000009..000010}.tar").classes == ("9", "10")
    refused("s/x-000012.tar cannot be read: No such file", "s/x-{000008..000012}.tar")
    refused(r"must count up, over at most 1,000,000 shards; got 9\.\.8", "s/x-{9..8}.tar")
    refused(r"must count up, over at most 1,000,000 shards; got 0\.\.99999999", "s/x-{0..99999999}.tar")
    refused(r"must count up", "s/x-{0..9999}{0..9999}.tar")
    refused("is no file, no folder", "s/x-{a..b}.tar")
    os.rename(shard(tmp_path / "odd.tar", {"0.png": PIXELS[5], "0.cls": "1"}), tmp_path / "odd{1..2}.tar")
    assert np.array_equal(packed("odd{1..2}.tar").images, PIXELS[5:6].transpose(0, 3, 1, 2))  # there is such a file


@pytest.mark.parametrize("name", ["{}-{}.tar", "imagenet_{}_{}.tar", "{}/{}.tar"])
def test_splits_by_the_names_of_shards(tmp_path, packed, refused, name):
    for index, (split, number) in enumerate([("train", 0), ("train", 1), ("val", 0)]):
        shard(tmp_path / "in" / name.format(split, number), {"0.png": PIXELS[index]})
    train, val = packed(tmp_path / "in"), packed(tmp_path / "in", split="val")
    assert np.array_equal(train.images, PIXELS[:2].transpose(0, 3, 1, 2))
    assert np.array_equal(val.images, PIXELS[2:3].transpose(0, 3, 1, 2))
    assert "Splits found: train (2), val (1); packed train, 2 shards." in train.notes
    assert len(packed(tmp_path / "in", split="all")) == 3
    refused("split must be one of train, val, all; got 'test'", tmp_path / "in", split="test")


def test_shards_that_are_all_of_one_split(tmp_path, packed, refused):
    shard(tmp_path / "in/val-0.tar", {"0.png": PIXELS[0]})
    for split in ("train", "val", "all"):
        assert len(packed(tmp_path / "in", split=split)) == 1
    refused("in has no test split: its shards are not named train, val or test", tmp_path / "in", split="test")


# damage


def test_a_damaged_or_cut_shard_is_refused(tmp_path, refused):
    root = four_shards(tmp_path / "in", ".tar.gz")
    whole = (root / "10.tar.gz").read_bytes()
    for cut in range(0, len(whole), 41):
        (root / "10.tar.gz").write_bytes(whole[:cut])
        refused("10.tar.gz is damaged or cut short", root)
    assert gzip.decompress(whole)
    flipped = bytearray(whole)
    flipped[len(flipped) // 2] ^= 1
    (root / "10.tar.gz").write_bytes(flipped)
    refused("10.tar.gz is damaged or cut short", root)


def test_a_damaged_image_is_skipped_by_name(tmp_path, packed):
    path = shard(tmp_path / "in/0.tar", {"1.png": PIXELS[0], "1.cls": "1", "2.png": b"no image", "2.cls": "2"})
    result = packed(path.parent)
    assert result.meta["skipped"] == [["0.tar/2.png", "not an image that Pillow can read"]]
    assert result.labels.tolist() == [0]


def test_shards_without_images(tmp_path, refused):
    refused(
        r"in holds no image that Pillow can open: it has 2 other files \(.xyz, .txt\)",
        shard(tmp_path / "in/0.tar", {"1.txt": "x", "1.xyz": "x"}).parent,
    )
    refused("empty holds no image: it is empty", shard(tmp_path / "empty/0.tar", {}).parent)


def test_the_same_image_twice(tmp_path, refused):
    path = shard(tmp_path / "in/0.tar", {"1.png": PIXELS[0]})
    with tarfile.open(path, "a") as archive:
        archive.addfile(tarfile.TarInfo("./1.png"))
    refused("0.tar holds 1.png twice", path.parent)


# indexes and processes


def test_a_shard_is_listed_once_and_again_when_it_changes(tmp_path, packed, monkeypatch):
    listed = []
    monkeypatch.setattr(shards, "read_shard", lambda path: listed.append(path.name) or read_shard(path))
    root = four_shards(tmp_path / "in")
    packed(root)
    packed(root, size=(3, 3))
    assert sorted(listed) == ["10.tar", "100.tar", "2.tar", "9.tar"]
    shard(root / "9.tar", {"1.png": PIXELS[0], "1.cls": "1"})
    assert len(packed(root)) == 7
    assert listed[4:] == ["9.tar"]
    for index in (tmp_path / "cache/indexes").glob("*.json"):
        index.write_text('["half')
    assert len(packed(root, size=(4, 4))) == 7
    assert len(listed) == 9


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_an_interrupted_pack_of_shards_goes_on(tmp_path, suffix):
    root = four_shards(tmp_path / "in", suffix)
    expected = contents(pack(root, cache=tmp_path / "reference").path)
    interrupted(root, tmp_path / "cache", after=3)
    result = pack(root, cache=tmp_path / "cache")
    assert contents(result.path) == expected
    assert "3 of 8 images lay packed already" in result.notes[-1]


def test_a_shard_of_no_split_beside_the_splits_is_left_out_and_named(tmp_path, packed):
    for index, name in enumerate(("train-0", "test-0", "extra-0")):
        shard(tmp_path / f"in/{name}.tar", {"0.png": PIXELS[index]})
    train = packed(tmp_path / "in")
    assert np.array_equal(train.images, PIXELS[:1].transpose(0, 3, 1, 2))
    assert "warning: left out 1 shard of no split: extra-0.tar." in train.notes
