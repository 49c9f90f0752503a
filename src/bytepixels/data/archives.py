"""Pictures inside a .zip or a .tar (plain, .gz, .xz, .bz2), read where they lie: nothing is extracted to disk."""

import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from PIL import Image

from ..errors import InputError, check_choice
from .arrange import arrange, clean_name
from .decode import open_picture
from .official import CIFAR_BATCHES, TWO_SPLITS, read_cifar
from .pictures import MAX_FILE_BYTES, Item, Pictures, Source, check_file_size, file_key

_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, OSError, NotImplementedError)


class _StrictHeader(tarfile.TarInfo):
    """tarfile takes whatever is no header for the archive's end; here only the end mark, a block of zeros, is one."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "_StrictHeader":
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"no end mark, but at byte {archive.offset:,}: {error}") from error


def open_archive(path: Path, split: str) -> Source:
    """A zip or tar archive, told by its content; InputError when it is neither or is damaged."""
    with readable(path):  # what is cut off within its first header
        read = _read_zip if zipfile.is_zipfile(path) else _read_tar if tarfile.is_tarfile(path) else None
    if read is None:
        raise InputError(f"{path} is no picture, .npz, .npy, .zip or .tar archive, or it is damaged")
    return Source(str(path), file_key(path), lambda: read(path, split))


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what a damaged archive raises into one sentence."""
    try:
        yield
    except _DAMAGE as error:
        raise InputError(f"{path} is damaged or cut short: {error}") from error


def _read_zip(path: Path, split: str) -> Pictures:
    with readable(path):
        archive = zipfile.ZipFile(path)  # stays open: threads read their own members of it; closed with its last reader
    members = [member for member in archive.infolist() if not member.is_dir()]
    found = arrange([clean_name(member.filename) for member in members], split, str(path))
    kept = [members[index] for index in found.order]

    def stream() -> Iterator[Item]:
        for index, member in enumerate(kept):
            yield Item(index, partial(_open_member, archive, member))

    return Pictures([m.filename for m in kept], stream, found.labels, found.classes, found.notes)


def _open_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Image.Image:
    check_file_size(member.file_size)
    return open_picture(io.BytesIO(archive.read(member)))


def _open_tar(path: Path) -> tarfile.TarFile:
    return tarfile.open(path, "r|*", tarinfo=_StrictHeader)


def _read_tar(path: Path, split: str) -> Pictures:
    """A compressed tar has no index and cannot seek: it is read from front to back, once for the names and once more
    for the pictures, which come in the archive's order and know their own position."""
    with readable(path), _open_tar(path) as archive:
        names = [clean_name(member.name) if member.isfile() else "" for member in archive]
    if any(name.rsplit("/", 1)[-1] == CIFAR_BATCHES["test"][0] for name in names):
        return read_cifar(path, check_choice("split", split, TWO_SPLITS))
    found = arrange(names, split, str(path))
    position = {member: index for index, member in enumerate(found.order)}

    def stream() -> Iterator[Item]:
        with readable(path), _open_tar(path) as archive:
            for number, member in enumerate(archive):
                if number in position:
                    file = archive.extractfile(member) if member.size <= MAX_FILE_BYTES else None
                    content = file.read() if file else b""
                    yield Item(position[number], partial(_open_content, content, member.size), len(content))

    return Pictures([names[i] for i in found.order], stream, found.labels, found.classes, found.notes)


def _open_content(content: bytes, size: int) -> Image.Image:
    check_file_size(size)
    return open_picture(io.BytesIO(content))
