"""A job of several processes speaks with one voice: what the user got wrong is said once, and no process hangs."""

from functools import partial

import pytest

from tests.processes import run_together
from tests.tiny import words
from tests.training.tampered import tamper

TRAIN = words("--preset digits --width 8 --batch 8 --images 32 --previews 0 --device cpu --precision float32")


def said_once(code, sentence, *line, before=None):
    """Two processes of one job, with one command line: both end with `code`, and one of them says why, in one line."""
    codes, text = run_together(2, *line, before=before)
    assert codes == [code, code], text
    complaints = [said for said in text.splitlines() if said.startswith("bytepixels: ")]
    assert len(complaints) == 1, text
    assert sentence in complaints[0]
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("sentence", "line"),
    [
        ("--size height must be in 1..4096, got 0", "train digits --size 0"),
        ("--lr must be a number, got 'abc'", "train digits --lr abc"),
        ("did you mean --images?", "train digits --imags 3"),
        ("did you mean 'train'?", "trian digits"),
        ("'nothere' is no file, no folder", "train nothere"),
        ("train needs SOURCE", "train"),
        ("nothere is not a run", "sample nothere"),
    ],
)
def test_what_is_wrong_with_a_line_is_said_by_one_process(tmp_path, monkeypatch, sentence, line):
    monkeypatch.chdir(tmp_path)
    said_once(2, sentence, *line.split())


def test_what_is_found_wrong_once_the_processes_have_met_is_said_by_one(tmp_path):
    said_once(2, "--batch on that many processes", "train", "digits", *TRAIN, "--batch", 1, "--run", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_setting_that_a_run_cannot_change_is_said_by_one_process(tmp_path):
    line = ("train", "digits", *TRAIN, "--run", tmp_path / "run")
    codes, text = run_together(2, *line)
    assert codes == [0, 0], text
    said_once(2, "was begun with other settings (--lr 0.002 -> 0.001)", *line, "--lr", 0.001)
    said_once(2, "--label must be one of", "sample", tmp_path / "run", "--label", "nine", "-n", 2)


def test_a_training_that_fails_says_why_once(tmp_path):
    """A loss that is not finite in the second process alone: both stop, with one line and with code 1."""
    line = ("train", "digits", *TRAIN, "--images", 64, "--run", tmp_path / "run")
    said_once(1, "not finite", *line, before=partial(tamper, "loss"))
