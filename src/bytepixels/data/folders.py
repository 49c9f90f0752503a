"""Pictures in a folder on disk."""

import hashlib
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from PIL import Image

from .arrange import arrange
from .decode import open_picture
from .pictures import Item, Pictures, Source, check_file_size


def open_folder(root: Path, split: str) -> Source:
    """All pictures below root. The key holds names, sizes and times of change: reading every file would take longer."""
    names = sorted(_walk(root))
    content = [str(root.resolve())]
    for name in names:
        stat = (root / name).stat()
        content.append(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}")
    key = hashlib.sha256("\n".join(content).encode(errors="surrogateescape")).hexdigest()
    return Source(str(root), key, lambda: read_files(root, names, split, str(root)))


def read_files(root: Path, names: list[str], split: str, source: str) -> Pictures:
    """The pictures among the files root / name, arranged by their folders."""
    found = arrange(names, split, source)
    kept = [names[index] for index in found.order]

    def stream() -> Iterator[Item]:
        for index, name in enumerate(kept):
            yield Item(index, partial(_open, root / name))

    return Pictures(kept, stream, found.labels, found.classes, found.notes)


def _open(path: Path) -> Image.Image:
    check_file_size(path.stat().st_size)
    return open_picture(path)


def _refuse(error: OSError) -> None:
    raise error  # a folder that may not be entered is missing data, not an empty folder


def _walk(root: Path) -> Iterator[str]:
    """Relative names of all files below root; links are followed, but never round in a circle."""
    seen = set()
    for folder, subfolders, files in os.walk(root, onerror=_refuse, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in files:
            path = Path(folder, name)
            if path.is_file():  # not a dangling link, a socket or a pipe
                yield path.relative_to(root).as_posix()
