"""The samples of one WebDataset shard: images, classes and captions."""

import json
import tarfile
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import InputError
from .captions import caption_of
from .folder_labels import clean_name, is_hidden, is_image, printable
from .tar import is_tar, read_tar

CLASS_FIELDS = ("class", "cls", "label", "class_name", "class_id")  # of a .json; the first that is there counts
IMAGE_NAMES = ("image", "img", "rgb")  # of several images of a sample, after one without a name of its own
MAX_FACTS = 1 << 20  # bytes of a .cls, .json or .txt
MAX_CLASS = 255  # characters
_GLANCE = 100  # members


class Sample(NamedTuple):
    """A sample's image, by its number in the archive, and what the files beside it say of it."""

    number: int
    name: str
    known_class: str | None
    caption: str  # "" for none


class Shard(NamedTuple):
    """The samples of one shard that have an image, in the archive's order."""

    samples: list[Sample]
    others: dict[str, int]  # files that were not used, counted by suffix


def split_name(name: str) -> tuple[str, str]:
    """Split a member's name into key and suffix: a/0001.rgb.png -> (a/0001, rgb.png)."""
    folder, slash, base = name.rpartition("/")
    key, _, extension = base.partition(".")
    return folder + slash + key, extension.lower()


def looks_like_shard(path: Path) -> bool:
    """Whether the first members of a tar include an image with a class beside it."""
    if not is_tar(path):
        return False
    images, classes = set(), set()
    for _, member, content in islice(read_tar(path, _holds_facts), _GLANCE):
        key, extension = split_name(clean_name(member.name))
        if is_image(member.name):
            images.add(key)
        elif class_of(extension, content) is not None:
            classes.add(key)
    return bool(images & classes)


def read_shard(path: Path) -> Shard:
    """List a shard. Raises InputError where it is damaged, or holds the same image of a sample twice."""
    images: dict[str, dict[str, tuple[int, str]]] = {}
    classes: dict[str, str] = {}
    captions: dict[str, str] = {}
    others = Counter[str]()
    for number, member, content in read_tar(path, _holds_facts):
        name = clean_name(member.name)
        key, extension = split_name(name)
        if not member.isfile() or is_hidden(name):
            continue
        if is_image(name):
            if extension in images.setdefault(key, {}):
                raise InputError(f"{path} holds {printable(name)} twice")
            images[key][extension] = (number, name)
        elif extension == "txt" and (caption := caption_of(content)):
            captions[key] = caption
        elif (known := class_of(extension, content)) is None:
            others[f".{extension}" if extension else "no suffix"] += 1
        elif extension == "cls" or key not in classes:
            classes[key] = known
    chosen = []
    for key, found in images.items():
        chosen.append(Sample(*found.pop(min(found, key=_rank)), classes.get(key), captions.get(key, "")))
        others.update(f".{extension}" for extension in found)
    others.update(".txt" for key in captions if key not in images)
    return Shard(sorted(chosen), dict(others))


def _holds_facts(number: int, member: tarfile.TarInfo) -> bool:
    return member.size <= MAX_FACTS and split_name(clean_name(member.name))[1] in ("cls", "json", "txt")


def _rank(extension: str) -> int:
    name, dot, _ = extension.partition(".")
    return 0 if not dot else 1 if name in IMAGE_NAMES else 2


def class_of(extension: str, content: bytes) -> str | None:
    """Read the class in a .cls or .json; None if it names none, and for any other file."""
    if extension == "cls":
        value: Any = content.decode(errors="replace").strip()
    elif extension == "json":
        value = _field(content)
    else:
        return None
    name = str(value)
    if not isinstance(value, (str, int)) or not 0 < len(name) <= MAX_CLASS:
        return None
    return str(int(name)) if name.isascii() and name.isdecimal() else name


def _field(content: bytes) -> Any:
    try:
        facts = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return next((facts[field] for field in CLASS_FIELDS if field in facts), None) if isinstance(facts, dict) else None
