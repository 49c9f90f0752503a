"""Read images in the columns of tables: Parquet files, and folders that Hugging Face's `save_to_disk` wrote (Arrow).

One column holds the images as files (bytes), and perhaps another their classes and a third their captions. The kinds of
the columns are in the file's metadata, as `datasets` writes them; else their names tell. It needs pyarrow.
"""

import io
import json
import posixpath
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...errors import InputError
from .captions import MAX_CAPTION, described, tidy
from .decode import open_image
from .folder_labels import FOLDER_SPLITS, Labels, check_split, class_labels, counted, is_hidden, printable
from .folders import File, files_key
from .source import Chunk, ImageList, ImageRef, Source, Wanted, check_file_size, only_split

SUFFIXES = (".parquet", ".arrow")
IMAGES, CLASSES = ("image", "img", "images", "jpg", "png"), ("label", "labels", "class", "fine_label", "cls")
TEXTS = ("text", "caption", "captions", "prompt", "txt")
ROWS = 64  # that are read together
_SPLIT = re.compile(r"([a-z]+)[-_.]")  # train-00000-of-00004.parquet


class Columns(NamedTuple):
    """The columns that are read, by name, and the names of the classes where the table gives them."""

    image: str
    label: str | None
    text: str | None
    classes: list[str] | None


def tables_among(files: Sequence[File]) -> list[File]:
    """The tables among the files of a folder; not those that `datasets` keeps as its cache."""
    return [one for one in files if one.name.endswith(SUFFIXES) and not is_hidden(one.name) and not is_cache(one.name)]


def is_cache(name: str) -> bool:
    """Whether `datasets` made a file on the way, and would make it again."""
    return posixpath.basename(name).startswith(("cache-", "tmp"))


def open_tables(name: str, root: Path, files: Sequence[File], split: str) -> Source:
    """Open the tables below root. InputError where pyarrow, which reads them, is not installed."""
    try:
        import_module("pyarrow")
    except ImportError as error:
        raise InputError(f"{name} is a table, which pyarrow reads: pip install 'bytepixels[arrow]'") from error
    return Source(name, files_key(root, list(files)), lambda: _list(name, root, files, split))


def _list(source: str, root: Path, files: Sequence[File], split: str) -> ImageList:
    chosen, notes = _of_split([file.name for file in files], split, source)
    images, labels, texts = list[str](), list[Any](), list[Any]()
    parts, found = list[Chunk](), columns_of(root / chosen[0])
    for name in chosen:
        if (own := columns_of(root / name)) != found:
            raise InputError(f"{source}: {printable(name)} has other columns than {printable(chosen[0])}: {own}")
        first, facts = len(images), [one for one in (found.label, found.text) if one]
        for batch in batches(root / name, facts):
            rows = range(len(images) - first, len(images) - first + batch.num_rows)
            images += [f"{name}:{row}" for row in rows]
            labels += batch.column(found.label).to_pylist() if found.label else []
            texts += batch.column(found.text).to_pylist() if found.text else []
        parts.append(partial(_images, root / name, found.image, first))
    if not images:
        raise InputError(f"{source} holds no image: its tables have no rows")
    captions = [_caption(text) for text in texts] if any(map(_caption, texts)) else None
    known, classes, more = _labels(labels, found)
    if captions:
        more.append(described(captions, f"the column {found.text}"))
    return ImageList(images, parts, known, classes, (*notes, *more), captions)


def _of_split(names: list[str], split: str, source: str) -> tuple[list[str], list[str]]:
    """The tables of one split, by their folders or by how their names begin, and what there is to say of the others."""
    splits = [_split_of(name) for name in names]
    if not any(splits):
        only_split(source, split)
        return names, []
    said = check_split(split, [one for one in splits if one])
    chosen = [name for name, own in zip(names, splits, strict=True) if own and split in ("all", own)]
    return chosen, [f"Splits found, in tables: {said}; packed {split}, {counted(len(chosen), 'table')}."]


def _split_of(name: str) -> str:
    *folders, base = name.lower().split("/")
    begins = _SPLIT.match(base)
    return next((FOLDER_SPLITS[one] for one in (*folders, begins[1] if begins else "") if one in FOLDER_SPLITS), "")


