"""Ctrl-C and SIGTERM at any instant, once or twice: a sentence, the exit code, and nothing is lost or left behind."""

import os
import random
import re
from functools import partial
from signal import SIGINT, SIGTERM

import numpy as np
import pytest
from PIL import Image

from bytepixels.sampling.trained_model import TrainedModel
from tests.guarantees.test_kills import FLAGS, assert_the_same, command
from tests.processes import empty_cache, run_in_process, touches
from tests.tiny import STEP, checkpoints, cli, log_of, train

STEPS = 12
SIGNALS = {
    "term": [SIGTERM],
    "int": [SIGINT],
    "term term": [SIGTERM] * 2,
    "int int": [SIGINT] * 2,
    "both": [SIGINT, SIGTERM],
}
CODE = {SIGINT: 130, SIGTERM: 143}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Small images, as many files, so that packing takes a while."""
    folder, rng = tmp_path_factory.mktemp("pictures") / "pictures", np.random.default_rng(0)
    for k in range(96):
        path = folder / "abc"[k % 3] / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(path)
    return folder


@pytest.fixture(scope="module")
def straight(tmp_path_factory, images):
    folder = tmp_path_factory.mktemp("straight")
    code, text = run_in_process(folder, *command(images, folder / "run", STEPS))
    assert code == 0, text
    return folder / "run"


def check_end(code, text, signals, run):
    """What a training that got signals says, and what it leaves."""
    assert "Traceback" not in text
    if code == 0:  # it came after the last step
        assert "done in" in text or "is finished" in text
    elif "stopped at" in text:
        assert code == CODE[signals[0]]
        assert f"stopped at {log_of(run)[-1]['images']:,} images; saved. Repeat the command to resume." in text
        assert checkpoints(run)[-1].name == f"step-{log_of(run)[-1]['step']:08d}"
    elif len(signals) == 1:  # a second one may end the process at once, before or after anything is said
        assert code == CODE[signals[0]]
        kept = "(: stopped while packing; the same command goes on from there)?"
        assert re.search(rf"\nbytepixels: interrupted{kept}\n$", text)


@pytest.mark.parametrize("signals", SIGNALS.values(), ids=SIGNALS)
def test_at_some_touches_of_the_run(tmp_path, images, straight, signals):
    run, words = tmp_path / "run", command(images, tmp_path / "run", STEPS)
    code, text = run_in_process(tmp_path, *words, at=(run, random.Random(repr(signals)).randrange(90), signals))
    assert "struck: " in text
    assert code != 0
    check_end(code, text, signals, run)
    code, text = run_in_process(tmp_path, *words)
    assert (code, "warning" in text) == (0, False), text
    assert_the_same(run, straight)


@pytest.mark.parametrize("signals", [[SIGTERM], [SIGINT], [SIGINT, SIGINT]], ids=["term", "int", "int int"])
def test_while_packing(tmp_path, images, straight, signals):
    run, cache = tmp_path / "run", tmp_path / "cache"
    words, before = command(images, run, STEPS), partial(empty_cache, cache)
    packing = 7  # touches of the cache: a folder, arrays, sums, meta.json, the rename
    count = random.Random(repr(signals)).randrange(packing)
    code, text = run_in_process(tmp_path, *words, at=(cache, count, signals), before=before)
    assert "struck: " in text
    check_end(code, text, signals, run)
    assert not run.exists()
    code, text = run_in_process(tmp_path, *words, before=before)
    assert code == 0, text
    assert_the_same(run, straight)


def test_packing_has_that_many_touches(tmp_path, images):
    cache, flags = tmp_path / "cache", ["-n", 1, "--timesteps", 10, "--columns", 2, "--out", tmp_path / "out"]
    assert touches(tmp_path, cache, "show", images, *flags, before=partial(empty_cache, cache)) >= 7


@pytest.mark.parametrize("signals", [[SIGTERM], [SIGINT], [SIGTERM, SIGTERM]], ids=["term", "int", "term term"])
def test_in_a_preview(tmp_path, capsys, monkeypatch, signals):
    """It is left, or the process; either way what was trained is saved, and the run is the same in the end."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    flags = [*FLAGS[2:], "--lr-decay", "none", "--previews", 2, "--preview-images", 1, "--checkpoint-minutes", 99]
    assert train(whole, *flags, steps=4) == 0
    drawn, draw = [], TrainedModel.draw

    def draw_signalled(*arguments, watch):
        def signalled(step, x):
            drawn.append(step)
            if step == 1:
                for number in signals:
                    os.kill(os.getpid(), number)
            watch(step, x)

        return draw(*arguments, watch=signalled)

    monkeypatch.setattr(TrainedModel, "draw", draw_signalled)
    capsys.readouterr()
    code = train(run, *flags, steps=4)
    said = capsys.readouterr().err
    assert drawn == [0, 1]
    assert list(run.glob("samples/*.png")) == []
    if len(signals) == 1:
        assert code == CODE[signals[0]]
        assert f"stopped at {3 * STEP} images; saved" in said
    else:
        assert code == CODE[signals[1]]
        assert said.endswith("\nbytepixels: interrupted\n")
    assert checkpoints(run)[-1].name == ("step-00000003" if len(signals) == 1 else "step-00000002")
    monkeypatch.setattr(TrainedModel, "draw", draw)
    assert cli("train", "digits", "--run", run) == 0
    assert_the_same(run, whole)
