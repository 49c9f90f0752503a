"""Read WebDataset shards: samples in .tar files, grouped by key: 0001.jpg, 0001.cls, 0001.json and 0001.txt are one.

A key is all of a name up to the first dot behind the last slash. Images are told by their suffix, classes by .cls or
by a field of .json, and where there is neither by the folders in the keys.
"""

import hashlib
import json
import re
from collections import Counter
from pathlib import Path

from ...errors import InputError
from ...files import write_whole
from ..cache import make_folder
from .captions import described
from .decode import lacking_suffixes
from .folder_labels import (
    FOLDER_SPLITS,
    Labels,
    check_split,
    class_labels,
    counted,
    first_few,
    folder_labels,
    found_instead,
    ignored,
    is_hidden,
    natural_key,
    printable,
    unwrapped,
)
from .folders import File, files_key
from .source import Chunk, ImageList, Source
from .tar import tar_part
from .webdataset_samples import Sample, Shard, read_shard

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
MAX_SHARDS = 1_000_000
_RANGE = re.compile(r"\{(\d{1,9})\.\.(\d{1,9})\}")


def shards_among(files: list[File]) -> list[File]:
    """The shards in a folder that holds no loose images, in natural order."""
    shards = [file for file in files if file.name.lower().endswith(SUFFIXES) and not is_hidden(file.name)]
    return sorted(shards, key=lambda file: [natural_key(part) for part in file.name.split("/")])


def named_by_braces(pattern: str) -> list[Path]:
    """Expand a pattern such as train-{000000..000127}.tar to file names; [] if it has no such range."""
    names, rest = [""], pattern
    while found := _RANGE.search(rest):
        first, last = found.groups()
        numbers = range(int(first), int(last) + 1)
        if not 0 < len(names) * len(numbers) <= MAX_SHARDS:
            raise InputError(f"{pattern} must count up, over at most {MAX_SHARDS:,} shards; got {first}..{last}")
        start = rest[: found.start()]
        names = [f"{name}{start}{str(number).zfill(len(first))}" for name in names for number in numbers]
        rest = rest[found.end() :]
    return [Path(name + rest) for name in names] if rest != pattern else []


def open_shards(name: str, root: Path, files: list[File], split: str, cache: Path) -> Source:
    """Open the shards root / file. Their contents are listed once and cached."""
    kept, notes = _of_split(files, split, name)
    key = f"webdataset {files_key(root, kept)}"
    return Source(name, key, lambda: _read(name, root, kept, notes, cache / "indexes"))


def _of_split(files: list[File], split: str, source: str) -> tuple[list[File], list[str]]:
    """The shards of a split, if their names distinguish train, val or test."""
    found = [
        next((FOLDER_SPLITS[word] for word in re.findall("[a-z]+", file.name.lower()) if word in FOLDER_SPLITS), "")
        for file in files
    ]
    present = sorted(set(found) - {""})
    if len(present) < 2:
        if split in ("val", "test") and present != [split]:
            raise InputError(f"{source} has no {split} split: its shards are not named train, val or test")
        return files, []
    counts = check_split(split, filter(None, found))
    kept = [file for file, its_split in zip(files, found, strict=True) if split in ("all", its_split)]
    notes = [f"Splits found: {counts}; packed {split}, {counted(len(kept), 'shard')}."]
    if beside := [file.name for file, its_split in zip(files, found, strict=True) if not its_split]:
        notes.append(f"warning: left out {counted(len(beside), 'shard')} of no split: {first_few(beside)}.")
    return kept, notes


def _read(source: str, root: Path, files: list[File], notes: list[str], indexes: Path) -> ImageList:
    make_folder(indexes)
    shards = [_index(root, file, indexes) for file in files]
    samples = [sample for shard in shards for sample in shard.samples]
    others = Counter[str]()
    names, parts = list[str](), list[Chunk]()
    for file, shard in zip(files, shards, strict=True):
        others.update(shard.others)
        if shard.samples:
            position = {sample.number: len(names) + k for k, sample in enumerate(shard.samples)}
            parts.append(tar_part(root / file.name, position))
            names += [f"{file.name}/{sample.name}" for sample in shard.samples]
    if not samples:
        raise InputError(f"{source} holds no image{found_instead(others)}")
    labels, classes, class_notes = _labels(samples)
    captions = [sample.caption for sample in samples]
    notes = [f"{counted(len(names), 'sample')} in {counted(len(files), 'shard')}.", *notes, *ignored(others)]
    notes += [*class_notes, *([described(captions, "the .txt of the samples")] if any(captions) else [])]
    return ImageList(names, parts, labels, classes, tuple(notes), captions if any(captions) else None)


def _labels(samples: list[Sample]) -> Labels:
    """The labels of samples, from their own classes or else from the folders in their keys."""
    known = [sample.known_class for sample in samples if sample.known_class is not None]
    unknown = [sample.name for sample in samples if sample.known_class is None]
    if not unknown:
        return class_labels(known, "the samples")
    if known:
        missing = f"{counted(len(unknown), 'sample')} (the first is {printable(unknown[0])})"
        return None, (), [f"No class beside {missing}: packed without class labels."]
    return folder_labels(list(unwrapped({k: tuple(name.split("/")) for k, name in enumerate(unknown)}).values()))


def _index(root: Path, file: File, indexes: Path) -> Shard:
    """The cached or newly read index of a shard."""
    key = f"3 {files_key(root, [file])} {sorted(lacking_suffixes())}"
    kept = indexes / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
    try:
        samples, others = json.loads(kept.read_text())
        return Shard([Sample(*sample) for sample in samples], others)
    except (OSError, ValueError, TypeError):
        shard = read_shard(root / file.name)
        write_whole(kept, json.dumps(shard))
        return shard
