"""What the command line says of a pack that was interrupted, and of the speed of one that is taken up."""

import os
import re
import time
from functools import partial

import numpy as np
from PIL import Image

from bytepixels.config.data import DataConfig
from bytepixels.data import make_pack
from bytepixels.data.rows import NpyRows
from bytepixels.runs import packing as train
from tests.processes import empty_cache, run_together
from tests.tiny import TINY, cli, plain


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


def noted_decoding(cache, log):
    """For `before`: nothing has been packed yet, and each image that is decoded leaves a line."""
    empty_cache(cache)
    original = make_pack.to_pixels

    def to_pixels(*arguments):
        with log.open("a") as file:
            file.write(f"{os.environ['RANK']}\n")
        return original(*arguments)

    make_pack.to_pixels = to_pixels


def test_one_process_of_a_torchrun_job_packs_and_all_train(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(40):
        Image.fromarray(np.full((8, 8), number, np.uint8)).save(tmp_path / f"in/{number}.png")
    line = ("train", tmp_path / "in", *TINY, "--images", 32, "--run", tmp_path / "run")
    before = partial(noted_decoding, tmp_path / "cache", tmp_path / "decoded")
    codes, said = run_together(2, *line, before=before)
    assert codes == [0, 0], said
    ranks = (tmp_path / "decoded").read_text().split()
    assert len(ranks) == 40
    assert len(set(ranks)) == 1
    assert len(list((tmp_path / "cache/packs").iterdir())) == 1
