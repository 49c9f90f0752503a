"""Parquet and Arrow tables, as Hugging Face writes them: the same images, classes and captions as a folder."""

import io
import json
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bytepixels.data import pack
from bytepixels.data.sources import tables
from bytepixels.errors import InputError

CLASSES = ["zebra", "ape", "bee"]
FEATURES = {
    "image": {"_type": "Image"},
    "label": {"_type": "ClassLabel", "names": CLASSES},
    "text": {"dtype": "string", "_type": "Value"},
}


@pytest.fixture
def packed(tmp_path):
    return lambda source, **options: pack(source, cache=tmp_path / "cache", **options)


def png(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue(), pixels


def table(rows, features=FEATURES, **columns):
    """A table of these rows, with the metadata that datasets keeps."""
    held = pa.array(
        [{"bytes": png(k)[0], "path": f"{k}.png"} for k in rows], pa.struct({"bytes": pa.binary(), "path": pa.string()})
    )
    columns = {"image": held, "label": pa.array([k % 3 for k in rows])} | columns
    columns.setdefault("text", pa.array([f"a  {CLASSES[k % 3]}" for k in rows]))
    made = pa.table({name: column for name, column in columns.items() if column is not None})
    meta = {"huggingface": json.dumps({"info": {"features": features}})} if features else None
    return made.replace_schema_metadata(meta)


def write(path, made):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(made, path, row_group_size=40)
        return path
    new = pa.ipc.new_stream if path.stem.startswith("data") else pa.ipc.new_file
    with pa.OSFile(str(path), "wb") as sink, new(sink, made.schema) as writer:
        writer.write_table(made, max_chunksize=50)
    return path


@pytest.mark.parametrize("name", ["x.parquet", "data-00000-of-00001.arrow", "indexed.arrow"])
def test_images_classes_and_captions(name, tmp_path, packed):
    """More rows than are read together, in the file itself and in a folder around it."""
    rows = range(150)
    result = packed(write(tmp_path / "in" / name, table(rows)))
    assert np.array_equal(result.images, np.stack([png(k)[1].transpose(2, 0, 1) for k in rows]))
    assert result.classes == ("ape", "bee", "zebra")
    assert [result.classes[k] for k in result.labels] == [CLASSES[k % 3] for k in rows]
    assert result.captions == tuple(f"a {CLASSES[k % 3]}" for k in rows)
    again = packed(tmp_path / "in")
    assert np.array_equal(again.images, result.images)
    assert again.captions == result.captions


@pytest.mark.parametrize("layout", [("{}/data-00000-of-00001.arrow"), ("data/{}-00000-of-00001.parquet")])
def test_splits(layout, tmp_path, packed):
    """As save_to_disk names folders, and the hub files; what datasets keeps as its cache is no table."""
    for split, rows in (("train", range(5)), ("test", range(5, 8)), ("validation", range(8, 9))):
        write(tmp_path / "in" / layout.format(split), table(rows))
    write(tmp_path / "in/train/cache-123.arrow", table(range(3)))
    for split, rows in (("train", range(5)), ("test", range(5, 8)), ("val", range(8, 9)), ("all", range(9))):
        found = packed(tmp_path / "in", split=split)
        assert {one.tobytes() for one in found.images} == {png(k)[1].transpose(2, 0, 1).tobytes() for k in rows}


def test_columns_are_known_by_their_names_and_types(tmp_path, packed):
    """Without metadata: images are bytes, a class is a string or a whole number."""
    held = pa.array([png(k)[0] for k in range(4)])
    plain = table(range(4), None, image=None, label=pa.array(["b", "a", "b", "a"]), text=None)
    result = packed(write(tmp_path / "x.parquet", plain.append_column("anything", held)))
    assert result.classes == ("a", "b")
    assert list(result.labels) == [1, 0, 1, 0]
    assert result.captions is None


@pytest.mark.parametrize("name", ["x.parquet", "data-0.arrow"])
def test_images_alone(name, tmp_path, packed):
    """Rows are counted without reading a column."""
    result = packed(write(tmp_path / name, table(range(70), label=None, text=None)))
    assert len(result) == 70
    assert (result.classes, result.captions) == ((), None)


def test_a_row_without_a_class_or_an_image(tmp_path, packed):
    """Only the bytes are read: a path is never followed."""
    (tmp_path / "secret.png").write_bytes(png(7)[0])
    held = [{"bytes": png(0)[0], "path": None}, {"bytes": None, "path": str(tmp_path / "secret.png")}]
    result = packed(write(tmp_path / "x.parquet", table(range(2), image=pa.array(held), label=pa.array([-1, 0]))))
    assert len(result) == 1
    assert result.labels is None
    assert any("1 row of the column label give" in note for note in result.notes)


@pytest.mark.parametrize("name", ["x.parquet", "x.arrow"])
@pytest.mark.parametrize("content", [b"", b"PAR1", b"ARROW1 and no more", b"x" * 1000])
def test_damaged_tables(name, content, tmp_path, packed):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match="is no table that can be read, or damaged"):
        packed(tmp_path / name)


def test_what_is_no_table_of_images(tmp_path, packed, monkeypatch):
    write(tmp_path / "a.parquet", table(range(2), image=None))
    with pytest.raises(InputError, match="no column that holds images as bytes; it has label, text"):
        packed(tmp_path / "a.parquet")
    with pytest.raises(InputError, match="its tables have no rows"):
        packed(write(tmp_path / "b.parquet", table(range(0))))
    with pytest.raises(InputError, match="has a class 5, of 3 that are named"):
        packed(write(tmp_path / "c.parquet", table(range(2), label=pa.array([0, 5]))))
    with pytest.raises(InputError, match="has no test split"):
        packed(tmp_path / "c.parquet", split="test")
    write(tmp_path / "two/1.parquet", table(range(2)))
    write(tmp_path / "two/2.parquet", table(range(2), text=None))
    with pytest.raises(InputError, match=r"2.parquet has other columns than 1.parquet"):
        packed(tmp_path / "two")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pip install 'bytepixels\[arrow\]'"):
        tables.open_tables("x", tmp_path, [], "train")
