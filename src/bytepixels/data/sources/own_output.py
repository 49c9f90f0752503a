"""What this program wrote itself is no data: runs, and folders of samples, are left out of a source."""

import posixpath
from collections.abc import Callable, Sequence

from ...errors import InputError
from .folder_labels import counted, first_few, is_named

MARKS = ("config.json", ".config.json", "manifest.json")  # of a run, its spare copy, and of a folder of samples
_SIGNS = (b'"made_by"', b'"bytepixels"')


def without_own(names: Sequence[str], read: Callable[[int], bytes], source: str) -> tuple[Sequence[bool], list[str]]:
    """(whether each file lies outside of the runs and sample folders of this program, notes).

    names: of all files of a source, relative, with /. read: position -> content, called for MARKS alone. A folder of
    samples may be a source itself. Raises InputError where the whole source is a run.
    """
    marks = [index for index, name in enumerate(names) if is_named(name, MARKS)]
    found = {posixpath.dirname(names[i]): names[i] for i in marks if all(sign in read(i) for sign in _SIGNS)}
    if posixpath.basename(found.pop("", "manifest.json")) != "manifest.json":
        raise InputError(f"{source} is a run, which is no source of images; the images it drew lie in its samples/")
    if not found:
        return [True] * len(names), []
    kept = [not any(folder in found for folder in _above(name)) for name in names]
    tops = [folder for folder in sorted(found) if not any(above in found for above in _above(folder))]
    what = "that bytepixels wrote (runs and samples are no data)"
    return kept, [f"Left out {counted(len(tops), 'folder')} {what}: {first_few(tops)}."]


def _above(name: str) -> list[str]:
    """The folders that a file or folder lies in."""
    parts = name.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]
