"""bench.latents from end to end on the digits, and its arithmetic on curves made by hand."""

import math
import sys

import pytest
import torch
from bench.machine import count_flops
from torch import nn

from bench import latents
from bytepixels.build import build_network
from bytepixels.errors import InputError
from bytepixels.runs.run_directory import open_run
from tests.tiny import read_json, words

LINE = words(
    "digits --sizes 8 --seconds 1200 --first-images 64 --tune-seconds 10 --lrs 1e-3 2e-3 -n 16 --steps 2 --points 2"
)


@pytest.fixture
def bench(tmp_path, monkeypatch):
    def call(*flags):
        line = [*LINE, "--runs", tmp_path / "runs", "--found", tmp_path / "found", *flags]
        monkeypatch.setattr(sys, "argv", ["bench.latents", *map(str, line)])
        monkeypatch.setattr(latents, "network_cost", lambda arm: {"weights": 7, "seconds": 5.0, "flops": 1e6})
        latents.main()
        return {path.stem.split("-")[2]: read_json(path) for path in (tmp_path / "found").iterdir()}

    return call


@pytest.mark.slow
def test_arms_have_the_same_seconds_first_stage_included(bench, tmp_path, monkeypatch, capsys):
    found = bench("--arms", "pixel", "f2", "--seeds", 0)
    pixel, f2 = found["pixel"], found["f2"]
    spent = f2["first"]["seconds"] + f2["first"]["encode_seconds"]
    assert 0 < spent < 1200
    for arm, left in ((pixel, 1200.0), (f2, 1200.0 - spent)):
        (run,) = arm["runs"]
        assert run["points"][-1]["images"] == max(2, math.floor(left / 5.0 / 32)) * 32
        assert run["lr"] == min(arm["tuning"], key=lambda one: one["frechet"][0])["lr"]
        first, last = run["points"]
        assert first["images"] < last["images"]
        assert last["seconds"] == pytest.approx(1200.0 - left + run["training_seconds"], abs=0.1)
        assert all(point["seconds_per_sample"] > 0 for point in run["points"])
    config = open_run(tmp_path / "runs/8-f2/seed-0").config
    assert open_run(tmp_path / "runs/8-f2/autoencoder").config.autoencoder.factor == 2
    assert config.network == open_run(tmp_path / "runs/8-pixel/seed-0").config.network
    assert config.train.lr == f2["runs"][0]["lr"]
    assert f2["first"]["frechet"][0] > pixel["floor"]["frechet"][0]  # 64 images teach little
    said = capsys.readouterr().out
    assert "8 x 8" in said
    assert f"| f2 | {spent:.0f} s, {f2['first']['psnr']:.1f} dB, " in said
    assert "f2: pixels' " in said
    monkeypatch.setattr(latents, "trained", None)  # nothing is trained again
    assert bench("--arms", "pixel", "f2", "--seeds", 0) == found
    with pytest.raises(InputError, match="take another --found"):
        bench("--arms", "pixel", "-n", 17)


@pytest.mark.slow
def test_a_first_stage_that_takes_the_whole_budget_is_said(bench, monkeypatch):
    line = ("--arms", "f2", "--seconds", 0.01)
    with pytest.raises(InputError, match=r"--seconds 0\.01 is less than the first stage of f2 took"):
        bench(*line)
    monkeypatch.setattr(latents, "machine", lambda device: "another")  # its seconds have no place beside these
    with pytest.raises(InputError, match="take another --found"):
        bench(*line)


def test_what_a_training_step_costs(monkeypatch, tmp_path):
    """The network's own weights, and three times the operations of a forward pass, attention's among them."""
    line = ["bench.latents", "digits", "--found", str(tmp_path), "--width", "8"]
    monkeypatch.setattr(sys, "argv", line)
    arm = latents.Arm("f2", 8, latents.parsed())
    cost = latents.network_cost(arm)
    network = build_network(arm.config(1000, 1e-3, 0, 1), (4, 4, 4), 0, torch.device("cpu"))
    x, t = torch.randn(1, 4, 4, 4), torch.full((1,), 500.0)
    assert cost["weights"] == sum(p.numel() for p in network.parameters())
    assert 2 < cost["flops"] / count_flops(lambda: network(x, t)) < 3  # no gradient of the images
    assert cost["seconds"] > 0


def test_attention_is_counted():
    """Two products of N x N x D for every head of every image, two operations each."""
    q = torch.randn(2, 3, 10, 8)
    assert count_flops(lambda: nn.functional.scaled_dot_product_attention(q, q, q)) == 2 * 2 * 2 * 3 * 10 * 10 * 8


def arm(name, seconds, distances, first=0.0):
    points = [{"seconds": s, "frechet": [d, 0.1]} for s, d in zip(seconds, distances, strict=True)]
    return {"arm": name, "runs": [{"points": points}], "first": {"seconds": first, "encode_seconds": 0.0}}


def test_when_a_distance_is_reached_and_when_it_pays():
    pixel, f4 = arm("pixel", (500, 1000), (8, 2)), arm("f4", (600, 1000), (4, 1), first=300)
    assert latents.reached(f4, 4) == 600
    assert latents.reached(f4, 2) == pytest.approx(800)  # half way in the logarithm
    assert latents.reached(f4, 8) == 600  # the first point is all that is known
    assert latents.reached(f4, 0.5) is None
    # 500 s of its own training where pixels take 1000: the first run saves 500 s and the first stage took 300
    assert (
        latents.pays(pixel, f4)
        == "f4: pixels' 2 of 1000 s after 800 s, 500 s of them its own training: pays from run 1 on"
    )
    slow = arm("f2", (1500, 2000), (4, 1), first=1100)  # 650 s: three runs save 1050 s, the fourth pays for it
    assert latents.pays(pixel, slow).endswith("after 1750 s, 650 s of them its own training: pays from run 4 on")
    assert latents.pays(pixel, arm("f8", (600, 2000), (4, 1))).endswith(
        "after 1300 s, 1300 s of them its own training: never pays"
    )
    assert latents.pays(pixel, arm("f8", (600, 1000), (9, 3))) == "f8: pixels' 2 of 1000 s is not reached in 1000 s"
