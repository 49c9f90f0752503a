"""Progress with rate and ETA: a live line on a terminal, plain lines now and then elsewhere."""

import sys
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from ..threads import follow_load

if TYPE_CHECKING:
    from rich.live import Live

PLAIN_SECONDS = 10.0  # between lines when the output is not a terminal
SETTLED = 2.0  # seconds over which a rate is measured before an ETA is made of it
WINDOW = 60.0  # seconds over which the rate is measured


class Progress:
    """with Progress("train", total, "images") as progress: progress.update(done, "loss 0.03")"""

    def __init__(
        self,
        what: str,
        total: int,
        unit: str = "images",
        start: int = 0,
        stream: TextIO | None = None,
        limit: tuple[float, float] | None = None,
    ):
        """limit: when work that has so many seconds began, by time.monotonic(), and how many; the line goes by them."""
        self.limit = limit
        self.what, self.total, self.unit = what, total, unit
        self.stream = stream or sys.stderr
        self.recent = deque([(time.monotonic(), start)])
        self.live: Live | None = None
        self.kept = ""  # of the work so far, which an interruption takes along to the last line of the command
        self.printed, self.ended = time.monotonic(), False

    def __enter__(self) -> "Progress":
        if self.stream.isatty():
            from rich.console import Console
            from rich.live import Live as RichLive

            self.live = RichLive(console=Console(file=self.stream), refresh_per_second=5, transient=True)
            self.live.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.live is not None:
            self.live.stop()
        if self.kept and isinstance(error, KeyboardInterrupt):
            error.add_note(self.kept)

    def update(self, done: int, note: str = "") -> None:
        """Count and show that `done` of the total is done."""
        self.count(done)
        self.show(note)

    def part(self) -> Callable[[int, int], None]:
        """What counts a part of the work from 0, as (done, total of the part), beside what was done before it."""
        before = self.recent[-1][1]
        return lambda done, total: self.update(before + done)

    def count(self, done: int) -> None:
        """Take note that `done` of the total is done, and of when."""
        follow_load()  # here, since all long work comes by
        now = time.monotonic()
        self.recent.append((now, done))
        while now - self.recent[0][0] > WINDOW and len(self.recent) > 2:
            self.recent.popleft()

    def show(self, note: str = "") -> None:
        """Draw the line. Plain lines come every 10 seconds and, once, at the end."""
        now, done = self.recent[-1]
        if self.live is not None:
            from rich.text import Text

            self.live.update(Text(self.line(done, note)))
        elif now - self.printed >= PLAIN_SECONDS or (done >= self.total and not self.ended):
            self.printed, self.ended = now, done >= self.total
            self.say(self.line(done, note))

    def say(self, text: str) -> None:
        """Print a line for good, above the live one."""
        if self.live is not None:
            self.live.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=self.stream, flush=True)

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

    def line(self, done: int, note: str = "") -> str:
        rate = f"{self.rate:,.1f} {self.unit}/s" if self.rate else ""
        if self.limit is not None:
            began, seconds = self.limit
            passed = min(time.monotonic() - began, seconds)
            shown = f"{self.what}  {duration(passed)} of {duration(seconds)} {100 * passed / seconds:.0f}%"
            eta = f"ETA {duration(seconds - passed)}" if done < self.total else ""
            return "  ".join(part for part in (shown, f"{done:,} {self.unit}", rate, eta, note) if part)
        eta = f"ETA {duration((self.total - done) / self.rate)}" if self.settled and done < self.total else ""
        counted = f"{done:,}/{self.total:,} {self.unit} {100 * done // max(self.total, 1)}%"
        return "  ".join(part for part in (f"{self.what}  {counted}", rate, eta, note) if part)


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
