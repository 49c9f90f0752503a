"""Read captions beside images: metadata.csv with the columns file_name and text, metadata.jsonl with these fields, or a
.txt beside each.

The first two are the convention of image folders: file names are relative to the folder that the metadata lies in.
"""

import csv
import io
import json
import posixpath
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .folder_labels import clean_name, counted, first_few, is_hidden, is_image, is_named, printable

METADATA = ("metadata.csv", "metadata.jsonl")
COCO = re.compile(r"captions_\w+\.json")  # annotations/captions_train2017.json; its images lie in a folder beside that
TEXT = ".txt"
MAX_TEXT_BYTES = 1 << 20  # of a text file: a larger one is no caption
MAX_CAPTION = 10_000  # characters
NAME, _TEXT = "file_name", "text"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")  # how a table saved as "Unicode text" begins

Row = tuple[int, Any, Any]  # its line, file_name and text; text None where there is none


@dataclass
class _Findings:
    """The captions read from a source's metadata, and the defects found."""

    captions: dict[str, str] = field(default_factory=dict)  # of an image's whole name
    broken: list[str] = field(default_factory=list)  # one sentence each
    strangers: list[str] = field(default_factory=list)  # names of no image
    twice: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)  # files without the columns


def captions_of(
    names: Sequence[str], kept: Sequence[int], read: Callable[[int], bytes]
) -> tuple[list[str] | None, list[str]]:
    """The caption of every packed image ("" for none; None if no image has one), and notes.

    names: of all files of a source, relative, with /. kept: positions of the images that are packed.
    read: position -> content, called for metadata or, where there is none, for the .txt beside each image.
    """
    files = [index for index, name in enumerate(names) if is_metadata(name)]
    if not files:
        return _from_texts(names, kept, read)
    found, known = _Findings(), {_composed(name): name for name in names if not is_metadata(name)}
    for index in files:
        if is_named(names[index], METADATA):
            _read_one(names[index], read(index), known, found)
        else:
            _read_coco(names[index], read(index), names, found)
    captions = [found.captions.get(names[index], "") for index in kept]
    where = first_few([names[index] for index in files], 3)
    return captions if any(captions) else None, _notes(captions, where, found)


def is_metadata(name: str) -> bool:
    """Whether a file says what is in the images, by its name."""
    return is_named(name, METADATA) or (COCO.fullmatch(posixpath.basename(name)) is not None and not is_hidden(name))


def texts_beside(names: Sequence[str]) -> dict[str, int]:
    """The positions of the text files that bear the name of an image: cat/1.txt beside cat/1.png, by "cat/1".

    It is how kohya's scripts and others for fine-tuning keep captions.
    """
    images = {posixpath.splitext(name)[0] for name in names if is_image(name)}
    texts = {stem: index for index, name in enumerate(names) for stem, end in [posixpath.splitext(name)] if end == TEXT}
    return {stem: index for stem, index in texts.items() if stem in images and not is_hidden(stem)}


def caption_of(content: bytes) -> str:
    """Read the caption in a .txt, on one line; "" if there is none."""
    text = tidy(content.decode("utf-8-sig", errors="replace"))
    return text if len(text) <= MAX_CAPTION else ""


def _from_texts(
    names: Sequence[str], kept: Sequence[int], read: Callable[[int], bytes]
) -> tuple[list[str] | None, list[str]]:
    """The captions that text files beside the images hold."""
    texts = texts_beside(names)
    found = [texts.get(posixpath.splitext(names[index])[0]) for index in kept]
    captions = ["" if index is None else caption_of(read(index)) for index in found]
    return (captions, [described(captions, "the .txt beside each")]) if any(captions) else (None, [])


def described(captions: Sequence[str], where: str) -> str:
    """Summarise the captions: "3,583 captions from metadata.csv; 12 images have none."."""
    none = captions.count("")
    without = f"; {counted(none, 'image')} {'has' if none == 1 else 'have'} none" if none else ""
    return f"{counted(len(captions) - none, 'caption')} from {where}{without}."


def tidy(text: str) -> str:
    """Normalise a caption: one line, no surrounding spaces, NFC."""
    return _composed(" ".join(text.split()))


