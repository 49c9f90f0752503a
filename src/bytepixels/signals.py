"""Handling of Ctrl-C and SIGTERM: training saves first, other work unwinds."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from .errors import Terminated
from .stopping import Stop


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Let SIGINT, SIGTERM and SIGHUP (unless nohup ignores it) ask for a stop; a second signal ends the process."""
    stop = Stop()

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.signal and "TORCHELASTIC_RUN_ID" not in os.environ:  # torchrun may pass on what was sent to all
            raise KeyboardInterrupt if number == signal.SIGINT else Terminated(number)
        stop.ask(number)

    with _handled(ask, [signal.SIGINT, *_endings()]):
        yield stop


@contextmanager
def unwind_on_sigterm() -> Iterator[None]:
    """Raise Terminated on SIGTERM and SIGHUP, as Ctrl-C raises KeyboardInterrupt, so that partial files are removed.

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
    """SIGTERM, and SIGHUP (the terminal closes) if it exists and nohup does not ignore it."""
    hang_up = getattr(signal, "SIGHUP", None)
    return [signal.SIGTERM, *([] if hang_up is None or signal.getsignal(hang_up) == signal.SIG_IGN else [hang_up])]


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], None], numbers: list[int]) -> Iterator[None]:
    """Install a signal handler for the block."""
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


def interruption(error: BaseException | None) -> KeyboardInterrupt | None:
    """The Ctrl-C or SIGTERM at the root of an error: during an import it surfaces as an ImportError."""
    if error is None or isinstance(error, KeyboardInterrupt):
        return error
    return interruption(error.__cause__ or error.__context__)
