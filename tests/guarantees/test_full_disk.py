"""A full disk stops training with one sentence; the run is intact, and goes on once there is room."""

import resource
import shutil
import subprocess
import tempfile
from functools import partial

import pytest

from tests.guarantees.test_kills import assert_the_same
from tests.processes import run_in_process
from tests.tiny import STEP, TINY, checkpoints, cli, snapshot, words

STEPS = 7
FLAGS = words("--checkpoint-minutes 0 --lr-decay none --keep")
INTACT = "the run is intact up to its last checkpoint, and the same command goes on from there\n"


def command(run, keep=99, steps=STEPS):
    return ["train", "digits", *TINY, *FLAGS, keep, "--images", steps * STEP, "--run", run]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BYTEPIXELS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        assert cli(*command(folder / "run")) == 0
    return folder / "run"


def one_sentence(text):
    """What was said on the last line, where nothing before it went wrong."""
    assert "Traceback" not in text
    assert "warning" not in text
    assert text.endswith("\n")
    return text.splitlines()[-1] + "\n"


def size_limit(count):
    """For `before`: no file of this process may be larger."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, count))


@pytest.mark.parametrize("stem", ["ema", "optimizer"])
def test_files_that_cannot_grow(tmp_path, straight, stem):
    """model and ema are of one size, the optimizer is larger: the first file fails, or the last."""
    run = tmp_path / "run"
    assert cli(*command(run, steps=2)) == 0
    before = snapshot(run / "checkpoints")
    limit = (run / "checkpoints" / "step-00000002" / f"{stem}.safetensors").stat().st_size - 1
    code, text = run_in_process(tmp_path, *command(run), before=partial(size_limit, limit))
    assert code == 1
    said = one_sentence(text)
    assert said.startswith(f"bytepixels: training stopped: {run}/checkpoints/step-00000003 could not be written (")
    assert "File too large" in said
    assert said.endswith(f"; {INTACT}")
    assert snapshot(run / "checkpoints") == before
    assert cli(*command(run)) == 0
    assert_the_same(run, straight)


class Ballast:
    """Whatever else lies on a disk."""

    def __init__(self, disk):
        self.path = disk / "ballast"

    def leave(self, count):
        """Take all that is free but for `count` bytes."""
        self.path.unlink(missing_ok=True)
        free = shutil.disk_usage(self.path.parent).free
        self.path.write_bytes(bytes(max(0, free - count)))


def mounted(path):
    """Whether a disk of 4 MB in memory could be mounted there, which not every user may."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", path]
    return shutil.which("mount") is not None and subprocess.run(mount, capture_output=True).returncode == 0


def unmount(path):
    subprocess.run(["umount", "--lazy", path], check=True)


def may_mount():
    with tempfile.TemporaryDirectory() as path:
        if found := mounted(path):
            unmount(path)
        return found


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / "disk"
    path.mkdir()
    assert mounted(path)
    yield path
    unmount(path)


def check_a_disk_that_fills_up(tmp_path, disk, straight, capsys):
    run, ballast = disk / "run", Ballast(disk)
    assert cli(*command(run, steps=1)) == 0
    one = sum(file.stat().st_size for file in checkpoints(run)[0].iterdir())
    ballast.leave(int(3.5 * one))
    capsys.readouterr()
    assert cli(*command(run)) == 1
    said = one_sentence(capsys.readouterr().err)
    found = [path.name for path in checkpoints(run)]
    assert len(found) in (3, 4)
    failed = f"step-{len(found) + 1:08d}"
    assert said.startswith(f"bytepixels: training stopped: {run}/checkpoints/{failed} could not be written (")
    assert said.endswith(INTACT)
    assert "No space left on device" in said
    assert not list(run.rglob(".tmp-*"))
    assert cli("runs", "show", run) == 0
    assert capsys.readouterr().out.count(": whole") == len(found)
    assert cli("sample", run, "-n", 1, "--out", tmp_path / "drawn") == 0

    ballast.leave(0)  # not a byte is left
    before = snapshot(run / "checkpoints")
    capsys.readouterr()
    assert cli(*command(run)) == 1
    said = one_sentence(capsys.readouterr().err)
    assert "No space left on device" in said
    assert said.endswith(INTACT)
    assert snapshot(run / "checkpoints") == before
    assert cli("runs", "prune", run, "--keep", 1) == 0
    assert [path.name for path in checkpoints(run)] == found[-1:]

    assert cli(*command(run, keep=1)) == 0  # what was pruned is room enough
    assert_the_same(run, straight)


if may_mount():  # the other tests of this file hold everywhere
    test_a_disk_that_fills_up = check_a_disk_that_fills_up


def test_a_log_that_cannot_be_written(tmp_path, straight, capsys):
    run = tmp_path / "run"
    assert cli(*command(run, steps=2)) == 0
    log = run / "log.jsonl"
    content = log.read_bytes()
    log.unlink()
    log.symlink_to("/dev/full")
    before = snapshot(run / "checkpoints")
    capsys.readouterr()
    assert cli(*command(run)) == 1
    assert one_sentence(capsys.readouterr().err).endswith(INTACT)
    assert snapshot(run / "checkpoints") == before
    log.unlink()
    log.write_bytes(content)
    assert cli(*command(run)) == 0
    assert_the_same(run, straight)
