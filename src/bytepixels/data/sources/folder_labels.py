"""Derive the order, class labels and splits of a source from its file and folder names."""

import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from typing import NamedTuple

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


# The label of each image, int64 [N], or None; the classes that they are positions in; what there is to say of them.
Labels = tuple[np.ndarray | None, tuple[str, ...], list[str]]
# Of the files that lie in no split, a path without it: (class, ..., name), by position in the list of names.
Paths = dict[int, tuple[str, ...]]


class Arrangement(NamedTuple):
    """The files to pack, in order, with the labels and splits read from their folders."""

    order: list[int]  # positions in the list of names that was given
    labels: Labels
    notes: list[str]


def clean_name(name: str) -> str:
    """Normalise an archive member's name to a safe relative path: ./a, /a and ../a are all a."""
    return "/".join(part for part in name.split("/") if part not in ("", ".", ".."))


def printable(name: str) -> str:
    """Make a file name printable on one line: invalid UTF-8, line ends and controls are escaped (\\xff, \\n)."""
    return "".join(_written_out(letter) for letter in name)


def _written_out(letter: str) -> str:
    if "\udc80" <= letter <= "\udcff":  # how Python keeps a byte of a file name that is no UTF-8
        return f"\\x{ord(letter) - 0xDC00:x}"
    if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") or letter in _TURNS:
        return letter.encode("unicode_escape").decode()
    return letter


def is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def is_named(name: str, among: Container[str]) -> bool:
    """Whether a file has one of these names, in no hidden folder."""
    folder, base = posixpath.split(name)
    return base in among and not is_hidden(folder)


def is_image(name: str) -> bool:
    return posixpath.splitext(name)[1].lower() in image_suffixes()


def natural_key(name: str) -> list[tuple[int, str]]:
    """A sort key that puts 2.png before 10.png."""
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
    images = [index for index in visible if is_image(names[index])]
    others = [names[index] for index in sorted(set(visible) - set(images))]
    unused = [name for name in others if posixpath.basename(name) not in used and name not in used]
    if not images:
        raise InputError(f"{source} holds no image{found_instead(_suffixes(others))}")
    paths = unwrapped({index: tuple(names[index].split("/")) for index in images})
    paths, notes = _one_split(paths, split, source)
    order = sorted(paths, key=lambda index: ([natural_key(part) for part in paths[index]], index))
    labels, classes, class_notes = folder_labels([paths[index] for index in order])
    if classes and (empty := _imageless({names[index]: paths[index] for index in order}, unused)):
        several = "they are no classes" if len(empty) > 1 else "it is no class"
        class_notes.append(f"warning: no image that can be read in {', '.join(map(printable, empty))}: {several}.")
    return Arrangement(order, (labels, classes, class_notes), [*notes, *ignored(_suffixes(unused))])


def _imageless(paths: dict[str, tuple[str, ...]], others: list[str]) -> list[str]:
    """The folders beside the class folders that hold no image. paths: of an image's name, (class, ...)."""
    known = {tuple(name.split("/")[: 1 - len(path)]) for name, path in paths.items()}
    parents = {folder[:-1] for folder in known}
    depths = {len(parent) for parent in parents}
    folders = {name[: depth + 1] for name in (tuple(n.split("/")[:-1]) for n in others) for depth in depths}
    return sorted({folder[-1] for folder in folders - known if folder and folder[:-1] in parents}, key=natural_key)


def _suffixes(names: list[str]) -> Counter[str]:
    return Counter(posixpath.splitext(name)[1].lower() or "no suffix" for name in names)


def unwrapped(paths: Paths) -> Paths:
    """The paths without the folders that wrap them all."""
    while all(len(path) > 1 for path in paths.values()) and len({path[0] for path in paths.values()}) == 1:
        paths = {index: path[1:] for index, path in paths.items()}
    return paths


def _one_split(paths: Paths, split: str, source: str) -> tuple[Paths, list[str]]:
    """The paths of one split, without the folder named after it, and what there is to say of the splits."""
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
    counts = check_split(split, splits.values())
    kept = {i: (*paths[i][:depth], *paths[i][depth:][1:]) or paths[i] for i, n in splits.items() if split in ("all", n)}
    notes = [f"Splits found: {counts}; packed {split}, {counted(len(kept), 'image')}."]
    if beside := [path for index, path in paths.items() if index not in splits]:
        notes.append(f"warning: left out {counted(len(beside), 'image')} beside the splits: {_places(beside)}.")
    return unwrapped(kept), notes


def check_split(split: str, splits: Iterable[str]) -> str:
    """ "train (3), test (1)", how often each split is there. Raises InputError where `split` is not among them."""
    counts = Counter(splits)
    present = [name for name in SPLITS if name in counts]
    check_choice("split", split, [*present, "all"])
    return ", ".join(f"{name} ({counts[name]:,})" for name in present)


