"""Classes from labels.csv, or from the column label of metadata.csv: which image has which, and what is refused."""

import pytest

from bytepixels.data import pack
from bytepixels.errors import InputError
from tests.data.fixtures import TAR_MODES, as_tar, as_zip, write_all


@pytest.fixture
def packed(tmp_path):
    return lambda source, **options: pack(source, cache=tmp_path / "cache", **options)


def folder(tmp_path, content, name="labels.csv"):
    write_all(tmp_path / "in", ["1.png", "2.png", "10.png"])
    (tmp_path / "in" / name).write_text(content)
    return tmp_path / "in"


TABLES = {
    "names, with a header": "id,class\n1.png,cat\n10.png,dog\n2.png,cat\n",
    "names without their suffix": "1,cat\n2,cat\n10,dog\n",
    "a column more, and spaces": "\ufeffimage, breed, age\r\n1.png , cat , 3\r\n2.png,cat,4\r\n./10.png,dog,\r\n",
    "of nothing": "1,cat\n2,cat\n10,dog\n99,bird\n",
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_of_labels(kind, tmp_path, packed):
    result = packed(folder(tmp_path, TABLES[kind]))
    assert result.classes == ("cat", "dog")
    assert list(result.labels) == [0, 0, 1]
    assert "2 classes from labels.csv: cat, dog." in result.notes
    assert not any("Ignored" in note for note in result.notes)


@pytest.mark.parametrize("suffix", [".zip", *TAR_MODES])
def test_in_archives_and_in_folders(suffix, tmp_path, packed):
    """Names are relative to the table, which goes before the folders."""
    write_all(tmp_path / "in", ["set/a/1.png", "set/b/2.png"])
    (tmp_path / "in/set/labels.csv").write_text("a/1.png,x\nb\\2.png,y\n")
    archive = tmp_path / f"x{suffix}"
    (as_zip if suffix == ".zip" else as_tar)(tmp_path / "in", archive, "")
    assert packed(archive).classes == ("x", "y")


def test_a_column_of_metadata_beside_captions(tmp_path, packed):
    rows = "label,text,file_name\nd,one,1.png\nc,two,2.png\nd,ten,10.png\n"
    result = packed(folder(tmp_path, rows, "metadata.csv"))
    assert result.classes == ("c", "d")
    assert list(result.labels) == [1, 0, 1]
    assert result.captions == ("one", "two", "ten")
    result = packed(folder(tmp_path, "file_name,label\n1.png,d\n2.png,c\n10.png,c\n", "metadata.csv"))
    assert result.classes == ("c", "d")
    assert result.captions is None


def test_an_image_without_a_label_is_refused(tmp_path, packed):
    with pytest.raises(InputError, match=r"labels.csv gives 2 images no label, the first is 2.png"):
        packed(folder(tmp_path, "1,cat\n2,\n"))


@pytest.mark.parametrize("content", ["", "1\n2\n10\n", "a,b\nc,d\n", '1,"cat\n'])
def test_a_table_of_something_else_says_nothing(content, tmp_path, packed):
    assert packed(folder(tmp_path, content)).classes == ()
