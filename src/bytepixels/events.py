"""Events of long work (Progress, Note, ...) and their listeners. Without a listener they are dropped.

A service says `note(text)` and counts in a `Work`; the command line draws what comes, a page or a notebook may do with
it what it likes. Each thread has its own listener, so that two trainings in one process do not mix.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType

from .threads import follow_load

SETTLED = 2.0  # seconds over which a rate is measured before an ETA is made of it
WINDOW = 60.0  # seconds over which the rate is measured


@dataclass(frozen=True)
class Progress:
    """The progress of long work."""

    what: str  # "train"
    unit: str  # of done and total, "images"
    done: int
    total: int
    rate: float  # units per second over the last minute, 0 while there is none
    eta: float | None  # seconds to go, where they are known
    passed: tuple[float, float] | None = None  # seconds since it began, and how many it has, where its time is limited
    note: str = ""


@dataclass(frozen=True)
class Note:
    """A sentence, or several lines that belong together."""

    text: str
    aside: bool = False  # it is about how the work goes, and no result of it


@dataclass(frozen=True)
class Began:
    """The begin of work that will report progress."""

    what: str


@dataclass(frozen=True)
class Ended:
    """The end of work that reported progress."""

    what: str


Event = Progress | Note | Began | Ended
Listener = Callable[[Event], None]
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Send every event of this block, in this thread, to `listener`."""
    before = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(before)


def heard() -> bool:
    """Whether this thread has a listener."""
    return _listener.get() is not None


def emit(event: Event) -> None:
    """Send an event to the listener, if there is one."""
    if (listener := _listener.get()) is not None:
        listener(event)


def say(*lines: object) -> None:
    """Emit a result; nothing if there are no lines."""
    if lines:
        emit(Note("\n".join(map(str, lines))))


def note(text: str) -> None:
    """Emit a remark on the progress of the work: a warning, a choice, where it resumes."""
    emit(Note(text, aside=True))


class Work:
    """Tracks progress and rate of long work: with Work("train", total) as work: work.update(done)."""

    def __init__(
        self, what: str, total: int, unit: str = "images", start: int = 0, limit: tuple[float, float] | None = None
    ):
        """limit: the start (time.monotonic()) and the seconds of work of limited time; progress is then in time."""
        self.what, self.total, self.unit, self.limit = what, total, unit, limit
        self.recent = deque([(time.monotonic(), start)])
        self.kept = ""  # of the work so far, which an interruption takes along to the last line of the command

    def __enter__(self) -> "Work":
        emit(Began(self.what))
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        emit(Ended(self.what))
        if self.kept and isinstance(error, KeyboardInterrupt):
            error.add_note(self.kept)

    def update(self, done: int, note: str = "") -> None:
        """Count `done` of the total, and show it."""
        self.count(done)
        self.show(note)

    def count(self, done: int) -> None:
        """Count `done` of the total, with the current time."""
        follow_load()  # here, since all long work comes by
        now = time.monotonic()
        self.recent.append((now, done))
        while now - self.recent[0][0] > WINDOW and len(self.recent) > 2:
            self.recent.popleft()

    def show(self, note: str = "") -> None:
        """Emit the current progress."""
        done, eta, passed = self.recent[-1][1], None, None
        if self.limit is not None:
            began, seconds = self.limit
            passed = min(time.monotonic() - began, seconds), seconds
            eta = passed[1] - passed[0]
        elif self.settled:
            eta = (self.total - done) / self.rate
        eta = eta if done < self.total else None
        emit(Progress(self.what, self.unit, done, self.total, self.rate, eta, passed, note))

    @property
    def rate(self) -> float:
        """Units per second over the last minute."""
        (t0, done0), (t1, done1) = self.recent[0], self.recent[-1]
        return (done1 - done0) / (t1 - t0) if t1 > t0 else 0.0

    @property
    def settled(self) -> bool:
        """Whether the rate is known well enough for an ETA."""
        return self.rate > 0 and self.recent[-1][0] - self.recent[0][0] >= SETTLED

    def pause(self) -> None:
        """Reset the rate: what comes next (a grid, a checkpoint) must not count."""
        self.recent = deque([(time.monotonic(), self.recent[-1][1])])


def duration(seconds: float) -> str:
    """Format seconds as h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