def _splits_lacking(paths: Paths) -> str:
    """The error sentence where the requested split does not exist."""
    named = sorted({path[0] for path in paths.values() if _split_at(path, 0)})
    if len(named) == 1:
        return f"found {named[0]}/ but no other split beside it"
    return "its top folders are not named train, val or test"


def _split_at(path: tuple[str, ...], depth: int) -> str:
    """The split that the folder at this depth of a path names; "" for none."""
    return split_named(path[depth]) if len(path) > depth + 1 else ""


def split_named(folder: str) -> str:
    """The split that a folder's name means; a year may follow, as in COCO's train2017. "" for none."""
    return FOLDER_SPLITS.get(re.sub(r"(19|20)\d\d$", "", folder.lower()), "")


def _split_level(paths: Paths) -> tuple[int, set[tuple[str, ...]]]:
    """The depth of folders named train, val or test, and the folders that hold them; no folders if there are no splits.
    One such name among others is a class. Deeper down, as in cat/train/1.png, most images must lie in them."""
    deepest = max(map(len, paths.values()))
    if deepest > 1 and all(_split_at(path, 0) for path in paths.values() if len(path) > 1):
        return 0, {()}
    for depth in range(deepest - 1):
        found: dict[tuple[str, ...], Counter[str]] = {}
        for path in paths.values():
            if name := _split_at(path, depth):
                found.setdefault(path[:depth], Counter())[name] += 1
        parents = {parent for parent, splits in found.items() if len(splits) > 1}
        if parents and (not depth or 2 * sum(found[parent].total() for parent in parents) > len(paths)):
            return depth, parents
    return 0, set()


def _places(paths: Sequence[tuple[str, ...]]) -> str:
    """Describe where images lie, as in "cover.png, examples/ (2)"; five at most."""
    tops = Counter(f"{path[0]}/" if len(path) > 1 else path[0] for path in paths)
    return first_few([top + (f" ({number:,})" if top.endswith("/") else "") for top, number in tops.most_common()])


def first_few(names: Sequence[str], most: int = 5) -> str:
    """ "a, b, c, d, e and 1,000 more"."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(map(printable, names[:most])) + more


def folder_labels(paths: list[tuple[str, ...]]) -> Labels:
    """The first folder of each path is its class, where all have one."""
    depths = [len(path) for path in paths]
    if max(depths) == 1:
        return None, (), []
    if min(depths) == 1:
        folders = first_few(sorted({path[0] for path in paths if len(path) > 1}, key=natural_key), 3)
        beside = [path for path in paths if len(path) == 1]
        lie = f"{counted(len(beside), 'image')} ({_places(beside)}) beside the subfolders ({folders})"
        advice = "To train with classes, move every image into a subfolder"
        return None, (), [f"warning: {lie}: all {len(paths):,} packed without class labels. {advice}."]
    labels, classes, notes = class_labels([path[0] for path in paths], "the subfolders")
    if splits := [name for name in classes if split_named(name)]:
        named = f"{' and '.join(splits)} {'is' if len(splits) == 1 else 'are'}"
        notes.append(f"warning: {named} taken for a class, not for a split: no other split lies beside it.")
    return labels, classes, notes


def class_labels(names: list[str], origin: str) -> Labels:
    """The labels of images whose classes have these names; classes are in natural order."""
    names = [unicodedata.normalize("NFC", name) for name in names]  # macOS takes accents apart
    known = sorted(set(names), key=natural_key)
    label_of = {name: label for label, name in enumerate(known)}
    classes = tuple(map(printable, known))
    note = f"{len(classes)} classes from {origin}: {first_few(classes, 10)}."
    return np.array([label_of[name] for name in names], np.int64), classes, [note]


def ignored(others: Counter[str]) -> list[str]:
    """Note the files that are no images, counted by suffix."""
    unread, lacking = list[str](), lacking_suffixes()
    for remedy in sorted({lacking[suffix] for suffix in others.keys() & lacking}):
        kinds = Counter({suffix: count for suffix, count in others.items() if lacking.get(suffix) == remedy})
        others = others - kinds
        unread.append(f"Left out {counted(kinds.total(), 'image')} ({listed(kinds)}); to read such files: {remedy}")
    return [*unread, *([f"Ignored {counted(others.total(), 'other file')} ({listed(others)})."] if others else [])]


def counted(number: int, noun: str) -> str:
    """Format a count, as in "1,000 images" or "1 image"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(others: Counter[str]) -> str:
    return ", ".join(suffix for suffix, _ in others.most_common(5))


def found_instead(others: Counter[str]) -> str:
    """The end of the sentence "... holds no image": what was found instead."""
    if not others:
        return ": it is empty"
    if others.keys() & lacking_suffixes():
        return f". {' '.join(ignored(others))}"
    archive = next((suffix for suffix in others if suffix in ARCHIVES), None)
    hint = f"; an archive is a source of its own: name the {archive} file" if archive else ""
    return f" that Pillow can open: it has {counted(sum(others.values()), 'other file')} ({listed(others)}){hint}"
