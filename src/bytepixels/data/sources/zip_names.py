"""Decode the member names of a zip, whose encoding most programs that do not write UTF-8 leave unsaid."""

import struct
import zipfile
from collections.abc import Sequence
from zlib import crc32

from .folder_labels import clean_name

UTF8_FLAG, UNICODE_PATH = 0x800, 0x7075
ENCODINGS = (("utf-8", ""), ("cp932", "Japanese"), ("gb18030", "Chinese"), ("cp437", "DOS"))  # the last reads anything
_HALF_WIDTH = ("\uff61", "\uff9f")  # katakana that no name of today has, and that Chinese bytes turn into


def member_names(members: Sequence[zipfile.ZipInfo], source: str) -> tuple[list[str], list[str]]:
    """Decode the names as relative paths, with notes where the encoding had to be guessed.

    A name is UTF-8 where the zip says so; else what Info-ZIP's extra field says; else UTF-8 where all the rest are
    valid UTF-8; else in the first of the other ENCODINGS that reads them all.
    """
    raw = [_declared_name(member) for member in members]
    undeclared = [name for name in raw if isinstance(name, bytes)]
    encoding, language = next(guess for guess in ENCODINGS if all(_reads(name, guess[0]) for name in undeclared))
    names = [name.decode(encoding, "surrogateescape") if isinstance(name, bytes) else name for name in raw]
    notes = []
    if language:
        first = next(name.decode(encoding, "surrogateescape") for name in undeclared if not name.isascii())
        notes.append(
            f"warning: {source} does not say the encoding of its names: read as {language} ({encoding}), such as "
            f"{first!r}. If that is wrong, unpack it and give the folder."
        )
    return [clean_name(name.split("\0")[0].replace("\\", "/")) for name in names], notes


def _declared_name(member: zipfile.ZipInfo) -> str | bytes:
    """The name if the zip declares its encoding, else its bytes."""
    if member.flag_bits & UTF8_FLAG:
        return member.orig_filename
    raw = member.orig_filename.encode("cp437")
    return _unicode_path(member.extra, raw) or raw


def _unicode_path(extra: bytes, raw: bytes) -> str | None:
    """The name in Info-ZIP's extra field, if it belongs to these bytes."""
    while len(extra) >= 4:
        kind, size = struct.unpack("<HH", extra[:4])
        content, extra = extra[4 : 4 + size], extra[4 + size :]
        if kind == UNICODE_PATH and len(content) > 5 and content[:5] == struct.pack("<BI", 1, crc32(raw)):
            try:
                return content[5:].decode("utf-8")
            except UnicodeDecodeError:
                return None
    return None


def _reads(name: bytes, encoding: str) -> bool:
    try:
        text = name.decode(encoding)
    except UnicodeDecodeError:
        return False
    return encoding != "cp932" or not any(_HALF_WIDTH[0] <= letter <= _HALF_WIDTH[1] for letter in text)
