"""Read class labels from a table beside the images: labels.csv, or a column `label` of metadata.csv.

The first column of labels.csv names an image, with or without its suffix; the second its class. A first row that names
none is a header.
"""

import csv
import io
import posixpath
from collections.abc import Callable, Sequence

from ...errors import InputError
from .captions import METADATA, NAME, decoded
from .folder_labels import Labels, class_labels, clean_name, is_image, is_named, printable

LABELS, LABEL = "labels.csv", "label"
TABLE = METADATA[0]


def table_labels(
    names: Sequence[str], order: Sequence[int], read: Callable[[int], bytes], source: str
) -> Labels | None:
    """The labels that such tables give the images; None where there is no table, or one without labels.

    names: of all files of a source, relative, with /. order: positions of the images. read: position -> content, called
    for the tables alone. Raises InputError for an image that they give no label.
    """
    known = dict[str, str]()  # by an image's name without its suffix
    tables = [index for index, name in enumerate(names) if is_named(name, (LABELS, TABLE))]
    stems = {posixpath.splitext(name)[0] for name in names if is_image(name)}
    for index in tables:
        folder = posixpath.dirname(names[index])
        for name, label in _rows(names[index], decoded(read(index))):
            path = clean_name(f"{folder}/{name}".replace("\\", "/"))
            known[posixpath.splitext(path)[0] if is_image(path) else path] = label
    known = {stem: label for stem, label in known.items() if stem in stems and label}
    if not known:
        return None
    said = " and ".join(printable(names[index]) for index in tables)
    kept = [posixpath.splitext(names[index])[0] for index in order]
    if lacking := [names[index] for index, stem in zip(order, kept, strict=True) if stem not in known]:
        first = printable(lacking[0])
        raise InputError(f"{source}: {said} gives {len(lacking):,} images no label, the first is {first}")
    return class_labels([known[stem] for stem in kept], said)


def _rows(name: str, text: str) -> list[tuple[str, str]]:
    """The name and the class in each row; none where the table has no labels."""
    try:
        rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except csv.Error:
        return []
    columns = (0, 1)
    if posixpath.basename(name) == TABLE:
        if not rows or NAME not in rows[0] or LABEL not in rows[0]:
            return []
        columns = (rows[0].index(NAME), rows[0].index(LABEL))
    return [(row[columns[0]], row[columns[1]]) for row in rows if len(row) > max(columns)]
