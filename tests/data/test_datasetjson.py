"""dataset.json: the labels of StyleGAN's and EDM's archives, in folders, zips and tars."""

import json

import pytest

from bytepixels.data import pack
from bytepixels.errors import InputError
from tests.data.fixtures import as_tar, as_zip, write_all

NAMES = [f"{folder:05}/img{folder:03}{number}.png" for folder in range(2) for number in range(3)]
TYPES = {"folder": lambda root, path: root, "zip": as_zip, "tar": as_tar, "tar.gz": as_tar}


def packed(tmp_path, table, kind="folder"):
    write_all(tmp_path / "in", NAMES)
    (tmp_path / "in/dataset.json").write_text(table if isinstance(table, str) else json.dumps(table))
    return pack(TYPES[kind](tmp_path / "in", tmp_path / f"in.{kind}"), cache=tmp_path / "cache")


@pytest.mark.parametrize("kind", TYPES)
def test_numbers_are_the_classes(tmp_path, kind):
    result = packed(tmp_path, {"labels": [[name, 10 - 5 * (k % 2)] for k, name in enumerate(NAMES)]}, kind)
    assert result.classes == ("5", "10")
    assert result.labels.tolist() == [1, 0, 1, 0, 1, 0]
    assert "2 classes from dataset.json: 5, 10." in result.notes
    assert not any("Ignored" in note or "subfolders" in note for note in result.notes)


def test_one_hot_rows_are_classes(tmp_path):
    rows = [[name, [float(k == one) for k in range(4)]] for one, name in zip([3, 0, 3, 0, 2, 2], NAMES, strict=True)]
    result = packed(tmp_path, {"labels": rows})
    assert (result.classes, result.labels.tolist()) == (("0", "2", "3"), [2, 0, 2, 0, 1, 1])


def test_null_is_no_classes(tmp_path):
    result = packed(tmp_path, {"labels": None})
    assert (result.labels, result.classes) == (None, ())
    assert "No classes: dataset.json gives no labels." in result.notes


def test_one_in_a_folder_counts_for_that_folder(tmp_path):
    write_all(tmp_path / "in", [f"train/{name}" for name in NAMES])
    table = {"labels": [[name, int(name.endswith("0.png"))] for name in NAMES]}
    (tmp_path / "in/train/dataset.json").write_text(json.dumps(table))
    assert pack(tmp_path / "in", cache=tmp_path / "cache").labels.tolist() == [1, 0, 0, 1, 0, 0]


@pytest.mark.parametrize("table", ["no JSON", "[1]", "{}", '{"labels": 3}', '{"labels": [[1, 2, 3]]}'])
def test_a_file_of_another_kind_changes_nothing(tmp_path, table):
    assert packed(tmp_path, table).classes == ("00000", "00001")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"labels": [[NAMES[0], 1]]}, "gives 5 images no label, the first is 00000/img0001.png"),
        ({"labels": [[name, 0.5] for name in NAMES]}, "whole numbers or one-hot lists, got 0.5 for 00000/img0000.png"),
        ({"labels": [[name, [0.2, 0.8]] for name in NAMES]}, "got [0.2, 0.8] for"),
        ({"labels": [[name, True] for name in NAMES]}, "got True for"),
    ],
)
def test_labels_that_cannot_be_taken_are_refused(tmp_path, table, said):
    with pytest.raises(InputError) as refused:
        packed(tmp_path, table)
    assert said in str(refused.value)
