"""--batch 0: the batch from the length of a training."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from bytepixels.config.presets import small
from bytepixels.data import pack
from bytepixels.training.autotune import batch_size as module
from bytepixels.training.autotune.batch_size import batch_for, with_batch_size
from tests.sampling.captioned import colour_images
from tests.sampling.test_first_stage import first_stage
from tests.tiny import TINY, checkpoints, cli, read_json

CPU = torch.device("cpu")
AUTO = [word if TINY[at - 1] != "--batch" else "0" for at, word in enumerate(TINY)]


@pytest.mark.parametrize(("images", "batch"), [(1, 32), (31_999, 32), (32_000, 64), (1e9, 64)])
def test_few_images_are_taken_in_small_batches(images, batch):
    assert batch_for(images) == batch


@pytest.mark.parametrize(("seconds", "batch"), [(1.0, 32), (0.13, 32), (0.1, 64)])
def test_a_budget_of_time_is_reckoned_from_a_step_of_the_smallest(monkeypatch, seconds, batch):
    seen = []
    monkeypatch.setattr(module, "timed_steps", lambda config, *_: seen.append(config.train.batch) or (9.0, seconds))
    config = small()
    config = replace(config, train=replace(config.train, budget="2m", micro_batch=0))
    assert with_batch_size(config, pack("digits"), CPU).train.batch == batch  # 120 s are 32 images times 120 / seconds
    assert seen == [32]


@pytest.mark.parametrize(("side", "count"), [(8, 32), (64, 32), (128, 8), (512, 1)])
def test_of_large_images_few_are_measured(monkeypatch, tmp_path, side, count):
    np.save(tmp_path / "large.npy", np.zeros((2, side, side), np.uint8))
    seen = []
    monkeypatch.setattr(module, "timed_steps", lambda config, *_: seen.append(config.train.batch) or (9.0, 1.0))
    config = small()
    config = replace(config, train=replace(config.train, budget="40000s"))
    chosen = with_batch_size(config, pack(tmp_path / "large.npy"), CPU).train.batch
    assert (seen, chosen) == ([count], 64 if 40_000 * count >= 32_000 else 32)


def test_with_words_by_time(tmp_path):
    source = colour_images(tmp_path / "in")
    line = ("train", source, *AUTO, "--text", "wordllama", "--budget", "4s", "--run", tmp_path / "run")
    assert cli(*line) == 0
    assert read_json(tmp_path / "run/config.json")["config"]["train"]["batch"] in (32, 64)


def test_a_batch_that_was_asked_for_stays():
    config = small()
    config = replace(config, train=replace(config.train, batch=48))
    assert with_batch_size(config, pack("digits"), CPU) is config


def test_a_run_keeps_the_batch_that_it_began_with(tmp_path, capsys):
    run = tmp_path / "run"
    assert cli("train", "digits", *AUTO, "--images", 64, "--run", run) == 0
    assert "Batch size 32, chosen for the length of the training (--batch)" in capsys.readouterr().out
    assert read_json(run / "config.json")["config"]["train"]["batch"] == 32
    assert [path.name for path in checkpoints(run)] == ["step-00000002"]
    assert cli("train", "digits", "--run", run, "--batch", 0, "--images", 96) == 0  # nothing is reckoned anew
    assert checkpoints(run)[-1].name == "step-00000003"


def test_by_time_it_is_measured_here(tmp_path):
    run = tmp_path / "run"
    assert cli("train", "digits", *AUTO, "--budget", "3s", "--run", run) == 0
    assert read_json(run / "config.json")["config"]["train"]["batch"] in (32, 64)


def test_on_latents_by_time(tmp_path):
    stage, run = first_stage(tmp_path / "stage"), tmp_path / "run"
    assert cli("train", "digits", *AUTO, "--autoencoder", stage, "--budget", "5s", "--run", run) == 0
    assert read_json(run / "config.json")["config"]["train"]["batch"] in (32, 64)
