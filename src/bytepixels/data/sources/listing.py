"""From the files of a folder or an archive to the images in it, with all that other files there say of them."""

from collections.abc import Callable, Sequence

from .captions import MAX_TEXT_BYTES, TEXT, captions_of, is_metadata, texts_beside
from .dataset_json import DATASET, json_labels
from .folder_labels import arrange, is_hidden, is_named
from .label_table import LABELS, table_labels
from .own_output import MARKS, without_own
from .source import Chunk, ImageList

TABLES = (DATASET, LABELS)
FACTS = (*TABLES, *MARKS)  # names of files that say something of the images beside them, beside metadata and texts


def says_something(name: str, size: int = 0) -> bool:
    """Whether a file may say something of the images beside it, by its name and its size in bytes."""
    return (
        is_named(name, FACTS)
        or is_metadata(name)
        or (name.endswith(TEXT) and not is_hidden(name) and size <= MAX_TEXT_BYTES)
    )


def list_images(
    names: Sequence[str],
    split: str,
    source: str,
    read: Callable[[int], bytes],
    parts: Callable[[list[int]], list[Chunk]],
    notes: Sequence[str] = (),
) -> ImageList:
    """The images of one split in their order, with labels and captions.

    names: of all files of the source, relative, with /; "" for what is no file. read: position -> content, called for
    files of which `says_something` is true, and for larger texts, for which it may be empty. parts: how the images at
    these positions are read, in this order. notes: what there is to say of the source before. Raises InputError where
    there is no image, or no such split.
    """
    outside, own_notes = without_own(names, read, source)
    names = [name if is_outside else "" for name, is_outside in zip(names, outside, strict=True)]
    told = {name for name in names if is_metadata(name)}
    texts = set() if told else {names[index] for index in texts_beside(names).values()}
    order, found, found_notes = arrange(names, split, source, {*TABLES, *told, *texts})
    labels, classes, class_notes = (
        json_labels(names, order, read, source) or table_labels(names, order, read, source) or found
    )
    captions, caption_notes = captions_of(names, order, read)
    notes = (*notes, *own_notes, *found_notes, *class_notes, *caption_notes)
    return ImageList([names[index] for index in order], parts(order), labels, classes, notes, captions)