def _read_one(name: str, content: bytes, known: dict[str, str], found: _Findings) -> None:
    """Read one metadata file. The first of several captions for an image counts."""
    folder, shown = posixpath.dirname(name), printable(name)
    text = decoded(content)
    if (rows := _csv_rows(text, shown, found) if name.endswith(".csv") else _json_rows(text, shown, found)) is None:
        found.refused.append(f"{shown} has no columns {NAME} and {_TEXT}: no captions are read from it.")
        return
    for line, file_name, caption in rows:
        if (wrong := _problem(file_name, caption)) is not None:
            found.broken.append(f"line {line:,} of {shown} {wrong}")
            continue
        path = clean_name(f"{folder}/{file_name}".replace("\\", "/"))
        image = known.get(_composed(path))
        if image is None:
            found.strangers.append(path)
        elif image in found.captions:
            found.twice.append(image)
        elif caption:
            found.captions[image] = tidy(caption)


def decoded(content: bytes) -> str:
    """The text of a table: UTF-8, or UTF-16 where it says so."""
    if content.startswith(_UTF16):
        return content.decode("utf-16", errors="replace")
    return content.decode("utf-8-sig", errors="surrogateescape")


def _read_coco(name: str, content: bytes, names: Sequence[str], found: _Findings) -> None:
    """Read captions as COCO has them, by the names of the image files. The first of an image's five counts."""
    bases: dict[str, list[str]] = {}
    for image in filter(is_image, names):
        bases.setdefault(posixpath.basename(image), []).append(image)
    try:
        table = json.loads(content)
        files = {one["id"]: posixpath.basename(one["file_name"]) for one in table["images"]}
        rows = [(files.get(one["image_id"], ""), one["caption"]) for one in table["annotations"]]
    except (ValueError, TypeError, KeyError, RecursionError):
        found.refused.append(f"{printable(name)} is no file of captions as COCO has them: none are read from it.")
        return
    for file, caption in rows:
        if (wrong := _problem(file, caption)) is not None:
            found.broken.append(f"an annotation of {printable(name)} {wrong}")
        elif file not in bases:
            found.strangers.append(file)
        for image in bases.get(file, []) if wrong is None else []:
            if image in found.captions:
                found.twice.append(image)
            elif caption:
                found.captions[image] = tidy(caption)


def _csv_rows(text: str, shown: str, found: _Findings) -> list[Row] | None:
    """Read the rows of a CSV table; None if it lacks a column."""
    reader, rows = csv.DictReader(io.StringIO(text, newline=""), strict=True), list[Row]()
    try:
        reader.fieldnames = [column.strip() for column in reader.fieldnames or ()]
    except csv.Error:
        return None
    if not {NAME, _TEXT} <= set(reader.fieldnames):
        return None
    while True:
        try:
            if (row := next(reader, None)) is None:
                return rows
            rows.append((reader.line_num, row[NAME], row[_TEXT]))
        except csv.Error as error:
            found.broken.append(f"line {reader.reader.line_num:,} of {shown} is no row of a table ({error})")


def _json_rows(text: str, shown: str, found: _Findings) -> list[Row] | None:
    """Read the rows of a JSON Lines file; None if no line has the fields."""
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            facts = json.loads(line)
        except (ValueError, RecursionError):
            facts = None
        if isinstance(facts, dict):
            rows.append((number, facts.get(NAME), facts.get(_TEXT, "")))
        else:
            found.broken.append(f"line {number:,} of {shown} is no JSON object")
    return rows if any(name is not None and text != "" for _, name, text in rows) else None


def _problem(file_name: Any, caption: Any) -> str | None:
    """Describe what is wrong with a row; None if nothing is."""
    if not isinstance(file_name, str) or not file_name.strip():
        return f"has no {NAME}"
    if not isinstance(caption, str):
        return f"has no {_TEXT}" if caption is None else f"has a {_TEXT} that is no string"
    if any("\ud800" <= letter <= "\udfff" for letter in file_name + caption):
        return "is not UTF-8"
    if len(caption) > MAX_CAPTION:
        return f"has a {_TEXT} of {len(caption):,} characters, the limit is {MAX_CAPTION:,}"
    return None


def _composed(name: str) -> str:
    """A file name however its accents are written, in NFC: macOS takes them apart."""
    return unicodedata.normalize("NFC", name)


def _notes(captions: list[str], where: str, found: _Findings) -> list[str]:
    notes = [*found.refused]
    if found.captions or not found.refused:
        notes.append(described(captions, where))
    if found.broken:
        more = f", and {len(found.broken) - 1:,} more" if len(found.broken) > 1 else ""
        notes.append(f"Left out {counted(len(found.broken), 'broken row')}: {found.broken[0]}{more}.")
    if found.strangers:
        first = printable(found.strangers[0])
        notes.append(f"{counted(len(found.strangers), 'caption')} of no image (the first is for {first}).")
    if found.twice:
        first = printable(found.twice[0])
        notes.append(f"{counted(len(found.twice), 'second caption')} left out (the first is for {first}).")
    return notes
