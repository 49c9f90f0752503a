"""runs list, show and prune: what they say is so, and what must stay stays."""

import html
import json
import math
import os
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch

from bytepixels.cli.runs_show import bytes_of, curve
from bytepixels.runs import overview
from bytepixels.runs.checkpoints import drop_optimizer, read_state
from bytepixels.runs.lock import RunLock
from tests.tiny import STEP, checkpoints, cli, log_of, pixels_of, read_json, same_bits, snapshot, train

BUDGET = 6  # steps


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run with checkpoints of steps 3 to 6 and two previews, and one that has seen half of its budget."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BYTEPIXELS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        folder = tmp_path_factory.mktemp("runs")
        flags = ("--checkpoint-minutes", 0, "--keep", 4)
        assert train(folder / "done", *flags, "--previews", 2, "--preview-images", 1, steps=BUDGET) == 0
        assert train(folder / "half", *flags, "--lr-decay", "none", steps=3) == 0
        shutil.copytree(folder / "half", folder / "larger")
        assert train(folder / "larger", *flags, "--lr-decay", "none", steps=4) == 0  # its budget is 4 from now on
        shutil.rmtree(folder / "larger" / "checkpoints" / "step-00000004")
        (folder / "half").rename(folder / "short")
        (folder / "larger").rename(folder / "half")
    return folder


@pytest.fixture
def runs(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "runs")


def said(capsys, *words, code=0):
    capsys.readouterr()
    assert cli("runs", *words) == code
    return capsys.readouterr()


