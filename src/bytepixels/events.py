"""What long work says as it goes, and who listens: Progress and Note. Without a listener all of it is dropped.

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
    """How far long work is."""

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
    """Work begins, of which there will be progress."""

    what: str


@dataclass(frozen=True)
class Ended:
    """There is no more progress of this work."""

    what: str


Event = Progress | Note | Began | Ended
Listener = Callable[[Event], None]
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Within it, and in this thread, `listener` is called with every event."""
    before = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(before)


def heard() -> bool:
    """Whether anybody listens in this thread."""
    return _listener.get() is not None


def emit(event: Event) -> None:
    """Hand an event to whoever listens."""
    if (listener := _listener.get()) is not None:
        listener(event)


def say(*lines: object) -> None:
    """A result, for whoever listens; nothing where there are no lines."""
    if lines:
        emit(Note("\n".join(map(str, lines))))


def note(text: str) -> None:
    """How the work goes: a warning, a choice, where it goes on from."""
    emit(Note(text, aside=True))


class Work:
    """Counts long work, measures its rate and says so: with Work("train", total) as work: work.update(done)."""

    def __init__(
        self, what: str, total: int, unit: str = "images", start: int = 0, limit: tuple[float, float] | None = None
    ):
        """limit: when work of limited time began, by time.monotonic(), and its seconds: it is measured by them."""
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
        """Count and show that `done` of the total is done."""
        self.count(done)
        self.show(note)

    def count(self, done: int) -> None:
        """Take note that `done` of the total is done, and of when."""
        follow_load()  # here, since all long work comes by
        now = time.monotonic()
        self.recent.append((now, done))
        while now - self.recent[0][0] > WINDOW and len(self.recent) > 2:
            self.recent.popleft()

    def show(self, note: str = "") -> None:
        """Say how far it is."""
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
        """Whether there is a rate that is worth something."""
        return self.rate > 0 and self.recent[-1][0] - self.recent[0][0] >= SETTLED

    def pause(self) -> None:
        """Forget the rate so far: what comes next (a grid, a checkpoint) is not the work that is being measured."""
        self.recent = deque([(time.monotonic(), self.recent[-1][1])])


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
