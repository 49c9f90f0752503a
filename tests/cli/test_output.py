"""Output whose reader has left: it is dropped, the work goes on to its end, and the exit code is the work's."""

import io
import os
import signal
import subprocess
import sys

import pytest

from bytepixels.events import Work
from bytepixels.verbs import VERBS
from tests.tiny import checkpoints, cli, train, verb_that


@pytest.fixture
def unread(monkeypatch):
    """A text stream, by name, into a pipe that nobody reads, in the place of sys.stdout or sys.stderr."""
    ends = []

    def install(*names, unbuffered=False):
        for name in names:
            reader, writer = os.pipe()
            os.close(reader)
            ends.append(writer)
            raw = io.FileIO(writer, "wb", closefd=False)
            binary = raw if unbuffered else io.BufferedWriter(raw)
            stream = io.TextIOWrapper(binary, "ascii", line_buffering=name == "stderr", write_through=unbuffered)
            monkeypatch.setattr(sys, name, stream)

    yield install
    monkeypatch.undo()
    for end in ends:
        os.close(end)


@pytest.mark.parametrize("unbuffered", [False, True])
def test_a_training_that_nobody_reads_goes_on_to_its_end(tmp_path, unread, unbuffered):
    unread("stdout", "stderr", unbuffered=unbuffered)
    assert train(tmp_path / "run", "--previews", 1, steps=3) == 0
    assert [one.name for one in checkpoints(tmp_path / "run")] == ["step-00000003"]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_goes_on_with_its_own_exit_code(monkeypatch, unread, verb):
    """Whatever it says, in lines or bytes, to both streams, and however often."""
    reached = []

    def says():
        for _ in range(3):
            print("x" * 100_000, flush=True)
            print("é\U0001f600", file=sys.stderr)
            with Work(verb, 2) as work:
                work.update(2)
            os.write(sys.stdout.fileno(), b"as C code does") if reached else None
            reached.append(len(reached))
        return 7

    monkeypatch.setitem(VERBS, verb, verb_that(says))
    unread("stdout", "stderr")
    assert cli(*verb.split()) == 7
    assert reached == [0, 1, 2]


def test_a_mistake_is_a_mistake_though_nobody_reads_it(unread):
    unread("stderr")
    assert cli("sample", "/nowhere") == 2


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
def test_a_terminal_that_closes_unwinds_what_is_under_way(monkeypatch, capsys):
    monkeypatch.setitem(VERBS, "sample", verb_that(lambda: os.kill(os.getpid(), signal.SIGHUP)))
    previous = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        assert cli("sample") == 129
    finally:
        signal.signal(signal.SIGHUP, previous)
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["train", "--help"]])
def test_help_that_nobody_reads(words):
    """bytepixels --help | head -1"""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-m", "bytepixels", *words], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_streams_that_were_closed_from_the_start(tmp_path, monkeypatch):
    """bytepixels train ... >&- 2>&-"""
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert train(tmp_path / "run") == 0
    assert sys.stdout is None
    assert sys.stderr is None


def test_what_is_read_arrives_whole_and_other_errors_are_told(monkeypatch):
    reader, writer = os.pipe()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.FileIO(writer, "wb"), "ascii", write_through=True))
    monkeypatch.setitem(VERBS, "verify", verb_that(lambda: print("caf\xe9") or 0))
    assert cli("verify") == 0
    assert os.read(reader, 100) == b"caf\\xe9" + os.linesep.encode()
    monkeypatch.undo()
    os.close(reader)


def test_a_pipe_that_breaks_elsewhere_is_a_failure(monkeypatch, capsys):
    def broken():
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setitem(VERBS, "verify", verb_that(broken))
    assert cli("verify") == 1
    assert "Broken pipe" in capsys.readouterr().err
