"""Pictures in a folder on disk."""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from PIL import Image

from .arrange import arrange
from .decode import open_picture
from .pictures import Item, Pictures, Source, check_file_size, parts_of


def open_folder(root: Path, split: str) -> Source:
    """All pictures below root. The key holds names, sizes and times of change: reading every file would take longer."""
    found = sorted(walk(root))
    content = "\n".join([str(root.resolve()), *(f"{name}\0{size}\0{changed}" for name, size, changed in found)])
    key = hashlib.sha256(content.encode(errors="surrogateescape")).hexdigest()
    return Source(str(root), key, lambda: read_files(root, [name for name, *_ in found], split, str(root)))


def read_files(root: Path, names: list[str], split: str, source: str) -> Pictures:
    """The pictures among the files root / name, arranged by their folders."""
    found = arrange(names, split, source)
    kept = [names[index] for index in found.order]
    parts = parts_of(len(kept), lambda index: Item(index, partial(_open, os.path.join(root, kept[index]))))
    return Pictures(kept, parts, found.labels, found.classes, found.notes)


def _open(path: str) -> Image.Image:
    check_file_size(os.stat(path).st_size)
    return open_picture(path)


def _refuse(error: OSError) -> None:
    raise error  # a folder that may not be entered is missing data, not an empty folder


def walk(root: Path) -> Iterator[tuple[str, int, int]]:
    """(relative name, bytes, time of change in ns) of all files below root; links are followed, but never round in a
    circle."""
    seen = set()
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
                yield prefix + name, found.st_size, found.st_mtime_ns
