"""Two processes on one run: the second is refused and told who the first is; to look and to draw needs no leave."""

import signal
import socket

import pytest

from .processes import Training
from .test_kills import assert_the_same, command, pictures  # noqa: F401 (a fixture)
from .verbs.tiny import checkpoints, cli, snapshot

ENDLESS = 10**6  # steps


def test_a_run_in_training(tmp_path, pictures, capsys):  # noqa: F811
    run, whole = tmp_path / "run", tmp_path / "whole"
    with Training(tmp_path, *command(pictures, run, ENDLESS), "--lr-decay", "none") as process:
        process.until(lambda: (run / "checkpoints").is_dir() and len(list(run.glob("checkpoints/step-*"))) == 2)
        capsys.readouterr()
        for refused in (command(pictures, run, ENDLESS), ["runs", "prune", run, "--keep", 1]):
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
    assert cli(*command(pictures, run, steps), "--lr-decay", "none") == 0
    assert cli(*command(pictures, whole, steps), "--lr-decay", "none") == 0
    assert_the_same(run, whole)


@pytest.mark.parametrize("others", [3])
def test_several_that_begin_one_run_at_once(tmp_path, pictures, others):  # noqa: F811
    run, homes = tmp_path / "run", [tmp_path / str(k) for k in range(others)]
    for home in homes:
        home.mkdir()
    trainings = [Training(home, *command(pictures, run, 40)) for home in homes]
    codes = [training.wait() for training in trainings]
    said = [training.text for training in trainings]
    assert codes.count(0) >= 1, said
    assert set(codes) <= {0, 2}, said
    for code, text in zip(codes, said, strict=True):
        assert "Traceback" not in text
        if code == 2:
            assert "is in use by" in text or "was begun by another process just now" in text
    assert cli(*command(pictures, tmp_path / "whole", 40)) == 0
    assert_the_same(run, tmp_path / "whole")
    assert all(snapshot(home).keys() == {"said.txt"} for home in homes)
