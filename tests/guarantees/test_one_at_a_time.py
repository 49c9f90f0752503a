"""Two processes on one run: the second is refused and told who the first is; to look and to draw needs no leave."""

import signal
import socket

import pytest

from bytepixels.training import session as train_verb
from tests.guarantees.test_kills import assert_the_same, command, images  # noqa: F401 (a fixture)
from tests.processes import Training, run_in_process
from tests.tiny import checkpoints, cli, snapshot

ENDLESS = 10**6  # steps


@pytest.mark.slow
def test_a_run_in_training(tmp_path, images, capsys):  # noqa: F811
    run, whole = tmp_path / "run", tmp_path / "whole"
    with Training(tmp_path, *command(images, run, ENDLESS), "--lr-decay", "none") as process:
        process.until(lambda: (run / "checkpoints").is_dir() and len(list(run.glob("checkpoints/step-*"))) == 2)
        capsys.readouterr()
        for refused in (command(images, run, ENDLESS), ["runs", "prune", run, "--keep", 1]):
            assert cli(*refused) == 2
            error = capsys.readouterr().err
            who = f"{run} is in use by process {process.process.pid} on {socket.gethostname()} since 20"
            assert error.startswith(f"bytepixels: {who}")
            assert error.count("\n") == 1
        assert cli("runs", "list", tmp_path) == 0
        assert "training now" in capsys.readouterr().out
        assert cli("runs", "show", run) == 0
        assert "training now: process" in capsys.readouterr().out
        process.send(signal.SIGSTOP)  # else its checkpoints come and go faster than one is read
        assert cli("sample", run, "-n", 1, "--out", tmp_path / "drawn") == 0
        process.send(signal.SIGCONT)
        assert process.kill() == -signal.SIGKILL
    assert cli("runs", "list", tmp_path) == 0
    assert "training now" not in capsys.readouterr().out
    steps = int(checkpoints(run)[-1].name[5:]) + 2
    assert cli("runs", "prune", run, "--keep", 1) == 0  # a killed process left no lock
    assert cli(*command(images, run, steps), "--lr-decay", "none") == 0
    assert cli(*command(images, whole, steps), "--lr-decay", "none") == 0
    assert_the_same(run, whole)


def test_a_run_that_another_process_began_and_ended_in_between(tmp_path, images, monkeypatch, capsys):  # noqa: F811
    """Between the look whether there is a run and the lock of a new one."""
    run, build = tmp_path / "run", train_verb.Trainer

    def build_late(*arguments):
        mine = build(*arguments)
        assert run_in_process(tmp_path, *command(images, run, 2))[0] == 0
        return mine

    monkeypatch.setattr(train_verb, "Trainer", build_late)
    assert cli(*command(images, run, 5)) == 2
    assert f"{run} was begun by another process just now; the same command goes on with it" in capsys.readouterr().err
    assert [path.name for path in checkpoints(run)] == ["step-00000001", "step-00000002"]
    monkeypatch.setattr(train_verb, "Trainer", build)
    assert cli(*command(images, run, 5)) == 0


def test_several_that_begin_one_run_at_once(tmp_path, images):  # noqa: F811
    run, homes = tmp_path / "run", [tmp_path / str(k) for k in range(3)]
    for home in homes:
        home.mkdir()
    trainings = [Training(home, *command(images, run, 40)) for home in homes]
    codes = [training.wait() for training in trainings]
    said = [training.text for training in trainings]
    assert codes.count(0) >= 1, said
    assert set(codes) <= {0, 2}, said
    for code, text in zip(codes, said, strict=True):
        assert "Traceback" not in text
        if code == 2:
            assert "is in use by" in text or "was begun by another process just now" in text
    assert cli(*command(images, tmp_path / "whole", 40)) == 0
    assert_the_same(run, tmp_path / "whole")
    assert all(snapshot(home).keys() == {"said.txt"} for home in homes)
