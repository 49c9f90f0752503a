"""Read images from a folder on disk."""

import errno
import hashlib
import os
import stat
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from ...errors import InputError
from .decode import open_image
from .folder_labels import printable
from .listing import list_images
from .source import Chunk, ImageList, ImageRef, Source, check_file_size, parts_of


class File(NamedTuple):
    """A file below a folder."""

    name: str  # relative, with /
    size: int
    changed: int  # ns


def open_folder(root: Path, files: list[File], split: str, notes: Sequence[str] = ()) -> Source:
    """Open the images among the files below root. notes: notes from before."""
    names = [file.name for file in files]
    return Source(str(root), files_key(root, files), lambda: read_files(root, names, split, str(root), notes))


def files_key(root: Path, files: list[File]) -> str:
    """Hash the names, sizes and modification times of files: reading their contents would take longer."""
    content = "\n".join([str(root.resolve()), *(f"{name}\0{size}\0{changed}" for name, size, changed in files)])
    return hashlib.sha256(content.encode(errors="surrogateescape")).hexdigest()


def read_files(root: Path, names: list[str], split: str, source: str, notes: Sequence[str] = ()) -> ImageList:
    """The images among the files root / name, arranged by their folders."""

    def read(index: int) -> bytes:
        return content_of(os.path.join(root, names[index]))

    def parts(order: list[int]) -> list[Chunk]:
        return parts_of(len(order), lambda k: ImageRef(k, partial(_open, os.path.join(root, names[order[k]]))))

    return list_images(names, split, source, read, parts, notes)


def content_of(path: str | Path) -> bytes:
    """Read a file in full; InputError if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise InputError(f"{printable(str(path))} cannot be read: {error.strerror or error}") from error


def _open(path: str) -> Image.Image:
    check_file_size(os.stat(path).st_size)
    return open_image(path)


def _refuse(error: OSError) -> None:
    raise error  # a folder that may not be entered is missing data, not an empty folder


def file_at(root: Path, path: Path) -> File:
    """The file below root at this path."""
    found = path.stat()
    return File(path.relative_to(root).as_posix(), found.st_size, found.st_mtime_ns)


def files_below(root: Path) -> list[File]:
    """List all files below root, by name; symbolic links are followed, without cycles."""
    seen, below = set(), list[File]()
    for folder, subfolders, files in os.walk(root, onerror=_refuse, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        inside = os.path.relpath(folder, root)
        prefix = "" if inside == "." else Path(inside).as_posix() + "/"
        for name in files:
            try:
                found = os.stat(os.path.join(folder, name))
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):  # a link that leads nowhere
                    continue
                raise
            if stat.S_ISREG(found.st_mode):  # not a socket, a pipe or a device
                below.append(File(prefix + name, found.st_size, found.st_mtime_ns))
    return sorted(below)
