"""Standard output and error that survive a closed reader: the rest of the output is dropped, the work goes on."""

import errno
import hashlib
import io
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

MINUTE = 60

GONE = {errno.EPIPE, errno.EIO, errno.ECONNRESET}  # the reader of a pipe, the terminal, the other end of a socket
if os.name == "nt":
    GONE.add(errno.EINVAL)  # what Windows says of a pipe without a reader


class _Unread(io.FileIO):
    """A file descriptor that switches to the null device once its reader has left."""

    def write(self, content: bytes, /) -> int:  # type: ignore[override]
        try:
            return super().write(content)
        except OSError as error:
            if error.errno not in GONE:
                raise
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())  # of the descriptor, so that it holds for what C code and children write
            os.close(nowhere)
            return len(content)


def said(lines: Iterable[str]) -> int:
    """Print each line of a verb's output as soon as it is known; returns the exit code, 0."""
    from ..events import say  # not at the top: the first page loads next to nothing

    for line in lines:
        say(line)
    return 0


@contextmanager
def unread_output_is_dropped() -> Iterator[None]:
    """Keep print() from failing when a pipe, terminal or socket is closed."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_guarded(stream) for stream in before)
    try:
        yield
    finally:
        for own, stream in zip((sys.stdout, sys.stderr), before, strict=True):
            if own is not stream:
                own.flush()
            if stream is None:
                own.close()
        sys.stdout, sys.stderr = before


def _guarded(stream: TextIO | None) -> TextIO:
    """The same stream over `_Unread`; the null device in place of a stream that was closed from the start."""
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")
    if not isinstance(stream, io.TextIOWrapper) or type(getattr(stream.buffer, "raw", stream.buffer)) is not io.FileIO:
        return stream  # a test's, a notebook's
    with suppress(OSError):
        stream.flush()
    raw: Any = _Unread(stream.fileno(), "wb", closefd=False)
    binary = raw if stream.write_through else io.BufferedWriter(raw)
    through = stream.write_through  # line by line, so that what is said keeps its order also in a file
    return io.TextIOWrapper(binary, stream.encoding, "backslashreplace", line_buffering=True, write_through=through)


def is_first_to_say(sentence: str) -> bool:
    """False if another process of this job on this machine has said the sentence in the last minute."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return True
    key = f"{os.getppid()} {os.environ.get('MASTER_PORT')} {sentence}"
    mark = Path(tempfile.gettempdir()) / f"bytepixels-said-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    with suppress(OSError):
        if time.time() - mark.stat().st_mtime > MINUTE:
            mark.unlink()
    try:
        mark.open("x").close()
    except FileExistsError:
        return False
    except OSError:  # rather twice than not at all
        return True
    return True
