"""A lock that lets one process at a time work on a run; the system releases it when the process ends."""

import json
import os
import socket
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from ..errors import InputError

NAME = ".lock"  # stays in the run: whoever removed it while another waits for it would let two in
HOLDER = ".lock-holder"  # who has it, in JSON; without meaning when nobody has
PATIENCE = 1.0  # seconds: `runs list` may be looking whether a run is being trained


class RunLock:
    """The lock of a run: with RunLock(path) as lock: lock.take(). It is released at the end of the block or process."""

    def __init__(self, run: Path):
        self.run = run
        self._lock = FileLock(run / NAME)

    def __enter__(self) -> "RunLock":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.held:
            with suppress(OSError):
                (self.run / HOLDER).unlink()
            self._lock.release()

    @property
    def held(self) -> bool:
        """True while this process holds the lock."""
        return self._lock.is_locked

    def take(self) -> None:
        """Take the lock. InputError, naming the process, if another holds it. The run's folder must exist."""
        try:
            self._lock.acquire(timeout=PATIENCE)
        except Timeout as error:
            raise InputError(f"{self.run} is in use by {holder(self.run)}; wait for it or stop it first") from error
        since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        with suppress(OSError):  # a full disk: only the name is missing then
            (self.run / HOLDER).write_text(
                json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since})
            )


def in_use(run: Path) -> bool:
    """True if a process is working on the run now; nothing is written."""
    if not (run / NAME).is_file():
        return False
    lock = FileLock(run / NAME)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    except OSError:  # somebody else's file
        return (run / HOLDER).is_file()
    lock.release()
    return False


def holder(run: Path) -> str:
    """Describe the process that holds the lock."""
    try:
        said = json.loads((run / HOLDER).read_text(encoding="utf-8"))
        return f"process {said['pid']} on {said['host']} since {said['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
