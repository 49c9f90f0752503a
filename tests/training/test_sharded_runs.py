"""A run whose checkpoints lie in shards, in one process: every verb does with it what it does with a plain one."""

import shutil

import pytest

from tests.sharded import split
from tests.tiny import checkpoints, cli, log_of, plain, read_json, same_bits, snapshot, train


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run stopped after 2 and 4 of its steps, and the same one as three processes would have left it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BYTEPIXELS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        folder = tmp_path_factory.mktemp("runs")
        for steps in (2, 4):
            assert train(folder / "plain", "--lr-decay", "none", steps=steps) == 0
    shutil.copytree(folder / "plain", folder / "sharded")
    for checkpoint in checkpoints(folder / "sharded"):
        split(checkpoint, 3)
    return folder


@pytest.fixture
def pair(runs, tmp_path):
    """(plain, sharded): copies."""
    for name in ("plain", "sharded"):
        shutil.copytree(runs / name, tmp_path / name)
    return tmp_path / "plain", tmp_path / "sharded"


def images(folder):
    return {name: sha for name, sha in snapshot(folder).items() if name.endswith(".png")}


@pytest.mark.parametrize("weights", ["ema", "model"])
def test_images_are_the_same(runs, tmp_path, weights):
    for name in ("plain", "sharded"):
        assert cli("sample", runs / name, "-n", 2, "--weights", weights, "--out", tmp_path / name) == 0
    assert images(tmp_path / "plain") == images(tmp_path / "sharded")
    assert read_json(tmp_path / "sharded" / "manifest.json")["checkpoint"] == "step-00000004"


def test_numbers_and_edits_are_the_same(pair, tmp_path):
    assert cli("sample", pair[0], "-n", 1, "--out", tmp_path / "one") == 0
    source = tmp_path / "one" / "seed-0.png"
    for run in pair:
        assert cli("evaluate", run, "--bits", "-n", 2, "--steps", 3, "--ode-steps", 0) == 0
        assert cli("edit", "vary", run, source, "--strength", 0.5, "-n", 2, "--out", tmp_path / f"{run.name}-e") == 0
    one, other = (read_json(run / "eval.jsonl") for run in pair)
    assert one["bits_per_dimension"] == other["bits_per_dimension"]
    assert images(tmp_path / "plain-e") == images(tmp_path / "sharded-e") != {}


def test_it_goes_on_in_one_process_bit_for_bit(pair):
    for run in pair:
        assert cli("train", "digits", "--run", run, "--images", 6 * 32) == 0
        assert log_of(run)[-1]["step"] == 6
    one, other = (checkpoints(run)[-1] for run in pair)
    assert same_bits(one, other) == []
    assert [p.is_dir() for p in sorted(other.iterdir())] == [False] * 4  # what it writes is plain again


def test_it_is_listed_shown_and_pruned(pair, capsys):
    _, run = pair
    assert cli("runs", "list", run.parent) == 0
    assert cli("runs", "show", run) == 0
    said = plain(capsys.readouterr().out)
    assert "step-00000002 64 images" in said
    assert "step-00000004 128 images" in said
    assert said.count(": whole") == 2
    assert cli("runs", "prune", run, "--keep", 1, "--optimizer") == 0
    assert [p.name for p in checkpoints(run)] == ["step-00000004"]
    assert sorted(p.name for p in checkpoints(run)[0].iterdir()) == ["ema", "model", "state.json"]
    assert cli("sample", run, "-n", 1, "--out", run / "drawn") == 0


@pytest.mark.parametrize("damage", ["flip", "missing"])
def test_a_damaged_shard_is_said_and_the_checkpoint_before_taken(pair, capsys, damage):
    plain_run, run = pair
    file = sorted((checkpoints(run)[-1] / "ema").iterdir())[1]
    content = file.read_bytes()
    file.unlink()
    if damage == "flip":
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert cli("runs", "show", run) == 0
    assert ("is damaged" if damage == "flip" else "it is missing") in plain(capsys.readouterr().out)
    assert cli("sample", run, "-n", 1, "--out", run / "drawn") == 0
    said = plain(capsys.readouterr().err)
    assert f"ema/{file.name}" in said
    assert "looking for an older one" in said
    assert read_json(run / "drawn" / "manifest.json")["checkpoint"] == "step-00000002"
    assert cli("train", "digits", "--run", run) == 0  # from there on once more
    assert same_bits(checkpoints(run)[-1], checkpoints(plain_run)[-1]) == []


def test_shards_of_another_network_are_no_checkpoint_of_this_run(pair, tmp_path, capsys):
    _, run = pair
    assert train(tmp_path / "wide", "--width", 12, steps=1) == 0
    split(checkpoints(tmp_path / "wide")[0], 2)
    before = snapshot(run / "checkpoints")
    shutil.copytree(checkpoints(tmp_path / "wide")[0], run / "checkpoints" / "step-00000009")
    assert cli("train", "digits", "--run", run) == 0
    assert "is of another run" in plain(capsys.readouterr().err)
    assert before.items() <= snapshot(run / "checkpoints").items()


def test_one_process_alone_is_not_sharded(tmp_path, capsys):
    assert train(tmp_path / "run", "--shard") == 2
    assert "--shard needs several processes: torchrun" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
