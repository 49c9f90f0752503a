"""What the command line says of a pack that was interrupted, and of the speed of one that is taken up."""

import re
import time

import numpy as np
from PIL import Image

from bytepixels.config.data import DataConfig
from bytepixels.data.rows import NpyRows
from bytepixels.runs import packing as train

from .tiny import TINY, cli, plain


def test_ctrl_c_while_packing_and_the_same_command_again(tmp_path, monkeypatch, capsys):
    (tmp_path / "in").mkdir()
    for number in range(5):
        Image.fromarray(np.full((8, 8), number, np.uint8)).save(tmp_path / f"in/{number}.png")
    written, write = [], NpyRows.write

    def write_three(*arguments):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(write(*arguments))

    monkeypatch.setattr(NpyRows, "write", write_three)
    command = ("show", tmp_path / "in", "--out", tmp_path / "out", "--columns", 2, "--timesteps", 2)
    assert cli(*command) == 130
    said = "bytepixels: interrupted: stopped while packing; the same command goes on from there\n"
    assert capsys.readouterr().err.endswith(said)
    monkeypatch.setattr(NpyRows, "write", write)
    assert cli(*command) == 0
    assert "3 of 5 images lay packed already" in capsys.readouterr().out


def test_what_lay_there_already_is_no_speed(monkeypatch):
    rates = []

    class Watched(train.Work):
        def show(self, note=""):
            rates.append(self.rate)

    def resumed(source, progress, **options):
        for done in (50_000, 50_001, 50_002):
            progress(done, 60_000)
            time.sleep(0.01)
        return type("Packed", (), {"notes": ()})

    monkeypatch.setattr(train, "Work", Watched)
    monkeypatch.setattr(train, "pack", resumed)
    train.pack_with_progress("anything", DataConfig())
    assert 0 < rates[-1] < 1000


def test_packing_ends_with_the_budget_and_goes_on_from_there(tmp_path, monkeypatch, capsys):
    (tmp_path / "in").mkdir()
    for number in range(40):
        Image.fromarray(np.full((8, 8), number, np.uint8)).save(tmp_path / f"in/{number}.png")
    line = ("train", tmp_path / "in", *TINY, "--run", tmp_path / "run")
    assert cli(*line, "--budget", "0.001s") == 2
    found = re.search(
        r"--budget 0.001s was over .* while packing .(\d+) of 40 images.; what was done is kept",
        plain(capsys.readouterr().err),
    )
    assert 0 < int(found[1]) < 40
    assert not (tmp_path / "run").exists()
    assert cli(*line, "--images", 32) == 0
    assert re.search(r"(\d+) of 40 images lay packed already", capsys.readouterr().out)
