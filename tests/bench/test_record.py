"""The record: what a contender comes to, in a process of its own, and the table of all."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bench.record import PEERS, table

RECORD = {
    "steps": 50,
    "source": "a.zip",
    "size": 32,
    "budget": "10m",
    "arm": "bytepixels",
    "weights": 4_450_892,
    "images": 50_000,
    "kernel": [0.5, 0.02],
    "frechet": [120.0, 3.0],
    "drawing": 0.05,
}


def test_one_line_for_each_contender_over_its_seeds():
    other = RECORD | {"kernel": [0.7, 0.02], "frechet": [130.0, 3.0], "images": 52_000}
    lines = table([RECORD, other, RECORD | {"arm": "diffusers", "weights": 10**6}]).splitlines()
    assert lines[2:] == [
        "| a.zip, 32 x 32 | 10m | bytepixels | 4.5M | 2 | 51,000 | 50 | 0.6 (0.5 to 0.7) | 125 (120 to 130) | 0.05 |",
        "| a.zip, 32 x 32 | 10m | diffusers | 1.0M | 1 | 50,000 | 50 | 0.5 | 120 | 0.05 |",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["bytepixels", "diffusers, same size"])
def test_a_contender_trains_for_its_processor_time_and_is_measured(tmp_path, arm):
    assert arm.partition(",")[0] in {"bytepixels", *PEERS}
    images = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "some.npz", images=images)
    line = ["-m", "bench.record", tmp_path / "some.npz", "--arms", arm, "--budget", "20s", "-n", "16", "--steps", "2"]
    line += ["--runs", tmp_path / "runs", "--found", tmp_path / "found.jsonl"]
    done = subprocess.run(
        [sys.executable, *map(str, line)], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 0, done.stderr
    (found,) = (json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines())
    assert 17 < found["seconds"] < 30
    assert found["images"] >= 32
    assert found["features"]["name"] == "imagenet"
    assert found["kernel"][0] > 0
    assert f"| {arm} |" in done.stdout
