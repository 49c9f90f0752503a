"""Read images inside a .zip or a .tar (plain, .gz, .xz, .bz2); nothing is extracted to disk."""

import io
import zipfile
from collections import Counter
from functools import partial
from pathlib import Path
from tarfile import TarInfo

from PIL import Image

from ...errors import InputError, check_choice
from .decode import open_image
from .folder_labels import clean_name, counted, is_hidden, is_image
from .listing import list_images, says_something
from .official_files import CIFAR_BATCHES, TWO_SPLITS, read_cifar
from .source import Chunk, ImageList, ImageRef, Source, check_file_size, file_key, parts_of
from .tar import is_compressed, is_tar, open_content, read_tar, readable, tar_part
from .zip_names import member_names

_METHODS = {
    *(zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA),
    getattr(zipfile, "ZIP_ZSTANDARD", zipfile.ZIP_STORED),  # Python 3.14
}
KEPT_BYTES = 1 << 26  # images of a compressed tar that are kept in memory, for it is slow to read a second time


def open_archive(path: Path, split: str) -> Source:
    """Open a zip or tar archive, recognised by its content; InputError if it is neither or is damaged."""
    read = _read_zip if zipfile.is_zipfile(path) else _read_tar if is_tar(path) else None
    if read is None:
        raise InputError(f"{path} is no image, .npz, .npy, .zip or .tar archive, or it is damaged")
    return Source(str(path), file_key(path), lambda: read(path, split))


def _read_zip(path: Path, split: str) -> ImageList:
    with readable(path):
        archive = zipfile.ZipFile(path)  # stays open: threads read their own members of it; closed with its last reader
    members = [member for member in archive.infolist() if not member.is_dir()]
    names, notes = member_names(members, str(path))
    _check_readable(path, [member for member, name in zip(members, names, strict=True) if _is_needed(name)])

    def read(index: int) -> bytes:
        if not says_something(names[index], members[index].file_size):
            return b""
        with readable(path):
            return archive.read(members[index])

    def parts(order: list[int]) -> list[Chunk]:
        kept = [members[index] for index in order]
        return parts_of(len(kept), lambda k: ImageRef(k, partial(_open_member, archive, kept[k]), kept[k].file_size))

    return list_images(names, split, str(path), read, parts, notes)


def _is_needed(name: str) -> bool:
    return says_something(name) or (is_image(name) and not is_hidden(name))


def _check_readable(path: Path, members: list[zipfile.ZipInfo]) -> None:
    """Raise InputError for a zip that is encrypted or uses a compression that Python lacks."""
    locked = sum(member.flag_bits & 1 for member in members)
    if locked:
        raise InputError(
            f"{path} is encrypted ({locked:,} of {len(members):,} files): unpack it with its password, "
            f"and give the folder"
        )
    strange = Counter(member.compress_type for member in members if member.compress_type not in _METHODS)
    if strange:
        method, count = strange.most_common(1)[0]
        name = zipfile.compressor_names.get(method, f"number {method}")  # type: ignore[attr-defined]
        raise InputError(
            f"{path} is compressed in a way that Python cannot unpack ({name}, {count:,} of {len(members):,} files): "
            f"unpack it with another program, and give the folder"
        )


def _open_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Image.Image:
    check_file_size(member.file_size)
    return open_image(io.BytesIO(archive.read(member)))


def _read_tar(path: Path, split: str) -> ImageList:
    """Read a tar from front to back, since it has no index and a compressed one cannot seek: once for the names, once
    more for the images. Up to KEPT_BYTES are kept in memory and need no second pass.
    """
    names, links, held, held_bytes, facts = list[str](), 0, dict[int, bytes](), 0, dict[int, bytes]()
    most = KEPT_BYTES if is_compressed(path) else 0

    def wanted(number: int, member: TarInfo) -> bool:
        name = _file_name(member)
        return (held_bytes + member.size <= most and is_image(name)) or says_something(name, member.size)

    for number, member, content in read_tar(path, wanted):
        names.append(name := _file_name(member))
        if is_image(name):
            held[number] = content
            held_bytes += member.size
        elif says_something(name, member.size):
            facts[number] = content
        links += member.issym() or member.islnk()
        if held_bytes > most:
            held.clear()
    if any(name.rsplit("/", 1)[-1] == CIFAR_BATCHES["test"][0] for name in names):
        return read_cifar(path, check_choice("split", split, TWO_SPLITS))
    notes = [f"Ignored {counted(links, 'link')} in the archive."] if links else []

    def parts(order: list[int]) -> list[Chunk]:
        if not held:
            return [tar_part(path, {number: k for k, number in enumerate(order)})]
        kept = [held[number] for number in order]
        return parts_of(len(kept), lambda k: ImageRef(k, partial(open_content, kept[k])))

    return list_images(names, split, str(path), lambda number: facts.get(number, b""), parts, notes)


def _file_name(member: TarInfo) -> str:
    """The clean name of a member, or "" if it is not a regular file."""
    return clean_name(member.name) if member.isfile() else ""
