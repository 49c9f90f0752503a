"""Runs of the first versions, without id, seals or spare copies, still open: one is built here as that code wrote it.

first_config.json is what commit 8908c13 wrote for the tests' tiny network (`train digits`, two steps of 32).
"""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bytepixels.build import build_network
from bytepixels.runs.run_directory import open_run
from bytepixels.training.loop import TrainState
from bytepixels.training.resume import load_latest
from tests.verbs import tiny
from tests.verbs.tiny import checkpoints, cli, log_of, read_json, snapshot, tensors

CONFIG = json.loads((Path(__file__).parent / "first_config.json").read_text())


def values(step, width=8):
    """What a checkpoint of that time held, made up: {stem: {name: tensor}}."""
    shapes = network_shapes(width)
    generator = torch.Generator().manual_seed(step)
    draw = {name: torch.randn(shape, generator=generator) / 10 for name, shape in shapes.items()}
    optimizer = {f"{name}.step": torch.tensor(float(step)) for name in shapes}
    optimizer |= {f"{name}.exp_avg": value / 10 for name, value in draw.items()}
    optimizer |= {f"{name}.exp_avg_sq": value.square() for name, value in draw.items()}
    return {"model": draw, "ema": {name: value / 2 for name, value in draw.items()}, "optimizer": optimizer}


def network_shapes(width):
    from bytepixels.config.run import Config

    config = Config.from_dict(CONFIG["config"] | {"network": CONFIG["config"]["network"] | {"width": width}})
    network = build_network(config, (1, 8, 8), 10, torch.device("cpu"))
    return {name: value.shape for name, value in network.state_dict().items()}


def write_run(path, width=8):
    """Two checkpoints, a log and a config.json, in the order and the words of that time."""
    (path / "samples").mkdir(parents=True)
    config = CONFIG | {"config": CONFIG["config"] | {"network": CONFIG["config"]["network"] | {"width": width}}}
    (path / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    for step in (1, 2):
        folder = path / "checkpoints" / f"step-{step:08d}"
        folder.mkdir(parents=True)
        for stem, named in values(step, width).items():
            save_file(named, folder / f"{stem}.safetensors")
        sums = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}
        state = {"format": 1, "step": step, "images": 32 * step, "sha256": sums}
        (folder / "state.json").write_text(json.dumps(state, indent=2) + "\n")
        with open(path / "log.jsonl", "a") as log:
            line = {"step": step, "images": 32 * step, "loss": 0.8, "grad_norm": 1.4, "lr": 4e-07}
            log.write(json.dumps(line | {"images_per_second": 307.5, "time": 1795561056.28}) + "\n")
    return path


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "old")


def train(run, steps):
    return cli("train", "digits", "--run", run, "--images", 32 * steps, "--steps", 3)


def test_its_checkpoint_is_loaded_bit_for_bit(run):
    opened = open_run(run)
    assert opened.id is None
    state = TrainState.fresh(build_network(opened.config, opened.shape, 10, torch.device("cpu")), opened.config.train)
    assert load_latest(opened, state) == 2
    written, loaded = values(2), state.tensors()
    for stem, named in written.items():
        assert loaded[stem].keys() == named.keys()
        assert all(torch.equal(loaded[stem][name], value) for name, value in named.items())


def test_it_is_drawn_from_listed_shown_and_finished(run, capsys):
    before = snapshot(run)
    assert cli("sample", run, "-n", 1, "--steps", 3, "--out", run.parent / "out") == 0
    assert read_json(run.parent / "out" / "manifest.json")["checkpoint"] == "step-00000002"
    assert cli("runs", "list", run.parent) == 0
    assert cli("runs", "show", run) == 0
    said = capsys.readouterr().out
    assert "finished" in said
    assert said.count(": whole") == 2
    assert "id none, of an early version" in said
    assert cli("train", "digits", "--run", run) == 0
    assert "is finished: 64 images seen" in capsys.readouterr().out
    assert {name: found for name, found in snapshot(run).items() if name != ".lock"} == before


def test_it_goes_on_and_its_checkpoints_of_both_kinds_open(run, capsys):
    assert train(run, 4) == 0
    assert "going on from 64 images" in capsys.readouterr().out
    assert [line["step"] for line in log_of(run)] == [1, 2, 3, 4]
    assert [path.name for path in checkpoints(run)] == ["step-00000002", "step-00000003", "step-00000004"]
    made_by = read_json(run / "config.json")["made_by"]
    assert [type(one) for one in made_by] == [dict, dict]
    assert cli("runs", "show", run) == 0
    assert capsys.readouterr().out.count(": whole") == 3
    for name in ("step-00000004", "step-00000002"):
        assert cli("sample", run, "-n", 1, "--checkpoint", name, "--steps", 3) == 0


def test_a_run_whose_maker_was_one_record(run):
    saved = read_json(run / "config.json")
    saved["made_by"] = saved["made_by"][0]  # and nothing of what was asked for
    saved["data"].pop("asked")
    (run / "config.json").write_text(json.dumps(saved))
    assert train(run, 3) == 0
    assert [type(one) for one in read_json(run / "config.json")["made_by"]] == [dict, dict]


def test_damage_is_found_as_ever(run, capsys):
    path = run / "checkpoints" / "step-00000002" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 16
    path.write_bytes(content)
    assert train(run, 3) == 0
    said = capsys.readouterr()
    assert "step-00000002/model.safetensors is damaged" in said.err
    assert "going on from 32 images" in said.out


@pytest.mark.parametrize("width", [8, 16])
def test_a_checkpoint_of_another_network_or_a_later_run_is_refused(run, tmp_path, capsys, width):
    if width == 16:
        other = write_run(tmp_path / "other", width) / "checkpoints" / "step-00000002"
    else:
        assert tiny.train(tmp_path / "other") == 0
        (other,) = checkpoints(tmp_path / "other")
    capsys.readouterr()
    whole = tensors(run / "checkpoints" / "step-00000001")
    (run / "checkpoints" / "step-00000002").rename(tmp_path / "aside")
    other.rename(run / "checkpoints" / "step-00000002")
    assert cli("sample", run, "-n", 1, "--steps", 3, "--checkpoint", "step-00000002") == 2
    reason = "is of another network" if width == 16 else "is of another run"
    assert f"step-00000002 {reason}" in capsys.readouterr().err
    assert train(run, 2) == 0
    said = capsys.readouterr()
    assert f"step-00000002 {reason}" in said.err
    assert "going on from 32 images" in said.out
    again = tensors(run / "checkpoints" / "step-00000001")
    assert all(torch.equal(again[name], whole[name]) for name in whole)
