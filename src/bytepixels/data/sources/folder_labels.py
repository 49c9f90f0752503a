"""From the file names of a source to an order, class labels and a split: what the folders mean."""

import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from ...choices import SPLITS
from ...errors import InputError, check_choice
from .decode import image_suffixes, lacking_suffixes

FOLDER_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
ARCHIVES = {".zip", ".tar", ".tgz", ".gz", ".xz", ".bz2"}  # by the end of their names
_TURNS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # they change the direction of what follows


@dataclass(frozen=True)
class Arrangement:
    """Which files are packed, in which order, and what their folders say about them."""

    order: list[int]  # positions in the list of names that was given
    labels: np.ndarray | None  # int64 [N], positions in `classes`
    classes: tuple[str, ...]
    notes: tuple[str, ...]
    class_notes: tuple[str, ...]  # what there is to say of the labels


def clean_name(name: str) -> str:
    """A name in an archive as a relative path that leads nowhere else: ./a, /a and ../a are all a."""
    return "/".join(part for part in name.split("/") if part not in ("", ".", ".."))


def printable(name: str) -> str:
    """A file name on one line: bytes that are no UTF-8, line ends and other controls are written out (\\xff, \\n)."""
    return "".join(_written_out(letter) for letter in name)


def _written_out(letter: str) -> str:
    if "\udc80" <= letter <= "\udcff":  # how Python keeps a byte of a file name that is no UTF-8
        return f"\\x{ord(letter) - 0xDC00:x}"
    if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") or letter in _TURNS:
        return letter.encode("unicode_escape").decode()
    return letter


def is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def is_image(name: str) -> bool:
    return posixpath.splitext(name)[1].lower() in image_suffixes()


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sort key under which 2.png comes before 10.png."""
    parts = re.split(r"([0-9]{1,18})", name)
    return [(int(part), part) if part.isdecimal() else (-1, part) for part in parts]


def arrange(names: list[str], split: str, source: str, used: Container[str] = ()) -> Arrangement:
    """Order the images among `names` (relative, with /) and read classes and splits from their folders.

    Folders that wrap everything are looked through. Folders named train, val or test are splits, of which `split` is
    taken ("all": every one); images beside them are left out, and named. Then, where every image lies in a subfolder,
    the topmost subfolder is its class. Files named as in `used` are no images and yet of use. Raises InputError when
    there is no image, or no such split.
    """
    visible = [index for index, name in enumerate(names) if name and not is_hidden(name)]
    images, others = list[int](), list[int]()
    for index in visible:
        (images if is_image(names[index]) else others).append(index)
    unused = [index for index in others if posixpath.basename(names[index]) not in used]
    if not images:
        raise InputError(f"{source} holds no image{found_instead(_suffixes(names, others))}")
    paths = unwrapped({index: tuple(names[index].split("/")) for index in images})
    paths, notes = _one_split(paths, split, source)
    order = sorted(paths, key=lambda index: ([natural_key(part) for part in paths[index]], index))
    labels, classes, class_notes = folder_labels([paths[index] for index in order])
    if classes and (empty := _imageless({names[index]: paths[index] for index in order}, [names[i] for i in unused])):
        several = "they are no classes" if len(empty) > 1 else "it is no class"
        class_notes.append(f"warning: no image that can be read in {', '.join(map(printable, empty))}: {several}.")
    return Arrangement(order, labels, classes, (*notes, *ignored(_suffixes(names, unused))), tuple(class_notes))


def _imageless(paths: dict[str, tuple[str, ...]], others: list[str]) -> list[str]:
    """The folders beside those of the classes that hold other files alone. paths: of an image's name, (class, ...)."""
    known = {tuple(name.split("/")[: 1 - len(path)]) for name, path in paths.items()}
    parents = {folder[:-1] for folder in known}
    depths = {len(parent) for parent in parents}
    folders = {name[: depth + 1] for name in (tuple(n.split("/")[:-1]) for n in others) for depth in depths}
    return sorted({folder[-1] for folder in folders - known if folder and folder[:-1] in parents}, key=natural_key)


def _suffixes(names: list[str], files: list[int]) -> Counter[str]:
    return Counter(PurePosixPath(names[index]).suffix.lower() or "no suffix" for index in files)


def unwrapped(paths: dict[int, tuple[str, ...]]) -> dict[int, tuple[str, ...]]:
    while all(len(path) > 1 for path in paths.values()) and len({path[0] for path in paths.values()}) == 1:
        paths = {index: path[1:] for index, path in paths.items()}
    return paths


def _one_split(
    paths: dict[int, tuple[str, ...]], split: str, source: str
) -> tuple[dict[int, tuple[str, ...]], list[str]]:
    depth, parents = _split_level(paths)
    if not parents:
        if split in ("val", "test"):
            raise InputError(f"{source} has no {split} split: {_splits_lacking(paths)}")
        return paths, []
    splits = {
        index: name for index, path in paths.items() if (name := _split_at(path, depth)) and path[:depth] in parents
    }
    if "train" not in splits.values() and not depth:  # images flat beside test/ alone are there to learn from
        splits |= {index: "train" for index, path in paths.items() if len(path) == 1}
    counts = Counter(splits.values())
    present = [name for name in SPLITS if name in counts]
    check_choice("split", split, [*present, "all"])
    kept = {i: (*paths[i][:depth], *paths[i][depth:][1:]) or paths[i] for i, n in splits.items() if split in ("all", n)}
    found = ", ".join(f"{name} ({counts[name]:,})" for name in present)
    notes = [f"Splits found: {found}; packed {split}, {counted(len(kept), 'image')}."]
    if beside := [path for index, path in paths.items() if index not in splits]:
        notes.append(f"warning: left out {counted(len(beside), 'image')} beside the splits: {_places(beside)}.")
    return unwrapped(kept), notes