def columns_of(path: Path) -> Columns:
    """Find the columns of a table. InputError where none holds images, as bytes."""
    schema, kinds = schema_of(path), {}
    try:
        kinds = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        kinds = {name: kind for name, kind in kinds.items() if isinstance(kind, dict)}
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        kinds = {}
    types = {field.name: str(field.type) for field in schema}

    def column(kind: str, names: tuple[str, ...], fits: Callable[[str], bool]) -> str | None:
        marked = [name for name in types if kinds.get(name, {}).get("_type") == kind]
        named = sorted((name for name in types if name.lower() in names), key=lambda name: names.index(name.lower()))
        return next((name for name in (*marked, *named) if fits(types[name])), None)

    image = column("Image", IMAGES, lambda kind: "binary" in kind) or column("", tuple(types), lambda k: "binary" in k)
    if image is None:
        raise InputError(f"{path} has no column that holds images as bytes; it has {', '.join(types) or 'none'}")
    label = column("ClassLabel", CLASSES, lambda kind: kind.startswith(("int", "uint", "string", "large_string")))
    text = column("", TEXTS, lambda kind: "string" in kind and "list" not in kind)
    names = kinds.get(label or "", {}).get("names")
    return Columns(image, label, text, [str(name) for name in names] if isinstance(names, list) else None)


def schema_of(path: Path) -> Any:
    """The schema of a table, of pyarrow."""
    with _readable(path):
        if path.suffix == ".parquet":
            return import_module("pyarrow.parquet").read_schema(path)
        return _stream(path).schema


def batches(path: Path, columns: list[str]) -> Iterator[Any]:
    """The rows of a table, some at a time, with these columns."""
    with _readable(path):
        if path.suffix == ".parquet":
            yield from import_module("pyarrow.parquet").ParquetFile(path).iter_batches(ROWS, columns=columns)
        else:
            for batch in _stream(path):
                yield from (batch.select(columns).slice(start, ROWS) for start in range(0, batch.num_rows, ROWS))


def _stream(path: Path) -> Any:
    """An Arrow file: a stream, as `datasets` writes it, or with an index."""
    arrow, mapped = import_module("pyarrow"), import_module("pyarrow").memory_map(str(path))
    if mapped.read(6) == b"ARROW1":
        file = arrow.ipc.open_file(mapped)
        return arrow.RecordBatchReader.from_batches(file.schema, map(file.get_batch, range(file.num_record_batches)))
    mapped.seek(0)
    return arrow.ipc.open_stream(mapped)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what pyarrow raises for a damaged table into one sentence."""
    try:
        yield
    except (import_module("pyarrow").ArrowException, OSError) as error:
        why = " ".join(str(error).split())[:200]
        raise InputError(f"{path} is no table that can be read, or damaged: {why}") from error


def _images(path: Path, column: str, first: int, wanted: Wanted) -> Iterator[ImageRef]:
    """The images of one table, whose first row is at a position, in its order."""
    position = first
    for batch in batches(path, [column]):
        for value in batch.column(column):
            if wanted(position):
                yield _reference(position, value)
            position += 1


def _reference(position: int, value: Any) -> ImageRef:
    """One image: bytes, or a struct of bytes and path, of which only the bytes are read."""
    held = value.as_py() if not hasattr(value, "keys") else value["bytes"].as_py()

    def opened() -> Any:
        if not held:
            raise ValueError("no bytes in the table, or only a path, which is not followed")
        check_file_size(len(held))
        return open_image(io.BytesIO(held))

    return ImageRef(position, opened, len(held or b""))


def _caption(text: Any) -> str:
    tidied = tidy(text) if isinstance(text, str) else ""
    return tidied if len(tidied) <= MAX_CAPTION else ""


def _labels(values: list[Any], found: Columns) -> Labels:
    """The labels of a column; none where a row has none."""
    if not values:
        return None, (), []
    if lacking := sum(value is None or (found.classes is not None and value < 0) for value in values):
        return None, (), [f"No classes: {counted(lacking, 'row')} of the column {found.label} give none."]
    if found.classes is None:
        return class_labels([str(value) for value in values], f"the column {found.label}")
    if (most := max(values)) >= len(found.classes):
        raise InputError(f"the column {found.label} has a class {most}, of {len(found.classes)} that are named")
    known, classes, notes = class_labels([found.classes[value] for value in values], f"the column {found.label}")
    return np.asarray(known), classes, notes
