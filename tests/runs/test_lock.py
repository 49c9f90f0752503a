"""The lock of a run: one process at a time, and none of them leaves it behind."""

import json
import os
import re
import socket
import subprocess
import sys

import pytest

from bytepixels.errors import InputError
from bytepixels.runs import lock as module
from bytepixels.runs.lock import RunLock, holder, in_use


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.05)


@pytest.fixture
def other(tmp_path):
    """Another process that has the lock."""
    code = """
import sys
from pathlib import Path
from bytepixels.runs.lock import RunLock
with RunLock(Path(sys.argv[1])) as lock:
    lock.take()
    print("taken", flush=True)
    sys.stdin.read()
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "taken\n"
            yield process
        finally:
            process.kill()


def take(path):
    with RunLock(path) as lock:
        lock.take()
        return lock.held


def test_the_second_is_told_who_the_first_is_and_a_killed_one_leaves_no_lock(tmp_path, other):
    said = rf"{re.escape(str(tmp_path))} is in use by process {other.pid} on {re.escape(socket.gethostname())} since 20"
    with pytest.raises(InputError, match=said + r"\d\d-\d\d-\d\d \d\d:\d\d:\d\d\S+; wait for it or stop it first$"):
        take(tmp_path)
    assert in_use(tmp_path)
    assert json.loads((tmp_path / ".lock-holder").read_text())["pid"] == other.pid  # the refused one left it alone
    other.kill()
    other.wait()
    assert not in_use(tmp_path)
    assert take(tmp_path)


def test_one_that_ends_leaves_no_lock(tmp_path, other):
    other.communicate("")
    assert not in_use(tmp_path)
    assert not (tmp_path / ".lock-holder").exists()
    assert take(tmp_path)


def test_within_one_process(tmp_path):
    with RunLock(tmp_path) as lock:
        assert not lock.held
        lock.take()
        assert lock.held
        with pytest.raises(InputError, match=f"in use by process {os.getpid()} on"):
            take(tmp_path)
        assert lock.held
    assert not lock.held
    assert take(tmp_path)


def test_looking_writes_nothing_and_takes_nothing(tmp_path):
    assert not in_use(tmp_path)
    assert list(tmp_path.iterdir()) == []
    take(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert not in_use(tmp_path)
    assert sorted(tmp_path.iterdir()) == before
    assert take(tmp_path)


@pytest.mark.parametrize("content", ["", "{}", "[]", "\xff", '{"pid": 1}'])
def test_without_a_name_it_is_another_process(tmp_path, content):
    with RunLock(tmp_path) as lock:
        lock.take()
        (tmp_path / ".lock-holder").write_text(content)
        assert holder(tmp_path) == "another process"
        with pytest.raises(InputError, match="in use by another process; wait"):
            take(tmp_path)


def test_a_full_disk_costs_only_the_name(tmp_path, monkeypatch):
    (tmp_path / ".lock-holder").mkdir()  # so that it cannot be written
    assert take(tmp_path)
