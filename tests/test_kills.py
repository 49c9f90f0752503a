"""A real training process killed at any instant, also in the middle of saves, is in the end the run that never was.

`python -m pytest -m slow tests/test_kills.py` kills one a hundred times and says how many kills fell into a save.
"""

import os
import platform
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from .processes import Training, run_in_process, touches
from .verbs.tiny import STEP, TINY, checkpoints, log_of, same_bits, words

STEPS_A_LIFE = 6  # on average
# All that a resume could lose; a checkpoint after every step.
FLAGS = TINY + words(
    """
    --dropout 0.2 --flip yes --label-dropout 0.3 --weight-decay 0.05 --micro-batch 12 --times importance
    --checkpoint-minutes 0 --keep 2
    """
)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """As many as it takes, in a file that is read in no time."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("pictures") / "pictures.npz"
    np.savez(path, images=rng.integers(0, 256, (600, 8, 8), np.uint8), labels=rng.integers(0, 3, 600))
    return path


def command(pictures, run, steps):
    return list(map(str, ["train", pictures, *FLAGS, "--images", steps * STEP, "--run", run]))


def figures(run):
    return [(line["step"], line["images"], line["loss"], line["grad_norm"], line["lr"]) for line in log_of(run)]


def assert_the_same(run, straight):
    assert same_bits(checkpoints(run)[-1], checkpoints(straight)[-1]) == []
    assert figures(run) == figures(straight)
    assert not list(run.rglob(".tmp-*"))


# At each touch of the run's folder: just before a file is opened, written, renamed, flushed or removed


def killed_at(tmp_path, pictures, straight, count, steps):
    """Killed at its count-th touch of the run, then gone on with; what it was that it touched."""
    run = tmp_path / f"killed-{count}"
    code, text = run_in_process(tmp_path, *command(pictures, run, steps), at=(run, count, [signal.SIGKILL]))
    assert code == -signal.SIGKILL, text
    struck = text[text.index("struck: ") :].split("\n")[0].replace(str(run), "RUN")
    code, text = run_in_process(tmp_path, *command(pictures, run, steps))
    assert code == 0, text
    assert "warning" not in text, struck  # the newest checkpoint is whole, whenever the process was killed
    assert_the_same(run, straight)
    return struck


@pytest.fixture(scope="module")
def straight(tmp_path_factory, pictures):
    """(the run of four steps that nothing happens to, how often it touches its folder)."""
    folder = tmp_path_factory.mktemp("straight")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BYTEPIXELS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        code, text = run_in_process(folder, *command(pictures, folder / "first", 1))  # which packs the pictures
        assert code == 0, text
        return folder / "run", touches(folder, folder / "run", *command(pictures, folder / "run", 4))


def test_killed_at_some_touches_of_its_folder(tmp_path, pictures, straight):
    run, count = straight
    chosen = random.Random(2).sample(range(count), 6)
    struck = [killed_at(tmp_path, pictures, run, one, 4) for one in chosen]
    assert any("/checkpoints/.tmp-step" in one for one in struck)  # in the middle of a save


@pytest.mark.slow
def test_killed_at_each_touch_of_its_folder(tmp_path, pictures, straight):
    run, count = straight
    struck = [killed_at(tmp_path, pictures, run, one, 4) for one in range(count)]
    for place in (".tmp-config.json", "open RUN/log.jsonl", "open RUN/checkpoints/.tmp-step", "os.rename", "os.remove"):
        assert any(place in one for one in struck), place


# At random instants, a hundred times


def wait_for_training(process, run):
    """Until this process has written config.json: its steps are next."""
    path = run / "config.json"
    before = path.stat().st_mtime_ns if path.exists() else 0
    process.until(lambda: path.exists() and path.stat().st_mtime_ns > before)


def finish(tmp_path, pictures, run, steps):
    """Train to the end; seconds a step."""
    with Training(tmp_path, *command(pictures, run, steps)) as process:
        wait_for_training(process, run)
        began = time.monotonic()
        code = process.wait()
        assert (code, "warning" in process.text) == (0, False), process.text
    return (time.monotonic() - began) / steps


def killed_in(run, text):
    """What a process was in the middle of when it was killed, from what it left."""
    assert "Traceback" not in text
    assert "warning" not in text
    left = [path.name for path in run.glob("checkpoints/.tmp-*")]
    return "save" if any("removed" not in name for name in left) else "removal" if left else "step"


def killed_while_it_starts(pictures, run, steps, seconds):
    """A process from nothing, with all its imports."""
    words = [sys.executable, "-m", "bytepixels", *command(pictures, run, steps)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    time.sleep(seconds)
    assert process.poll() is None, process.communicate()
    process.kill()
    killed_in(run, process.communicate()[1])
    return "start"


def killed_while_it_trains(tmp_path, pictures, run, steps, seconds):
    """A process that is forked with the imports done."""
    with Training(tmp_path, *command(pictures, run, steps)) as process:
        wait_for_training(process, run)
        time.sleep(seconds)
        assert process.kill() == -signal.SIGKILL, process.text
        return killed_in(run, process.text)


@pytest.mark.slow
def test_a_hundred_kills(tmp_path, pictures, capsys):
    """Nine in ten while it trains, after up to a dozen steps; the others at any instant from its start."""
    began, kills, between = time.monotonic(), 100, random.Random(0).uniform
    steps, run, whole = 3 * STEPS_A_LIFE * kills, tmp_path / "killed", tmp_path / "straight"
    pace = finish(tmp_path, pictures, whole, steps)
    found = {"save": 0, "removal": 0, "step": 0, "start": 0}
    for count in range(kills):
        if count % 10 == 9:
            found[killed_while_it_starts(pictures, run, steps, between(0, 3))] += 1
        else:
            seconds = between(0, 2 * STEPS_A_LIFE * pace)
            found[killed_while_it_trains(tmp_path, pictures, run, steps, seconds)] += 1
    reached = log_of(run)[-1]["step"]
    finish(tmp_path, pictures, run, steps)
    assert_the_same(run, whole)
    with capsys.disabled():
        print(f"\n{sum(found.values())} kills before step {reached} of {steps}, in the middle of: {found}; then")
        print(f"bitwise the run that was never killed; {time.monotonic() - began:.0f} s, {os.cpu_count()} cores,")
        print(platform.processor() or platform.machine())
    assert found["save"] >= 10