def flip(path, at=-5):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def size(folder):
    """Bytes below a folder, but for the lock's files."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and ".lock" not in file.name)


def rows(capsys, folder):
    """{name: cells} of runs list, and the lines after the table."""
    lines = said(capsys, "list", folder).out.splitlines()
    cells = [re.split(r"  +", line) for line in lines]
    assert cells[0] == ["run", "preset", "images", "images seen", "loss", "last change", "size", "state"]
    table = {row[0]: row[1:] for row in cells[1:] if len(row) == 8}
    return table, lines[1 + len(table) :]


# list


def test_a_line_for_each_run(runs, capsys):
    table, after = rows(capsys, runs)
    assert list(table) == ["done", "half", "short"]
    loss = sum(line["loss"] for line in log_of(runs / "done")) / BUDGET
    assert table["done"][:4] == ["digits", "1,797", f"{6 * STEP} / {6 * STEP} (100%)", f"{loss:.4f}"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d", table["done"][4])
    assert table["done"][5] == bytes_of(sum(f.stat().st_size for f in (runs / "done").rglob("*") if f.is_file()))
    assert [table[name][-1] for name in table] == ["finished", "stopped", "finished"]
    assert table["half"][2] == f"{3 * STEP} / {4 * STEP} (75%)"
    assert after == []


def test_a_narrow_terminal_goes_without_some_columns(runs, capsys, monkeypatch):
    wide = said(capsys, "list", runs).out
    monkeypatch.setenv("COLUMNS", "80")
    narrow = said(capsys, "list", runs).out
    assert max(map(len, wide.splitlines())) > 80 >= max(map(len, narrow.splitlines()))
    assert narrow.split()[0] == "run"
    assert "last change" not in narrow
    assert {line.split()[0] for line in narrow.splitlines()} == {line.split()[0] for line in wide.splitlines()}


def test_the_loss_is_the_mean_of_the_last_twenty_lines_wherever_it_is_said(runs, capsys):
    log = runs / "done" / "log.jsonl"
    log.write_text("".join(json.dumps({"step": k, "images": k, "loss": float(k)}) + "\n" for k in range(5000)))
    loss = f"{sum(range(4980, 5000)) / 20:.4f}"
    assert rows(capsys, runs)[0]["done"][3] == loss
    assert (
        f"log: 5,000 lines; loss {loss} (mean of the last 20), 0.0000 first, "
        in said(capsys, "show", runs / "done").out
    )
    assert cli("report", runs / "done", runs / "half", "--strip", 0, "--out", runs / "both.html") == 0
    page = html.unescape((runs / "both.html").read_text())
    assert f">{loss}<" in page[page.index("mean of the log's last 20 lines") :][:200]


def test_one_that_is_being_trained(runs, capsys):
    with open(runs / "half" / "log.jsonl", "a") as log:
        log.write(json.dumps({"step": 4, "images": 4 * STEP, "loss": 1.0}) + "\n")
    cut(runs / "half" / "checkpoints" / "step-00000003" / "ema.safetensors")  # as when it is being removed
    with RunLock(runs / "half") as lock:
        lock.take()
        table, after = rows(capsys, runs)
        shown = said(capsys, "show", runs / "half").out
    assert table["half"][-1] == "training now"
    assert table["half"][2] == f"{4 * STEP} / {4 * STEP} (100%)"
    assert after == []
    assert f"training now: process {os.getpid()} on " in shown.splitlines()[0]


def test_a_checkpoint_that_goes_while_its_file_is_opened(runs, capsys, monkeypatch):
    """safetensors opens the file, then torch maps it by its name."""
    opened, newest = overview.safe_open, runs / "half" / "checkpoints" / "step-00000003"

    def removed_meanwhile(path, framework):
        if path.parent != newest:
            return opened(path, framework)
        shutil.rmtree(newest, ignore_errors=True)
        return torch.UntypedStorage.from_file(str(path), False, 8)

    monkeypatch.setattr(overview, "safe_open", removed_meanwhile)
    with RunLock(runs / "half") as lock:
        lock.take()
        table, after = rows(capsys, runs)
    assert table["half"][-1] == "training now"
    assert after == []


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("harm", [cut, Path.unlink], ids=["cut short", "missing"])
def test_what_is_cut_short_or_missing_is_said(runs, capsys, name, harm):
    harm(runs / "done" / "checkpoints" / "step-00000006" / name)
    table, after = rows(capsys, runs)
    assert table["done"][-1] == "damaged"
    assert table["done"][2].startswith(f"{5 * STEP} / ")
    assert [table[name][-1] for name in ("half", "short")] == ["stopped", "finished"]
    (line,) = after
    assert "step-00000006 is incomplete or damaged: " in line
    assert name in line


def test_a_run_whose_config_cannot_be_read(runs, capsys):
    (runs / "done" / "config.json").write_text("{")
    (runs / "done" / ".config.json").unlink()
    (runs / "half" / "config.json").unlink()
    (runs / "half" / ".config.json").unlink()
    table, after = rows(capsys, runs)
    assert table["done"][:4] == table["half"][:4] == ["-", "-", "-", "-"]
    assert table["done"][-1] == table["half"][-1] == "damaged"
    assert "config.json cannot be read" in after[0]
    assert "half is not a run: it has no config.json" in after[1]
    assert "config.json cannot be read" in said(capsys, "show", runs / "done", code=2).err


def test_where_there_is_none(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert said(capsys, "list", tmp_path).out == f"no runs in {tmp_path}\n"
    assert "runs is no folder" in said(capsys, "list", code=2).err
    (tmp_path / "runs").mkdir()
    assert said(capsys, "list").out == "no runs in runs\n"


def test_a_run_itself_can_be_listed(runs, capsys):
    assert list(rows(capsys, runs / "done")[0]) == ["done"]


def test_words_after_runs(capsys):
    assert "usage: bytepixels runs list|show|prune" in said(capsys).out
    assert "must be one of list, show, prune; got 'lsit'; did you mean 'list'?" in said(capsys, "lsit", code=2).err
    assert "runs prune needs --keep N" in said(capsys, "prune", "x", code=2).err
    assert "--keep must be at least 1, got 0" in said(capsys, "prune", "x", "--keep", 0, code=2).err


# show


def test_all_there_is_to_know(runs, capsys):
    run = runs / "done"
    assert cli("sample", run, "-n", 1) == 0
    line = {"kind": "bits", "checkpoint": "step-00000006", "weights": "ema", "seed": 0}
    line["bits_per_dimension"] = {"small": {"total": 3.712}, "ode": {"total": 3.5}}
    (run / "eval.jsonl").write_text(json.dumps(line) + "\ndamaged\n" + json.dumps(line | {"learnt": 0.25}) + "\n")
    lines = said(capsys, "show", run).out.splitlines()
    first = read_json(run / "config.json")["made_by"][0]
    assert lines[0].startswith(f"{run}: finished, ")
    assert first["time"] in lines[1]
    assert read_json(run / "config.json")["id"] in lines[1]
    assert lines[2].startswith("train another like it: bytepixels train digits --preset digits --")
    for own in ("--width 8", "--multipliers 1", "--images 192", "--keep 4", "--steps 3", "--previews 2"):
        assert f"{own} " in f"{lines[2]} "
    for not_own in ("--flip", "--precision", "--lr ", "--device"):
        assert f" {not_own}" not in lines[2].replace("--lr-decay", "")
    assert "data: digits, 1,797 images, 8 x 8, channels 1, 10 classes" in lines
    assert "classes: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9" in lines
    assert "images seen: 192 of 192" in lines
    shown = [line for line in lines if line.startswith("  step-")]
    for step, line in enumerate(shown, 3):
        path = run / "checkpoints" / f"step-{step:08d}"
        assert line == f"  {path.name}  {step * STEP} images, {bytes_of(size(path))}: whole"
    losses = [line["loss"] for line in log_of(run)]
    mean = f"{sum(losses) / 6:.4f} (mean of the last 6)"
    at = lines.index(f"log: 6 lines; loss {mean}, {losses[0]:.4f} first, {min(losses):.4f} least")
    assert lines[at + 1].strip() == curve(losses)
    assert lines[at + 2].startswith("  at last: gradient ")
    assert "samples: 2 grids along the way; ddim-3-seed-0" in lines
    assert "evaluated: bits of step-00000006, ema: small bits/dim 3.712, ode bits/dim 3.5" in lines
    assert "evaluated: bits of step-00000006, ema: learnt 0.25, small bits/dim 3.712, ode bits/dim 3.5" in lines


@pytest.mark.parametrize("name", ["half", "done"])
def test_the_commands_that_it_shows_do_what_they_say(runs, capsys, name):
    lines = said(capsys, "show", runs / name).out.splitlines()
    go_on, draw = (next(line for line in lines if line.startswith(word))[8:] for word in ("go on:", "sample:"))
    go_on = go_on.replace("N, N above its budget", str(7 * STEP))
    assert go_on.startswith("bytepixels train ")
    assert cli(*shlex.split(go_on)[1:], "--previews", 0) == 0
    assert checkpoints(runs / name)[-1].name == ("step-00000007" if name == "done" else "step-00000004")
    assert cli(*shlex.split(draw)[1:], "-n", 1) == 0


def test_show_compares_every_byte(runs, capsys):
    flip(runs / "done" / "checkpoints" / "step-00000004" / "optimizer.safetensors")
    lines = said(capsys, "show", runs / "done").out.splitlines()
    assert [line.split(": ")[1] for line in lines if line.startswith("  step-")][::2] == ["whole", "whole"]
    assert any("step-00000004" in line and "its checksum differs" in line for line in lines)
    assert rows(capsys, runs)[0]["done"][-1] == "finished"  # list looks at sizes alone


def test_a_run_that_has_only_begun(runs, capsys):
    for one in checkpoints(runs / "half"):
        shutil.rmtree(one)
    (runs / "half" / "log.jsonl").unlink()
    lines = said(capsys, "show", runs / "half").out.splitlines()
    assert {"checkpoints: none yet", "log: empty", f"images seen: 0 of {4 * STEP}"} <= set(lines)
    assert rows(capsys, runs)[0]["half"][2:4] == [f"0 / {4 * STEP} (0%)", "-"]


def test_what_is_no_run(tmp_path, capsys):
    for words in (["show"], ["prune", "--keep", 1]):
        assert "is not a run: it has no config.json" in said(capsys, words[0], tmp_path, *words[1:], code=2).err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("line", ['{"loss": NaN, "images": 1}', '{"loss": 1e999, "images": 1}', "[]", "\x00", "{"])
def test_a_log_with_nothing_to_read(runs, capsys, line):
    (runs / "done" / "log.jsonl").write_text(line + "\n")
    assert "log: empty" in said(capsys, "show", runs / "done").out
    assert rows(capsys, runs)[0]["done"][3] == "-"


def test_the_curve():
    assert curve([1.0, math.e, math.e**2, math.e**7]) == "▁▂▃█"
    assert curve([5.0]) == curve([5.0, 5.0])[0] == "▁"
    assert curve([4.0, 2.0] * 100, width=10) == "▁" * 10  # means of equal parts
    assert curve([8.0] * 50 + [1.0] * 50, width=4) == "██▁▁"
    assert len(curve(range(1, 1000))) == 48


# prune


def test_the_newest_stay(runs, capsys):
    run = runs / "done"
    (run / "checkpoints" / ".tmp-step-00000007").mkdir()
    (run / "checkpoints" / ".tmp-step-00000007" / "model.safetensors").write_bytes(b"half")
    (run / ".tmp-config.json-77").write_text("{")
    before, whole = snapshot(run), size(run)
    line = said(capsys, "prune", run, "--keep", 2, "--dry-run").out
    assert {name: found for name, found in snapshot(run).items() if ".lock" not in name} == {
        name: found for name, found in before.items() if ".lock" not in name
    }
    what = "step-00000003, step-00000004, 2 leftovers of killed processes"
    assert f"{run}: would remove {what} (" in line
    assert "step-00000005, step-00000006 kept" in line
    out = said(capsys, "prune", run, "--keep", 2).out
    assert f"{run}: removed {what} (" in out
    assert out.splitlines()[-1] == f"freed {bytes_of(whole - size(run))}"
    gone = {"checkpoints/step-00000003", "checkpoints/step-00000004", "checkpoints/.tmp-step-00000007", "."}
    left = {name: found for name, found in before.items() if str(Path(name).parent) not in gone}
    assert left == {name: found for name, found in snapshot(run).items() if str(Path(name).parent) != "."}
    assert not list(run.rglob(".tmp-*"))
    assert f"{run}: removed nothing (0 bytes)" in said(capsys, "prune", run, "--keep", 2).out


def test_a_checkpoint_of_another_run_is_not_ours_to_remove(runs, capsys):
    shutil.copytree(runs / "half" / "checkpoints" / "step-00000001", runs / "done" / "checkpoints" / "step-00000001")
    assert (
        "removed step-00000003, step-00000004, step-00000005 (" in said(capsys, "prune", runs / "done", "--keep", 1).out
    )
    assert [path.name for path in checkpoints(runs / "done")] == ["step-00000001", "step-00000006"]
    assert "step-00000001 is of another run" in said(capsys, "show", runs / "done").out


@pytest.mark.parametrize("keep", [1, 2, 9])
def test_a_damaged_newest_does_not_push_out_the_newest_whole_one(runs, capsys, keep):
    run = runs / "done"
    flip(run / "checkpoints" / "step-00000006" / "model.safetensors")
    flip(run / "checkpoints" / "step-00000004" / "model.safetensors")
    out = said(capsys, "prune", run, "--keep", keep).out
    left = {1: [5, 6], 2: [3, 4, 5, 6], 9: [3, 4, 5, 6]}[keep]
    assert [path.name for path in checkpoints(run)] == [f"step-{step:08d}" for step in left]
    assert ("step-00000006/model.safetensors is damaged" in out) == (6 in left)
    assert ("step-00000004/model.safetensors is damaged" in out) == (4 in left)
    assert cli("sample", run, "-n", 1) == 0


def test_where_none_is_whole_nothing_goes(runs, capsys):
    for one in checkpoints(runs / "done"):
        flip(one / "ema.safetensors")
    before = snapshot(runs / "done" / "checkpoints")
    out = said(capsys, "prune", runs / "done", "--keep", 1, "--optimizer").out
    assert "removed nothing (0 bytes); no checkpoint is intact, so all are kept" in out
    assert snapshot(runs / "done" / "checkpoints") == before


def test_a_run_in_use_is_refused_before_anything_goes(runs, capsys):
    before = snapshot(runs / "done" / "checkpoints")
    with RunLock(runs / "half") as lock:
        lock.take()
        error = said(capsys, "prune", runs / "done", runs / "half", "--keep", 1, code=2).err
    assert f"half is in use by process {os.getpid()}" in error
    assert snapshot(runs / "done" / "checkpoints") == before


def test_several_runs_and_one_of_them_twice(runs, capsys):
    out = said(capsys, "prune", runs / "done", runs / "short", f"{runs}/half/../done", "--keep", 1).out
    assert [line.split(": ")[0] for line in out.splitlines()[:-1]] == [f"{runs}/half/../done", str(runs / "short")]
    assert len(checkpoints(runs / "done")) == len(checkpoints(runs / "short")) == 1


def test_a_finished_run_without_its_optimizer_is_drawn_from_but_not_trained_on(runs, tmp_path, capsys):
    run = runs / "done"
    assert cli("sample", run, "-n", 1, "--out", tmp_path / "before") == 0
    out = said(capsys, "prune", run, "--keep", 2, "--optimizer").out
    assert "the optimizer of step-00000005, step-00000006 (" in out
    assert [sorted(path.name for path in one.iterdir()) for one in checkpoints(run)] == 2 * [
        ["ema.safetensors", "model.safetensors", "state.json"]
    ]
    assert cli("sample", run, "-n", 1, "--out", tmp_path / "after") == 0
    assert (pixels_of(tmp_path / "before" / "seed-0.png") == pixels_of(tmp_path / "after" / "seed-0.png")).all()
    shown = said(capsys, "show", run).out
    assert shown.count(": whole, without its optimizer") == 2
    assert "go on:  not possible, its optimizer was pruned" in shown
    assert rows(capsys, runs)[0]["done"][-1] == "finished"
    before = snapshot(run / "checkpoints")
    assert cli("train", "digits", "--run", run, "--images", 9 * STEP) == 2
    assert "step-00000006 has no optimizer since it was pruned" in capsys.readouterr().err
    assert snapshot(run / "checkpoints") == before
    assert f"{run}: removed nothing" in said(capsys, "prune", run, "--keep", 2, "--optimizer").out
    flip(checkpoints(run)[-1] / "ema.safetensors")
    assert "its checksum differs" in said(capsys, "show", run).out
    assert rows(capsys, runs)[0]["done"][-1] == "finished"


def test_an_unfinished_run_keeps_what_it_needs_to_go_on(runs, tmp_path, capsys):
    run, whole = runs / "half", shutil.copytree(runs / "half", tmp_path / "whole")
    assert (
        "the optimizer of step-00000001, step-00000002 (" in said(capsys, "prune", run, "--keep", 9, "--optimizer").out
    )
    for path in (run, whole):
        assert cli("train", "digits", "--run", path) == 0
    assert checkpoints(run)[-1].name == "step-00000004"
    assert same_bits(checkpoints(run)[-1], checkpoints(whole)[-1]) == []


def test_a_prune_that_is_cut_short_leaves_checkpoints_whole(runs, capsys, monkeypatch):
    run = runs / "done"
    newest, run_id = checkpoints(run)[-1], read_json(run / "config.json")["id"]

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", interrupted)
        with pytest.raises(KeyboardInterrupt):
            drop_optimizer(newest, read_state(newest, run_id))
    assert (newest / "optimizer.safetensors").exists()
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", interrupted)
        assert cli("runs", "prune", run, "--keep", 2) == 130
    assert [path.name for path in sorted((run / "checkpoints").glob("step-*"))] == [
        f"step-{step:08d}" for step in (4, 5, 6)
    ]
    assert said(capsys, "show", run).out.count(": whole") == 3
    assert "1 leftover of killed processes" in said(capsys, "prune", run, "--keep", 2).out
    assert len(list((run / "checkpoints").iterdir())) == 2
