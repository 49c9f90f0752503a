"""bench.speedrun from end to end on the digits: variants in turn, measured on the way, kept, gone on with."""

import sys

import pytest

from bench import speedrun
from bytepixels.errors import InputError
from bytepixels.runs.run_directory import open_run
from tests.tiny import log_of, read_json, words

LINE = words("digits --preset digits --images 128 -n 16 --steps 2 --points 2")


@pytest.fixture
def bench(tmp_path, monkeypatch):
    def call(*flags):
        line = [*LINE, "--runs", tmp_path / "runs", "--json", tmp_path / "found.json", *flags]
        monkeypatch.setattr(sys, "argv", ["bench.speedrun", *map(str, line)])
        speedrun.main()
        return read_json(tmp_path / "found.json")

    return call


@pytest.mark.slow
def test_variants_are_trained_measured_and_kept(bench, tmp_path, monkeypatch, capsys):
    found = bench("--variants", "as it is", "muon, flow")
    assert [(run["variant"], run["seed"]) for run in found["runs"]] == [("as it is", 0), ("muon, flow", 0)]
    assert "--optimizer muon" in found["runs"][1]["settings"]
    assert "--diffusion flow" in found["runs"][1]["settings"]
    assert open_run(tmp_path / "runs/muon-flow-0").config.process.times == "logit_normal"
    for run, folder in zip(found["runs"], ("as-it-is-0", "muon-flow-0"), strict=True):
        assert [point["images"] for point in run["points"]] == [64, 128]
        assert run["points"][-1]["seconds"] <= log_of(tmp_path / "runs" / folder)[-1]["seconds"]
        assert 0 < run["points"][0]["seconds"] < run["points"][1]["seconds"]
        assert run["cpu_seconds"] > 0
        for point in run["points"]:  # two steps of training are noise, and held-out digits are digits
            assert point["frechet"][0] > 3 * found["floor"]["frechet"][0]
            assert point["kernel"][0] > found["floor"]["kernel"][0] + point["kernel"][1]
    monkeypatch.setattr(speedrun, "train", None)  # nothing is trained again
    far = max(point["frechet"][0] for run in found["runs"] for point in run["points"])
    assert bench("--variants", "as it is", "muon, flow", "--target", far) == found
    said = capsys.readouterr().out
    assert "| muon, flow | 1 | 64: " in said
    first = next(point for point in found["runs"][1]["points"] if point["frechet"][0] <= far)
    took = first["seconds"] / 60
    assert f"muon, flow, seed 0: Frechet distance {far:g}: {first['images']} images, {took:.1f} min" in said
    bench("--variants", "as it is", "--target", 0)
    assert "as it is, seed 0: Frechet distance 0: not reached" in capsys.readouterr().out


@pytest.mark.slow
def test_another_seed_is_another_run_and_other_settings_are_refused(bench, capsys):
    found = bench("--variants", "as it is", "--seeds", 0, 1)
    first, second = (run["points"][-1]["frechet"][0] for run in found["runs"])
    assert first != second
    assert f"({min(first, second):.3g} to {max(first, second):.3g})" in capsys.readouterr().out
    with pytest.raises(InputError, match="was measured with another images, n; choose another --json"):
        bench("--variants", "as it is", "--images", 64, "-n", 17)


def test_a_run_that_was_stopped_is_no_result(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(speedrun, "train", lambda source, config, path: 143)
    with pytest.raises(SystemExit) as stopped:
        bench("--variants", "as it is")
    assert stopped.value.code == 143
    assert not (tmp_path / "found.json").exists()
