"""Ctrl-C and SIGTERM: a training saves first, anything else unwinds what is under way."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from .errors import Terminated


class StoppedError(Exception):
    """What is being drawn is not wanted any more."""


class Stop:
    """Remembers that the user pressed Ctrl-C or the system asked the process to end. A second time ends it at once."""

    signal: int = 0  # none yet

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.signal and "TORCHELASTIC_RUN_ID" not in os.environ:  # torchrun may pass on what was sent to all
            raise Terminated if number == signal.SIGTERM else KeyboardInterrupt
        self.signal = number

    def watch(self, step: int, x: object) -> None:
        """Between two steps of a sampler: raises StoppedError once we were asked to stop."""
        if self.signal:
            raise StoppedError


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """SIGINT, SIGTERM, and SIGHUP where nohup has not turned it off, are remembered instead of ending the process."""
    stop, numbers = Stop(), [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)  # the terminal closes
    previous = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def unwind_on_sigterm() -> Iterator[None]:
    """SIGTERM raises Terminated, as Ctrl-C raises KeyboardInterrupt: half a file goes, what is done is kept."""

    def end(number: int, frame: FrameType | None) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():  # which alone may ask for signals
        yield
        return
    previous = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def interruption(error: BaseException | None) -> KeyboardInterrupt | None:
    """The Ctrl-C or SIGTERM at the bottom of an error: in the middle of an import it comes as an ImportError."""
    if error is None or isinstance(error, KeyboardInterrupt):
        return error
    return interruption(error.__cause__ or error.__context__)
