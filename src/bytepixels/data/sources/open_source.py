"""Open any SOURCE: a known data set, a folder, an archive, an array file, or an image."""

import os
from difflib import get_close_matches
from pathlib import Path

from ...errors import InputError
from .archives import open_archive
from .arrays import open_arrays
from .decode import lacking_suffixes
from .folder_labels import is_hidden, is_image
from .folders import content_of, file_at, files_below, open_folder, read_files
from .known_datasets import NAMED, open_named, open_official
from .own_output import without_own
from .source import Source, file_key, only_split
from .tables import SUFFIXES, open_tables, tables_among
from .webdataset import named_by_braces, open_shards, shards_among
from .webdataset_samples import looks_like_shard


def open_source(source: str | Path, split: str, cache: Path) -> Source:
    """Identify `source` and check that it exists; its images are listed only when `read()` is called.

    Downloads of named sets go below `cache`. Raises InputError in one sentence where there is no such thing.
    """
    if isinstance(source, str) and source in NAMED:  # a folder of that name is meant by ./digits
        return open_named(source, split, cache)
    path = Path(source).expanduser()
    try:
        if os.fspath(source) and path.exists():
            return open_official(path, split) or (_open_folder if path.is_dir() else _open_file)(path, split, cache)
        shards = named_by_braces(str(path))
        if not shards:
            raise InputError(f"{os.fspath(source)!r} is no file, no folder and no known data set{_nearest(path)}")
        root = Path(os.path.commonpath([shard.parent for shard in shards]))
        return open_shards(str(path), root, [file_at(root, shard) for shard in shards], split, cache)
    except OSError as error:
        raise InputError(f"{error.filename or path} cannot be read: {error.strerror or error}") from error


def _open_folder(path: Path, split: str, cache: Path) -> Source:
    files = files_below(path)
    kept, notes = without_own(
        [file.name for file in files], lambda index: content_of(path / files[index].name), str(path)
    )
    files = [file for file, is_kept in zip(files, kept, strict=True) if is_kept]
    shards, tables = shards_among(files), tables_among(files)
    if (shards or tables) and not any(is_image(file.name) and not is_hidden(file.name) for file in files):
        return (
            open_shards(str(path), path, shards, split, cache)
            if shards
            else open_tables(str(path), path, tables, split)
        )
    return open_folder(path, files, split, notes)


def _open_file(path: Path, split: str, cache: Path) -> Source:
    if not path.is_file():
        raise InputError(f"{path} is neither a file nor a folder")
    if path.suffix.lower() in (".npy", ".npz"):
        return open_arrays(path, split)
    if path.suffix.lower() in SUFFIXES:
        only_split(str(path), split)
        return open_tables(str(path), path.parent, [file_at(path.parent, path)], "all")
    if is_image(path.name):
        only_split(str(path), split)
        return Source(str(path), file_key(path), lambda: read_files(path.parent, [path.name], "all", str(path)))
    if remedy := lacking_suffixes().get(path.suffix.lower()):
        raise InputError(f"{path} cannot be read without a package: {remedy}")
    if looks_like_shard(path):
        return open_shards(str(path), path.parent, [file_at(path.parent, path)], split, cache)
    return open_archive(path, split)


def _nearest(path: Path) -> str:
    """Suggest a known name, or a neighbour in the same folder, for a misspelt source."""
    known = {name: name for name in NAMED} if len(path.parts) == 1 else {}
    if path.parent.is_dir():
        known |= {entry.name.lower(): str(entry) for entry in path.parent.iterdir()}
    near = get_close_matches(path.name.lower(), known, n=1)
    return f"; did you mean {known[near[0]]!r}?" if near else f" (known: {', '.join(NAMED)})"
