"""A real training process killed at any instant, also in the middle of saves, is in the end the run that never was.

`pytest -m slow -n 0 tests/guarantees/test_kills.py` kills one thirty times, and says how many kills fell into a save.
"""

import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.processes import Training, run_in_process, touches
from tests.tiny import STEP, TINY, checkpoints, log_of, same_bits, words

STEPS = 3  # of a run that is killed at a touch of its folder
ENDLESS = 10**6  # steps
# All that a resume could lose; a checkpoint after every step.
FLAGS = TINY + words(
    """
    --dropout 0.2 --flip yes --label-dropout 0.3 --weight-decay 0.05 --micro-batch 12 --times importance
    --checkpoint-minutes 0 --keep 2 --lr-decay none
    """
)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """As many as it takes, in a file that is read in no time."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("pictures") / "images.npz"
    np.savez(path, images=rng.integers(0, 256, (600, 8, 8), np.uint8), labels=rng.integers(0, 3, 600))
    return path


def command(images, run, steps):
    return list(map(str, ["train", images, *FLAGS, "--images", steps * STEP, "--run", run]))


def figures(run):
    return [(line["step"], line["images"], line["loss"], line["grad_norm"], line["lr"]) for line in log_of(run)]


def assert_the_same(run, straight):
    assert same_bits(checkpoints(run)[-1], checkpoints(straight)[-1]) == []
    assert figures(run) == figures(straight)
    assert not list(run.rglob(".tmp-*"))


# At each touch of the run's folder: just before a file is opened, written, renamed, flushed or removed


def killed_at(tmp_path, images, straight, count):
    """Killed at its count-th touch of the run, then gone on with; what it was that it touched."""
    run, steps = tmp_path / f"killed-{count}", STEPS
    code, text = run_in_process(tmp_path, *command(images, run, steps), at=(run, count, [signal.SIGKILL]))
    assert code == -signal.SIGKILL, text
    struck = text[text.index("struck: ") :].split("\n")[0].replace(str(run), "RUN")
    code, text = run_in_process(tmp_path, *command(images, run, steps))
    assert code == 0, text
    assert "warning" not in text, struck  # the newest checkpoint is intact, whenever the process was killed
    assert_the_same(run, straight)
    return struck


@pytest.fixture(scope="module")
def straight(tmp_path_factory, images):
    """(the run that nothing happens to, how often it touches its folder)."""
    folder = tmp_path_factory.mktemp("straight")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BYTEPIXELS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        code, text = run_in_process(folder, *command(images, folder / "first", 1))  # which packs the images
        assert code == 0, text
        return folder / "run", touches(folder, folder / "run", *command(images, folder / "run", STEPS))


def test_killed_at_some_touches_of_its_folder(tmp_path, images, straight):
    run, count = straight
    chosen = random.Random(2).sample(range(count), 6)
    struck = [killed_at(tmp_path, images, run, one) for one in chosen]
    assert any("/checkpoints/.tmp-step" in one for one in struck)  # in the middle of a save


@pytest.mark.slow
def test_killed_at_each_touch_of_its_folder(tmp_path, images, straight):
    run, count = straight
    struck = [killed_at(tmp_path, images, run, one) for one in range(count)]
    for place in (".tmp-config.json", "open RUN/log.jsonl", "open RUN/checkpoints/.tmp-step", "os.rename", "os.remove"):
        assert any(place in one for one in struck), place


# At random instants


def killed_in(run, text):
    """What a process was in the middle of when it was killed, from what it left."""
    assert "Traceback" not in text
    assert "warning" not in text
    left = [path.name for path in run.glob("checkpoints/.tmp-*")]
    return "save" if any("removed" not in name for name in left) else "removal" if left else "step"


def killed_while_it_starts(images, run, steps, seconds):
    """A process from nothing, with all its imports."""
    words = [sys.executable, "-m", "bytepixels", *command(images, run, steps)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    time.sleep(seconds)
    assert process.poll() is None, process.communicate()
    process.kill()
    killed_in(run, process.communicate()[1])
    return "start"


def killed_while_it_trains(tmp_path, images, run, steps, more, seconds):
    """A process that is forked with the imports done, killed at any instant after so many more lines of the log."""
    log = run / "log.jsonl"
    before = log.read_bytes().count(b"\n") if log.exists() else 0
    with Training(tmp_path, *command(images, run, steps)) as process:
        process.until(lambda: log.exists() and log.read_bytes().count(b"\n") >= before + more)
        time.sleep(seconds)
        assert process.kill() == -signal.SIGKILL, process.text
        return killed_in(run, process.text)


@pytest.mark.slow
def test_thirty_kills(tmp_path, images, capsys):
    """Nine in ten while it trains, after one to three steps; the others at any instant from its start."""
    kills, draw, run, whole = 30, random.Random(0), tmp_path / "killed", tmp_path / "straight"
    found = {"save": 0, "removal": 0, "step": 0, "start": 0}
    for count in range(kills):
        if count % 10 == 9:
            found[killed_while_it_starts(images, run, ENDLESS, draw.uniform(0, 3))] += 1
        else:
            more, seconds = draw.randrange(1, 4), draw.uniform(0, 0.03)
            found[killed_while_it_trains(tmp_path, images, run, ENDLESS, more, seconds)] += 1
    steps = log_of(run)[-1]["step"] + 2
    for path in (whole, run):
        code, text = run_in_process(tmp_path, *command(images, path, steps))
        assert (code, "warning" in text) == (0, False), text
    assert_the_same(run, whole)
    with capsys.disabled():
        print(f"\n{kills} kills before step {steps - 1}, in the middle of: {found}")
