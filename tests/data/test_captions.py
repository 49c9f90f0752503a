"""Captions beside images: which are found, for which image, and what is said of those that are broken."""

import hashlib
import json

import pytest

from bytepixels.data import pack
from bytepixels.data.sources.captions import MAX_CAPTION, MAX_TEXT_BYTES
from tests.data.fixtures import TAR_MODES, as_tar, as_zip, write_all
from tests.data.test_webdataset import PIXELS, shard

NAMES = ["1.png", "2.png", "10.png"]


@pytest.fixture
def packed(tmp_path):
    return lambda source, **options: pack(source, cache=tmp_path / "cache", **options)


@pytest.fixture
def images(tmp_path):
    """Three images, and a way to write metadata beside them."""
    write_all(tmp_path / "in", NAMES)

    def write(content, name="metadata.csv"):
        (tmp_path / "in" / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path / "in"

    return write


def test_a_table_in_any_order_of_rows_and_columns(images, packed):
    source = images('id,text,file_name\r\n7,"ten, of ""them""",10.png\r\n8, one  \t one ,1.png\r\n\r\n')
    result = packed(source)
    assert result.captions == ("one one", "", 'ten, of "them"')
    assert "2 captions from metadata.csv; 1 image has none." in result.notes
    assert not any("Ignored" in note for note in result.notes)
    assert packed(source).captions == result.captions  # as it was kept


def test_json_lines(images, packed):
    rows = [{"file_name": "1.png", "text": "eins"}, {"text": "zehn ✨", "file_name": "10.png"}]
    source = images("\n".join(map(json.dumps, rows)) + "\n\n", "metadata.jsonl")
    assert packed(source).captions == ("eins", "", "zehn ✨")
    assert "2 captions from metadata.jsonl; 1 image has none." in packed(source).notes


def test_all_captions_in_one_line(images, packed):
    source = images("file_name,text\n1.png,a\n2.png,b\n10.png,c\n")
    assert "3 captions from metadata.csv." in packed(source).notes


@pytest.mark.parametrize("prefix", ["", "emoji/"])
@pytest.mark.parametrize("suffix", [".zip", *TAR_MODES])
def test_archives_equal_the_folder(tmp_path, packed, suffix, prefix):
    write_all(tmp_path / "in", ["cat/a.png", "dog/b.png"])
    (tmp_path / "in/metadata.csv").write_text("file_name,text\ndog/b.png,a dog\n./cat\\a.png,a cat\n")
    archive = tmp_path / f"x{suffix}"
    (as_zip if suffix == ".zip" else as_tar)(tmp_path / "in", archive, prefix)
    for source in (tmp_path / "in", archive):
        result = packed(source)
        assert result.captions == ("a cat", "a dog")
        assert result.classes == ("cat", "dog")


def test_metadata_belong_to_their_own_folder_and_splits_to_themselves(tmp_path, packed):
    write_all(tmp_path / "in", ["train/a.png", "train/b.png", "test/a.png"])
    (tmp_path / "in/train/metadata.csv").write_text("file_name,text\na.png,of train\nb.png,also\n")
    (tmp_path / "in/test/metadata.jsonl").write_text('{"file_name": "a.png", "text": "of test"}')
    assert packed(tmp_path / "in").captions == ("of train", "also")
    assert packed(tmp_path / "in", split="test").captions == ("of test",)
    assert packed(tmp_path / "in", split="all").captions == ("of test", "of train", "also")
    assert not any("no image" in note for note in packed(tmp_path / "in").notes)


@pytest.mark.parametrize(
    ("row", "note"),
    [
        (b"1.png", "line 3 of metadata.csv has no text"),
        (b",something", "line 3 of metadata.csv has no file_name"),
        (b"1.png,caf\xe9", "line 3 of metadata.csv is not UTF-8"),
        (b'1.png,"a"b', "line 3 of metadata.csv is no row of a table (',' expected after '\"')"),
        (b"1.png," + b"x" * (MAX_CAPTION + 1), "line 3 of metadata.csv has a text of 10,001 characters"),
        (b"1.png," + b"x" * 200_000, "line 3 of metadata.csv is no row of a table (field larger than field limit"),
    ],
)
def test_a_broken_row_is_named_and_the_others_count(images, packed, row, note):
    result = packed(images(b"file_name,text\n2.png,two\n" + row + b"\n10.png,ten\n"))
    assert result.captions == ("", "two", "ten")
    assert any(said.startswith(f"Left out 1 broken row: {note}") for said in result.notes), result.notes


def test_broken_rows_are_named_once(images, packed):
    result = packed(images("file_name,text\n2.png,two\n" + "1.png\n" * 40))
    said = "Left out 40 broken rows: line 3 of metadata.csv has no text, and 39 more."
    assert [note for note in result.notes if "broken" in note] == [said]


@pytest.mark.parametrize(
    ("line", "note"),
    [
        ("[1]", "is no JSON object"),
        ("{", "is no JSON object"),
        ("[" * 100_000, "is no JSON object"),
        ('{"file_name": "1.png", "text": 3}', "has a text that is no string"),
        ('{"file_name": "1.png", "text": null}', "has no text"),
        ('{"file_name": 1, "text": "a"}', "has no file_name"),
        ('{"file_name": "1.png", "text": "\\ud800"}', "is not UTF-8"),
    ],
)
def test_a_broken_line(images, packed, line, note):
    result = packed(images('{"file_name": "2.png", "text": "two"}\n' + line, "metadata.jsonl"))
    assert result.captions == ("", "two", "")
    assert f"Left out 1 broken row: line 2 of metadata.jsonl {note}." in result.notes


def test_an_unclosed_quote_takes_the_rest_with_it(images, packed):
    result = packed(images('file_name,text\n1.png,one\n2.png,"two\n10.png,ten\n'))
    assert result.captions == ("one", "", "")
    assert (
        "Left out 1 broken row: line 4 of metadata.csv is no row of a table (unexpected end of data)." in result.notes
    )


def test_second_captions_and_captions_of_no_image(images, packed):
    result = packed(images("file_name,text\n1.png,first\n1.png,second\n../x.png,lost\nmetadata.csv,itself\n"))
    assert result.captions == ("first", "", "")
    assert "1 second caption left out (the first is for 1.png)." in result.notes
    assert "2 captions of no image (the first is for x.png)." in result.notes


def test_an_empty_text_is_no_caption(images, packed):
    result = packed(images("file_name,text\n1.png,\n2.png,  \n10.png,ten\n"))
    assert result.captions == ("", "", "ten")
    assert not any("broken" in note for note in result.notes)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_what_spreadsheets_save(images, packed, encoding):
    assert packed(images("file_name,text\n1.png,früh\n".encode(encoding))).captions == ("früh", "", "")


def test_accents_of_file_names_may_be_written_either_way(tmp_path, packed):
    write_all(tmp_path / "in", ["cafe\u0301.png"])
    (tmp_path / "in/metadata.csv").write_text("file_name,text\ncaf\u00e9.png,coffee\n")
    assert packed(tmp_path / "in").captions == ("coffee",)


@pytest.mark.parametrize("captions", [["a", "b"], 3, {"a": 1}])
def test_damaged_captions_are_made_again(images, packed, captions):
    source = images("file_name,text\n1.png,one\n")
    path = packed(source).path / "meta.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"captions": captions}))
    assert packed(source).captions == ("one", "", "")


def test_a_pack_of_an_earlier_version_with_captions_in_a_file_is_made_again(images, packed):
    source = images("file_name,text\n1.png,one\n")
    path = packed(source).path
    meta = json.loads((path / "meta.json").read_text())
    (path / "captions.json").write_text(json.dumps(meta.pop("captions")))
    (path / "meta.json").write_text(json.dumps(meta))
    assert packed(source).captions == ("one", "", "")
    assert not (path / "captions.json").exists()


def test_samples_of_shards_have_captions_in_txt(tmp_path, packed):
    files = {
        "a.png": PIXELS[1],
        "a.txt": b"\xef\xbb\xbfan  a\n",
        "b.png": PIXELS[2],
        "b.txt": b"  ",
        "c.png": PIXELS[3],
    }
    shard(tmp_path / "in/one.tar", files)
    more = {"d.png": PIXELS[4], "d.txt": b"x" * (MAX_CAPTION + 1), "e.png": PIXELS[5], "e.txt": b"e"}
    shard(tmp_path / "in/two.tar", more)
    result = packed(tmp_path / "in")
    assert result.captions == ("an a", "", "", "", "e")
    assert "2 captions from the .txt of the samples; 3 images have none." in result.notes
    assert packed(tmp_path / "in", size=(3, 3)).captions == result.captions  # from the kept index


@pytest.mark.parametrize("suffix", ["", ".zip", *TAR_MODES])
def test_a_text_file_beside_each_image(tmp_path, packed, suffix):
    """As kohya's scripts keep them; a file that is no image's, or too long, is none."""
    write_all(tmp_path / "in", ["cat/a.png", "cat/b.png", "dog/a.png", "dog/c.png"])
    texts = {"cat/a": "\ufeffa cat,\r\n on a  mat\n", "dog/a": "x" * (MAX_CAPTION + 1), "dog/c": "", "cat/z": "of none"}
    for name, text in (texts | {".hidden/a": "no", "cat/b": "y" * (MAX_TEXT_BYTES + 1)}).items():
        (tmp_path / f"in/{name}.txt").parent.mkdir(exist_ok=True)
        (tmp_path / f"in/{name}.txt").write_text(text)
    source = tmp_path / f"x{suffix}" if suffix else tmp_path / "in"
    if suffix:
        (as_zip if suffix == ".zip" else as_tar)(tmp_path / "in", source, "")
    result = packed(source)
    assert result.captions == ("a cat, on a mat", "", "", "")
    assert result.classes == ("cat", "dog")
    assert "1 caption from the .txt beside each; 3 images have none." in result.notes
    assert "Ignored 1 other file (.txt)." in result.notes


def coco(*annotations):
    """A file of captions, as COCO has them."""
    images = [{"id": k, "file_name": f"{k:012}.jpg", "license": 3} for k in (7, 9, 11)]
    return json.dumps({"info": {}, "images": images, "annotations": list(annotations)})


def test_coco(tmp_path, packed):
    """Its folders are splits; the first of an image's captions counts; instances are not read."""
    write_all(tmp_path / "in", ["train2017/000000000007.jpg", "train2017/000000000009.jpg", "val2017/000000000011.jpg"])
    said = [
        {"image_id": k, "id": n, "caption": text} for n, (k, text) in enumerate([(7, "a  cat "), (7, "two"), (8, "?")])
    ]
    (tmp_path / "in/annotations").mkdir()
    (tmp_path / "in/annotations/captions_train2017.json").write_text(coco(*said))
    (tmp_path / "in/annotations/captions_val2017.json").write_text(coco({"image_id": 11, "caption": "a dog"}))
    (tmp_path / "in/annotations/instances_val2017.json").write_text("{}")
    result = packed(tmp_path / "in")
    assert result.captions == ("a cat", "")
    assert result.classes == ()
    assert any(note.startswith("1 second caption left out") for note in result.notes)
    assert any("Left out 1 broken row: an annotation of annotations/captions_train" in note for note in result.notes)
    assert "Ignored 1 other file (.json)." in result.notes
    assert packed(tmp_path / "in", split="val").captions == ("a dog",)
    as_zip(tmp_path / "in", tmp_path / "x.zip", "coco/")
    assert packed(tmp_path / "x.zip").captions == result.captions


@pytest.mark.parametrize(
    "content", ["", "[]", '{"images": 3}', '{"images": [{"id": 1}], "annotations": []}', "[" * 10**5]
)
def test_what_is_no_coco(content, images, packed):
    result = packed(images(content, "captions_mine.json"))
    assert result.captions is None
    assert any("captions_mine.json is no file of captions as COCO has them" in note for note in result.notes)


def test_metadata_go_before_text_files(images, packed):
    (images("") / "1.txt").write_text("of the text file")
    result = packed(images("file_name,text\n1.png,of the table\n"))
    assert result.captions == ("of the table", "", "")
    assert "Ignored 1 other file (.txt)." in result.notes


def test_hidden_metadata_are_not_read(tmp_path, packed):
    write_all(tmp_path / "in", NAMES)
    (tmp_path / "in/._metadata.csv").write_text("file_name,text\n1.png,one\n")
    (tmp_path / "in/__MACOSX").mkdir()
    (tmp_path / "in/__MACOSX/metadata.csv").write_text("file_name,text\n1.png,one\n")
    assert packed(tmp_path / "in").captions is None


def test_a_folder_of_metadata_alone_holds_no_image(tmp_path, packed):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/metadata.csv").write_text("file_name,text\n1.png,one\n")
    with pytest.raises(ValueError, match=r"holds no image that Pillow can open: it has 1 other file \(\.csv\)"):
        packed(tmp_path / "in")


def test_captions_do_not_change_the_hash_of_an_array(images, packed):
    result = packed(images("file_name,text\n1.png,one\n"))
    assert result.meta["sha256"] == {"images": hashlib.sha256((result.path / "images.npy").read_bytes()).hexdigest()}
