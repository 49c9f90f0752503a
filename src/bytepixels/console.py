"""Draw events in a terminal: a live progress line, or occasional plain lines where the output is no terminal."""

import sys
import time
from typing import TYPE_CHECKING, TextIO

from .events import Began, Event, Note, Progress, duration

if TYPE_CHECKING:
    from rich.live import Live

PLAIN_SECONDS = 10.0  # between lines when the output is not a terminal


class Console:
    """A listener that prints events: results to standard output, all else to `stream` (standard error)."""

    def __init__(self, stream: TextIO | None = None):
        self.stream = stream
        self.live: Live | None = None
        self.what, self.printed, self.ended = (
            "",
            0.0,
            False,
        )  # the work at hand, its last line, its end

    def __call__(self, event: Event) -> None:
        """Print one event."""
        if isinstance(event, Note):
            self.say(event)
        elif isinstance(event, Progress):
            self.show(event)
        else:
            self.close()
            if isinstance(event, Began):
                self.open()

    def open(self) -> None:
        """Begin a progress line; on a terminal a live one."""
        self.printed, self.ended = time.monotonic(), False
        if self.err.isatty():
            from rich.console import Console as RichConsole
            from rich.live import Live as RichLive

            self.live = RichLive(console=RichConsole(file=self.err), refresh_per_second=5, transient=True)
            self.live.start()

    def close(self) -> None:
        """Remove the live progress line."""
        if self.live is not None:
            self.live.stop()
            self.live = None

    def say(self, note: Note) -> None:
        """Print a permanent line above the live one."""
        if note.aside and self.live is not None:
            self.live.console.print(note.text, markup=False, highlight=False)
        else:
            print(note.text, file=self.err if note.aside else sys.stdout, flush=note.aside)

    @property
    def err(self) -> TextIO:
        """The console for everything but results."""
        return self.stream or sys.stderr

    def show(self, event: Progress) -> None:
        """Redraw the progress line; without a terminal, print one every 10 seconds and at the end."""
        now = time.monotonic()
        if self.live is not None:
            from rich.text import Text

            self.live.update(Text(line_of(event)))
        elif now - self.printed >= PLAIN_SECONDS or (event.done >= event.total and not self.ended):
            self.printed, self.ended = now, event.done >= event.total
            print(line_of(event), file=self.err, flush=True)


def line_of(event: Progress) -> str:
    """Format progress as one line."""
    rate = f"{event.rate:,.1f} {event.unit}/s" if event.rate else ""
    eta = "" if event.eta is None else f"ETA {duration(event.eta)}"
    if event.passed is not None:
        passed, seconds = event.passed
        shown = f"{event.what}  {duration(passed)} of {duration(seconds)} {100 * passed / seconds:.0f}%"
        return "  ".join(part for part in (shown, f"{event.done:,} {event.unit}", rate, eta, event.note) if part)
    counted = f"{event.done:,}/{event.total:,} {event.unit} {100 * event.done // max(event.total, 1)}%"
    return "  ".join(part for part in (f"{event.what}  {counted}", rate, eta, event.note) if part)
