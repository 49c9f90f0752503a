"""From a source to a finished pack: every image once, by threads and by as many processes as there are."""

import hashlib
import io
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from ..wording import many
from .layout import find_layout
from .notes import COMPOSED, DARK, ENLARGED, RESHAPED, HopelessError, named, notes_of, refusal
from .pack_writer import DONE, Draft, Progress, word
from .packed import FORMAT, Packed, captions_file, open_packed
from .parallel import Unreadable, together
from .rows import Rows
from .settings import Settings
from .sources.decode import is_dark, quiet_pillow, to_pixels
from .sources.fit import Layout
from .sources.folder_labels import printable
from .sources.source import Pictures, Source


@dataclass(frozen=True)
class _Job:
    """A pack that is to be made, once it is known what there is and what it will look like."""

    draft: Draft
    source: Source
    settings: Settings
    pictures: Pictures
    layout: Layout
    notes: list[str]
    words: np.ndarray  # uint64 [N], one for each image: 0 until its row is written
    rows: Rows


def make(path: Path, source: Source, settings: Settings, strict: bool, progress: Progress | None) -> Packed:
    """The pack at `path`, made together with other processes that make the same, or taken up where it was left."""
    draft, notes = Draft(path, "images.npy", open_packed), list[str]()
    progress = progress or (lambda done, total: None)
    before = draft.done()

    def fill() -> None:
        with draft.alone(progress) if source.alone else nullcontext(True) as ours:
            if ours:
                kept = min(before, draft.done())  # a process that gave up may have removed them
                notes.extend(_fill(draft, source, settings, strict, progress, kept))

    packed = draft.completed(fill)
    return replace(packed, notes=(*packed.notes, *notes))


def _fill(draft: Draft, source: Source, settings: Settings, strict: bool, progress: Progress, before: int) -> list[str]:
    """Fill draft.whole; returns what there is to say of a draft that was taken up with `before` images."""
    pictures = source.read()
    total = len(pictures.names)
    with quiet_pillow():
        layout, notes = find_layout(draft, pictures, settings)
        with draft.lock("seal"):  # a row file that is sealed is not touched any more
            if draft.made():
                return []
            words = draft.words("rows", total)
            _check_space(draft, int(np.count_nonzero(words == 0)), layout)
            rows = draft.rows((total, layout.channels, layout.height, layout.width))
        job = _Job(draft, source, settings, pictures, layout, notes, words, rows)
        sealed = False
        while not sealed:  # more than once only where rows were damaged
            _decode(job, strict, progress)
            with draft.lock("seal"):
                sealed = draft.made() or _seal(job)
    if not before:
        return []
    return [f"{before:,} of {total:,} images lay packed already when this command began: it went on from there."]


def _check_space(draft: Draft, count: int, layout: Layout) -> None:
    pictures = f"{count:,} images of {layout.height} x {layout.width}"
    draft.check_space(count * layout.channels * layout.height * layout.width, pictures, "ask for a smaller size")


def _decode(job: _Job, strict: bool, progress: Progress) -> None:
    """Write the row, then the word, of every image that has none."""
    words, total, done = job.words, len(job.words), 0

    def look_up() -> None:
        nonlocal done
        job.rows.close()  # another process may be about to move it: Windows moves nothing that is open
        done = int(np.count_nonzero(words))
        if done:
            progress(done, total)

    look_up()
    work = partial(_row, layout=job.layout)
    try:
        made = together(words, job.pictures.parts, work, job.draft.folder, job.rows.row_bytes, look_up)
        with closing(made) as results:
            for position, result in results:
                if not isinstance(result, Unreadable):
                    word_, row = result
                    job.rows.write(position, row)
                    words[position] = word_
                elif strict:
                    raise refusal(job.source, job.pictures.names[position], result)
                else:
                    words[position] = job.draft.skip(position, printable(result))
                done += 1
                progress(done, total)
    finally:
        job.rows.close()


def _row(image: Image.Image, layout: Layout) -> tuple[int, bytes]:
    """An image's word and row."""
    decoded = to_pixels(image, layout)
    row = decoded.pixels.tobytes()
    dark = is_dark(decoded.pixels)
    bits = DONE | DARK * dark | COMPOSED * decoded.composed | RESHAPED * decoded.reshaped | ENLARGED * decoded.enlarged
    return word(bits, row), row


def _seal(job: _Job) -> bool:
    """Make draft.whole whole; False where rows turn out to be damaged, which then count as not done."""
    names = job.pictures.names
    skipped = job.draft.skipped(job.words)
    if len(skipped) == len(names):
        raise HopelessError(f"{job.source.name} holds no readable image: {named(skipped, names)}")
    images = job.draft.seal(job.words, job.rows, skipped) if job.words.all() else None
    if images is None:
        return False
    sums, beside = {"images": images}, dict[str, bytes]()
    labels, classes, lost = _labels_left(job.pictures, list(skipped))
    if labels is not None:
        np.save(file := io.BytesIO(), labels)
        beside["labels.npy"] = file.getvalue()
        sums["labels"] = hashlib.sha256(file.getvalue()).hexdigest()
    beside |= captions_file(job.pictures.captions, skipped)
    meta = {
        "format": FORMAT,
        "source": job.source.name,
        "source_key": job.source.key,
        "settings": asdict(job.settings),
        "count": len(names) - len(skipped),
        "size": [job.layout.height, job.layout.width],
        "channels": job.layout.channels,
        "classes": classes,
        "skipped": [(names[position], reason) for position, reason in skipped.items()],
        "notes": [*job.pictures.notes, *job.notes, *notes_of(job.words, job.layout, skipped, names), *lost],
        "sha256": sums,
    }
    job.draft.finish(meta, beside)
    return True


def _labels_left(pictures: Pictures, skipped: list[int]) -> tuple[np.ndarray | None, tuple[str, ...], list[str]]:
    """(labels, classes, notes) without the skipped images, and without the classes that lose their last one by it."""
    if pictures.labels is None:
        return None, pictures.classes, []
    labels, count = np.delete(pictures.labels, skipped), len(pictures.classes)
    lost = (np.bincount(pictures.labels, minlength=count) > 0) & (np.bincount(labels, minlength=count) == 0)
    if not lost.any():
        return labels, pictures.classes, []
    gone = [name for name, is_lost in zip(pictures.classes, lost, strict=True) if is_lost]
    classes = tuple(name for name, is_lost in zip(pictures.classes, lost, strict=True) if not is_lost)
    shown = ", ".join(gone[:10]) + (f" and {len(gone) - 10:,} more" if len(gone) > 10 else "")
    left_out = f"left out {many(len(gone), 'class', 'classes')} without a readable image"
    note = f"warning: {left_out}: {shown}; {len(classes):,} remain."
    return (np.cumsum(~lost) - 1)[labels].astype(np.int64), classes, [note]
