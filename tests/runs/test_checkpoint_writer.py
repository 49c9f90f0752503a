"""The writer: training waits for the copy alone, and no error and no checkpoint is lost."""

import subprocess
import sys
import threading
import time

import pytest
import torch

from bytepixels.events import Note, listening
from bytepixels.runs import checkpoint_writer as module
from bytepixels.runs.checkpoint_writer import Writer
from bytepixels.runs.checkpoints import check_files, list_checkpoints, read_state, read_tensors, save_checkpoint

ID = "0123456789abcdef0123456789abcdef"
PATIENCE = 600  # seconds, for what happens at once


def tensors(value):
    plain = torch.full((3, 4), float(value))
    last = torch.arange(360.0).reshape(2, 5, 6, 6).add_(value).to(memory_format=torch.channels_last)
    named = {"a.weight": torch.nn.Parameter(plain), "b": last, "step": torch.tensor(value)}
    return {stem: {name: tensor.clone() for name, tensor in named.items()} for stem in ("model", "ema", "optimizer")}


class Gate:
    """save_checkpoint that waits at a gate."""

    def __init__(self, monkeypatch):
        self.open, self.begun, self.error = threading.Event(), threading.Event(), None

        def save(*arguments):
            self.begun.set()
            assert self.open.wait(PATIENCE)
            if self.error is not None:
                raise self.error
            return save_checkpoint(*arguments)

        monkeypatch.setattr(module, "save_checkpoint", save)


@pytest.fixture
def gate(monkeypatch):
    return Gate(monkeypatch)


def names(folder):
    return [path.name for path in list_checkpoints(folder)]


def test_what_was_submitted_is_what_is_written_whatever_training_does_meanwhile(tmp_path, gate):
    state = tensors(1)
    with Writer(tmp_path, ID, 3) as writer:
        writer.submit(7, 70, state)
        assert gate.begun.wait(PATIENCE)
        for named in state.values():
            for tensor in named.values():
                tensor.data.zero_()
        assert names(tmp_path) == []
        gate.open.set()
    path = tmp_path / "step-00000007"
    found = read_state(path, ID)
    check_files(path, found)
    assert found["images"] == 70
    for stem, named in tensors(1).items():
        read = read_tensors(path, stem, found)
        assert read.keys() == named.keys()
        assert all(read[name].dtype == named[name].dtype and torch.equal(read[name], named[name]) for name in named)


def test_its_memory_is_used_again_without_mixing_what_it_holds(tmp_path):
    with Writer(tmp_path, ID, 3) as writer:
        for step in (1, 2, 3):
            writer.submit(step, step, tensors(step))
        grown = {"model": {"a.weight": torch.ones(9, 9, dtype=torch.bfloat16), "new": torch.ones(2)}}
        writer.submit(4, 4, grown)
    for step in (2, 3):
        path = tmp_path / f"step-{step:08d}"
        assert torch.equal(read_tensors(path, "ema", read_state(path, ID))["b"], tensors(step)["ema"]["b"])
    path = tmp_path / "step-00000004"
    last = read_tensors(path, "model", read_state(path, ID))
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in last.items()} == {
        "a.weight": ((9, 9), torch.bfloat16),
        "new": ((2,), torch.float32),
    }


def test_the_next_one_waits_for_the_one_before(tmp_path, gate):
    with Writer(tmp_path, ID, 3) as writer:
        writer.submit(1, 1, tensors(1))
        threading.Timer(0.3, gate.open.set).start()
        writer.submit(2, 2, tensors(2))
        assert gate.open.is_set()
        assert names(tmp_path)[0] == "step-00000001"
        writer.finish()
        assert names(tmp_path) == ["step-00000001", "step-00000002"]


def written(folder, then):
    """Submit step 1, then whatever comes, and leave."""
    with Writer(folder, ID, 3) as writer:
        writer.submit(1, 1, tensors(1))
        then(writer)


def check_until_told(writer):
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        writer.check()


CHANCES = {
    "check": check_until_told,
    "submit": lambda writer: writer.submit(2, 2, tensors(2)),
    "finish": lambda writer: writer.finish(),
    "the end": lambda writer: None,
}


@pytest.mark.parametrize("chance", CHANCES.values(), ids=CHANCES)
def test_an_error_is_raised_at_the_next_chance(tmp_path, gate, chance):
    gate.error = OSError("no room")
    gate.open.set()
    with pytest.raises(OSError, match="no room"):
        written(tmp_path, chance)
    assert names(tmp_path) == []


def test_an_error_is_raised_once(tmp_path, gate):
    writer = Writer(tmp_path, ID, 3)
    gate.error = OSError("no room")
    gate.open.set()
    writer.submit(1, 1, tensors(1))
    with pytest.raises(OSError, match="no room"):
        writer.finish()
    gate.error = None
    writer.submit(2, 2, tensors(2))
    writer.finish()
    assert names(tmp_path) == ["step-00000002"]


def fail(writer):
    raise RuntimeError("not finite")


def test_what_ends_the_training_does_not_end_the_write(tmp_path, gate):
    threading.Timer(0.2, gate.open.set).start()
    with pytest.raises(RuntimeError, match="not finite"):
        written(tmp_path, fail)
    assert names(tmp_path) == ["step-00000001"]


def test_two_errors_are_both_said(tmp_path, gate):
    gate.error, heard = OSError("no room"), []
    gate.open.set()
    with listening(heard.append), pytest.raises(RuntimeError, match="not finite"):
        written(tmp_path, fail)
    assert heard == [Note("warning: no room", aside=True)]


def test_a_second_ctrl_c_does_not_wait(tmp_path, gate):
    def interrupt(writer):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        written(tmp_path, interrupt)
    assert not gate.open.is_set()
    assert names(tmp_path) == []
    gate.open.set()


def test_a_write_that_hangs_keeps_no_process_alive(tmp_path):
    code = """
import sys, threading, torch
from bytepixels.events import Note, listening
from bytepixels.runs import checkpoint_writer as module
module.save_checkpoint = lambda *arguments: threading.Event().wait()
module.Writer(sys.argv[1], "id", 3).submit(1, 1, {"model": {"a": torch.ones(3)}})
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stderr) == (0, "")