def _splits_lacking(paths: dict[int, tuple[str, ...]]) -> str:
    """Why there are no splits."""
    named = sorted({path[0] for path in paths.values() if _split_at(path, 0)})
    if len(named) == 1:
        return f"found {named[0]}/ but no other split beside it"
    return "its top folders are not named train, val or test"


def _split_at(path: tuple[str, ...], depth: int) -> str:
    """The split that a path's folder at this depth is named after; "" for none."""
    return FOLDER_SPLITS.get(path[depth].lower(), "") if len(path) > depth + 1 else ""


def _split_level(paths: dict[int, tuple[str, ...]]) -> tuple[int, set[tuple[str, ...]]]:
    """How deep the folders named train, val or test lie, and the folders that hold them; no folders where there are no
    splits. One such name among others is a class. Deeper down, as in cat/train/1.png, most images must lie in them."""
    if (
        not any(_split_at(path, 0) == "" for path in paths.values() if len(path) > 1)
        and max(map(len, paths.values())) > 1
    ):
        return 0, {()}
    for depth in range(max(map(len, paths.values())) - 1):
        found: dict[tuple[str, ...], Counter[str]] = {}
        for path in paths.values():
            if name := _split_at(path, depth):
                found.setdefault(path[:depth], Counter())[name] += 1
        parents = {parent for parent, splits in found.items() if len(splits) > 1}
        if parents and (not depth or 2 * sum(found[parent].total() for parent in parents) > len(paths)):
            return depth, parents
    return 0, set()


def _places(paths: Sequence[tuple[str, ...]]) -> str:
    """Where images lie: "cover.png, examples/ (2)", five at most."""
    tops = Counter(f"{path[0]}/" if len(path) > 1 else path[0] for path in paths)
    shown = [printable(top) + (f" ({number:,})" if top.endswith("/") else "") for top, number in tops.most_common(5)]
    return ", ".join(shown) + (f" and {len(tops) - 5:,} more" if len(tops) > 5 else "")


def folder_labels(paths: list[tuple[str, ...]]) -> tuple[np.ndarray | None, tuple[str, ...], list[str]]:
    """(labels int64 [N], classes, notes) of N paths: the first folder of each, where all have one."""
    depths = [len(path) for path in paths]
    if max(depths) == 1:
        return None, (), []
    if min(depths) == 1:
        inside = sorted({path[0] for path in paths if len(path) > 1}, key=natural_key)
        folders = ", ".join(map(printable, inside[:3])) + (", ..." if len(inside) > 3 else "")
        beside = [path for path in paths if len(path) == 1]
        lie = f"{counted(len(beside), 'image')} ({_places(beside)}) beside the subfolders ({folders})"
        advice = "To train with classes, move every image into a subfolder"
        return None, (), [f"warning: {lie}: all {len(paths):,} packed without class labels. {advice}."]
    labels, classes, notes = class_labels([path[0] for path in paths], "the subfolders")
    if splits := [name for name in classes if name.lower() in FOLDER_SPLITS]:
        named = f"{' and '.join(splits)} {'is' if len(splits) == 1 else 'are'}"
        notes.append(f"warning: {named} taken for a class, not for a split: no other split lies beside it.")
    return labels, classes, notes


def class_labels(names: list[str], origin: str) -> tuple[np.ndarray, tuple[str, ...], list[str]]:
    """(labels int64 [N], classes in natural order, notes) of N images whose classes have these names."""
    names = [unicodedata.normalize("NFC", name) for name in names]  # macOS takes accents apart
    known = sorted(set(names), key=natural_key)
    label_of = {name: label for label, name in enumerate(known)}
    classes = tuple(map(printable, known))
    shown = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
    note = f"{len(classes)} classes from {origin}: {shown}."
    return np.array([label_of[name] for name in names], np.int64), classes, [note]


def ignored(others: Counter[str]) -> list[str]:
    """What there is to say of files that are no images, counted by suffix."""
    unread, lacking = list[str](), lacking_suffixes()
    for remedy in sorted({lacking[suffix] for suffix in others.keys() & lacking}):
        kinds = Counter({suffix: count for suffix, count in others.items() if lacking.get(suffix) == remedy})
        others = others - kinds
        unread.append(f"Left out {counted(kinds.total(), 'image')} ({listed(kinds)}); to read such files: {remedy}")
    return [*unread, *([f"Ignored {counted(others.total(), 'other file')} ({listed(others)})."] if others else [])]


def counted(number: int, noun: str) -> str:
    """ "1,000 images", or "1 image"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(others: Counter[str]) -> str:
    return ", ".join(suffix for suffix, _ in others.most_common(5))


def found_instead(others: Counter[str]) -> str:
    """What follows "holds no image"."""
    if not others:
        return ": it is empty"
    if others.keys() & lacking_suffixes():
        return f". {' '.join(ignored(others))}"
    archive = next((suffix for suffix in others if suffix in ARCHIVES), None)
    hint = f"; an archive is a source of its own: name the {archive} file" if archive else ""
    return f" that Pillow can open: it has {counted(sum(others.values()), 'other file')} ({listed(others)}){hint}"
