"""Training in processes of their own, forked from one that has imported everything: they start in no time."""

import multiprocessing
import os
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from torch.distributed import TCPStore

from tests.tiny import cli

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["bytepixels.training.trainer", "bytepixels.training.session", "torch._dynamo", "tyro", "PIL.Image"]
)
PATIENCE = 600  # seconds
REMOVALS = {"os.remove", "os.rmdir"}
TOUCHES = REMOVALS | {"os.rename", "os.mkdir", "open"}


def child(said, at, words, before=None):
    """What a process does: one command line. `at`: (folder, count, signals): these come at that touch of the folder."""
    output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a script starts in the background
    if at is not None:
        strike_at(*at)
    if before is not None:
        before()
    code = cli(*words)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])  # what comes now meets Python's own end
    sys.exit(code)


def strike_at(folder, count, signals):
    """Send ourselves signals just before a folder is touched for the count-th time; None only tells of each touch."""
    seen, folder = 0, os.fspath(folder)

    def hook(event, arguments):
        nonlocal seen
        if event not in TOUCHES or not isinstance(arguments[0], str | Path):
            return
        inside = event in REMOVALS and arguments[1] != -1  # by name, within a folder that is open
        if inside or os.fspath(arguments[0]).startswith(folder):
            if count is None:
                os.write(1, f"touch: {event} {arguments[0]}\n".encode())
            elif seen == count:
                os.write(1, f"struck: {event} {arguments[0]}\n".encode())
                for number in signals:
                    os.kill(os.getpid(), number)
            seen += 1

    sys.addaudithook(hook)


def empty_cache(path):
    """For `before`: nothing has been packed yet."""
    os.environ["BYTEPIXELS_CACHE"] = str(path)


def touches(scratch, folder, *words, before=None):
    """How often a command touches a folder."""
    code, text = run_in_process(scratch, *words, at=(folder, None, ()), before=before)
    assert code == 0, text
    return text.count("touch: ")


class Training:
    """with Training(folder, *words) as process: a bytepixels command in a process of its own."""

    def __init__(self, folder, *words, at=None, before=None):
        self.said = folder / "said.txt"
        words = [str(word) for word in words]
        self.process = FORKS.Process(target=child, args=(self.said, at, words, before))
        self.process.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.join()

    def send(self, number):
        os.kill(self.process.pid, number)

    def wait(self):
        """The exit code; minus the signal's number where that ended it."""
        self.process.join(PATIENCE)
        if self.process.exitcode is None:
            pytest.fail(f"it hangs: {self.text}")
        return self.process.exitcode

    def kill(self):
        self.send(signal.SIGKILL)
        return self.wait()

    def until(self, condition):
        """Wait until something is so, at most PATIENCE seconds, as long as the process lives."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert self.process.is_alive(), self.text
            assert time.monotonic() < deadline, self.text
            time.sleep(0.001)

    @property
    def text(self):
        return self.said.read_text(errors="replace")


def run_in_process(folder, *words, at=None, before=None):
    """(exit code, what was said) of a command in a process of its own."""
    with Training(folder, *words, at=at, before=before) as process:
        return process.wait(), process.text


def as_worker(variables, before):
    """For `before`: one of the processes that torchrun would have started."""
    os.environ |= variables
    if before is not None:
        before()


def as_torchrun(size, rank, port):
    """What torchrun would have said to this process; it meets the others in a store that is there already."""
    found = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "GROUP_WORLD_SIZE": 1}
    found |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    found |= {"TORCHELASTIC_USE_AGENT_STORE": True, "TORCHELASTIC_RESTART_COUNT": 0, "TORCHELASTIC_RUN_ID": "test"}
    return {name: str(value) for name, value in found.items()}


def open_store():
    """Where processes meet: on a port that is free, held until nobody refers to it."""
    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


def run_together(size, *words, before=None):
    """(exit codes, what all said) of one command line in several processes, as by torchrun but without its start.

    `before`: called in each first, where RANK is set.
    """
    store = open_store()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        workers = []
        for rank in range(size):
            own = Path(folder, str(rank))
            own.mkdir()
            here = partial(as_worker, as_torchrun(size, rank, store.port), before)
            workers.append(stack.enter_context(Training(own, *words, before=here)))
        return [worker.wait() for worker in workers], "\n".join(worker.text for worker in workers)
