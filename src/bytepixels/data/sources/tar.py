"""Read tar archives, plain or compressed, from front to back; damage is reported in one sentence."""

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from ...errors import InputError
from .decode import open_image
from .source import MAX_FILE_BYTES, Chunk, ImageRef, Wanted, check_file_size

_COMPRESSED: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
_EXTENSIONS = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE)
_MAX_EXTENSION = 1 << 20  # bytes of a name or of other facts about a member, which tarfile reads into memory
_TRAILING = 1 << 24  # bytes read behind the end mark, so that a compressed file comes to its checksum
_DAMAGE = (
    *(tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, struct.error, EOFError, OSError),
    *(ValueError, OverflowError, NotImplementedError),
)


class _StrictHeader(tarfile.TarInfo):
    """A tar header that ends the archive only at a block of zeros: tarfile ends at any invalid header."""

    @classmethod
    def frombuf(cls, *arguments: Any) -> "_StrictHeader":
        header = super().frombuf(*arguments)
        if header.type in _EXTENSIONS and header.size > _MAX_EXTENSION:
            raise tarfile.ReadError(f"a name or comment of {header.size:,} bytes")
        return header

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "_StrictHeader":
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"no end mark, but at byte {archive.offset:,}: {error}") from error


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn the errors of a damaged archive into one InputError."""
    try:
        yield
    except InputError:
        raise
    except _DAMAGE as error:
        raise InputError(f"{path} is damaged or cut short: {error}") from error


def is_tar(path: Path) -> bool:
    """Whether a file begins as a tar does, compressed or not (tarfile's own test reads names of any length)."""
    with readable(path), _opener(path)(path, "rb") as file:
        start = file.read(tarfile.BLOCKSIZE)
    try:
        tarfile.TarInfo.frombuf(start, tarfile.ENCODING, "surrogateescape")
    except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # an empty one
        return True
    except tarfile.HeaderError:
        return False
    return True


def read_tar(
    path: Path, wanted: Callable[[int, tarfile.TarInfo], bool]
) -> Iterator[tuple[int, tarfile.TarInfo, bytes]]:
    """Yield (number, member, content) of every member, in the archive's order; content is b"" unless it is wanted and
    a plain file of at most MAX_FILE_BYTES. Raises InputError where the archive is damaged or cut short."""
    with (
        readable(path),
        _opener(path)(path, "rb") as file,
        tarfile.open(fileobj=file, mode="r:", tarinfo=_StrictHeader) as archive,
    ):
        for number, member in enumerate(iter(archive.next, None)):
            archive.members = []  # type: ignore[attr-defined]  # it would keep every header
            content = None
            if wanted(number, member) and member.isfile() and member.size <= MAX_FILE_BYTES:
                content = archive.extractfile(member)
            yield number, member, content.read() if content else b""
        file.read(_TRAILING)


def tar_part(path: Path, position: dict[int, int]) -> Chunk:
    """The chunk of one tar's images, given by their number in it."""

    def stream(wanted: Wanted) -> Iterator[ImageRef]:
        chosen = {number for number, place in position.items() if wanted(place)}
        for number, member, content in read_tar(path, lambda number, member: number in chosen):
            if number in chosen:
                yield ImageRef(position[number], partial(open_content, content, member.size), len(content))

    return stream


def open_content(content: bytes, size: int | None = None) -> Image.Image:
    """Open an image in memory, undecoded. size: of the file, where it was too large to be read."""
    check_file_size(len(content) if size is None else size)
    return open_image(io.BytesIO(content))


def is_compressed(path: Path) -> bool:
    """Whether a tar must be decompressed to be read."""
    return _opener(path) is not open


def _opener(path: Path) -> Callable[..., Any]:
    with path.open("rb") as file:
        start = file.read(6)
    return next((opener for magic, opener in _COMPRESSED.items() if start.startswith(magic)), open)
