"""Ctrl-C and SIGTERM: a training saves first, anything else unwinds what is under way."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from ..errors import Terminated


class StoppedError(Exception):
    """What is being drawn is not wanted any more."""


class Stop:
    """Remembers that the user pressed Ctrl-C or the system asked the process to end. A second time ends it at once."""

    signal: int = 0  # none yet

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.signal and "TORCHELASTIC_RUN_ID" not in os.environ:  # torchrun may pass on what was sent to all
            raise KeyboardInterrupt if number == signal.SIGINT else Terminated(number)
        self.signal = number

    def watch(self, step: int, x: object) -> None:
        """Between two steps of a sampler: raises StoppedError once we were asked to stop."""
        if self.signal:
            raise StoppedError


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """SIGINT, SIGTERM, and SIGHUP where nohup has not turned it off, are remembered instead of ending the process."""
    with _handled(stop := Stop(), [signal.SIGINT, *_endings()]):
        yield stop


@contextmanager
def unwind_on_sigterm() -> Iterator[None]:
    """SIGTERM and SIGHUP raise Terminated, as Ctrl-C raises KeyboardInterrupt: half a file goes, what is done is kept.

    Within `stop_on_signals` they are remembered instead.
    """

    def end(number: int, frame: FrameType | None) -> None:
        raise Terminated(number)

    if threading.current_thread() is not threading.main_thread():  # which alone may ask for signals
        yield
        return
    with _handled(end, _endings()):
        yield


def _endings() -> list[int]:
    """SIGTERM, and SIGHUP (the terminal closes) where there is one that nohup has not turned off."""
    hang_up = getattr(signal, "SIGHUP", None)
    return [signal.SIGTERM, *([] if hang_up is None or signal.getsignal(hang_up) == signal.SIG_IGN else [hang_up])]


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], None], numbers: list[int]) -> Iterator[None]:
    """Signals go to a handler until the end of the block."""
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


def interruption(error: BaseException | None) -> KeyboardInterrupt | None:
    """The Ctrl-C or SIGTERM at the bottom of an error: in the middle of an import it comes as an ImportError."""
    if error is None or isinstance(error, KeyboardInterrupt):
        return error
    return interruption(error.__cause__ or error.__context__)
