"""Loggers: TensorBoard and Weights & Biases are told every number, grid and measurement of a training."""

import json
import sys

import pytest

from bytepixels.training import trainer
from tests.tiny import cli, log_of, plain, train

FLAGS = ("--previews", 2, "--preview-images", 4, "--measure", 20)


class Notebook:
    """A logger that remembers what it is told."""

    def __init__(self):
        self.told, self.grids, self.closed = [], [], 0

    def numbers(self, values, images):
        self.told.append((images, values))

    def grid(self, pixels, images):
        self.grids.append((images, tuple(pixels.shape), pixels.dtype))

    def close(self):
        self.closed += 1


def test_a_logger_hears_of_all(tmp_path, monkeypatch):
    """Every line of the log, every grid, every measurement, and the end, also of a training that goes on."""
    heard = Notebook()
    monkeypatch.setattr(trainer, "open_loggers", lambda run, config, images: [heard])
    run = tmp_path / "run"
    assert train(run, *FLAGS, "--log-seconds", 0, steps=4) == 0
    logged = [(line["images"], line["loss"]) for line in log_of(run)]
    assert [(images, values["loss"]) for images, values in heard.told if "loss" in values] == logged
    measured = [json.loads(line) for line in (run / "eval.jsonl").read_text().splitlines()]
    distances = [(one["images"], one["kernel_distance"]) for one in measured]
    assert [(at, told["kernel_distance"]) for at, told in heard.told if "kernel_distance" in told] == distances
    assert [images for images, _, _ in heard.grids] == [one["images"] for one in measured]
    assert all(not {"step", "images", "n"} & values.keys() for _, values in heard.told)
    assert heard.closed == 1


def test_tensorboard_has_the_grids(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert train(tmp_path / "run", *FLAGS, "--tensorboard", steps=4) == 0
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert len(events.Images("samples")) == 2
    assert {"loss", "kernel_distance"} <= set(events.Tags()["scalars"])


def test_weights_and_biases_offline(tmp_path, monkeypatch, capsys):
    """Nothing is sent; the file holds the log, the settings and a grid, and a training that goes on is the same run."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = tmp_path / "run"
    assert train(run, *FLAGS, "--wandb", "own-project", steps=2) == 0
    assert train(run, *FLAGS, "--wandb", "own-project", steps=4) == 0
    sessions = [one for one in (run / "wandb").glob("offline-run-*") if one.is_dir()]
    own = json.loads((run / "config.json").read_text())["id"]
    assert sessions
    assert all(one.name.endswith(own) for one in sessions)
    files = list((run / "wandb").rglob("*.wandb"))
    content = b"".join(path.read_bytes() for path in files)
    assert all(word in content for word in (b"own-project", b"kernel_distance", b"grad_norm", b"multipliers"))
    assert list((run / "wandb").rglob("media/images/samples*.png"))
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "module", "extra"),
    [(["--wandb", "x"], "wandb", "wandb"), (["--tensorboard"], "torch.utils.tensorboard", "tensorboard")],
)
def test_without_the_package(flags, module, extra, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, module, None)
    assert cli("train", "digits", "--preset", "digits", "--run", tmp_path / "run", "--images", 32, *flags) == 2
    assert f"pip install 'bytepixels[{extra}]'" in plain(capsys.readouterr().err)
