"""train: what a run leaves behind, from every kind of source, and how it ends when the loss is not finite."""

import json
import math
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from bytepixels.config.run import Config
from bytepixels.data import pack
from bytepixels.data.batches import Batches
from bytepixels.images import beside
from bytepixels.training import diffusion_task
from bytepixels.training.preview_metric import kernel_record
from tests.tiny import (
    FILES,
    STEP,
    TINY,
    checkpoints,
    cli,
    log_of,
    pixels_of,
    read_json,
    same_bits,
    snapshot,
    tensors,
    train,
    words,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Five steps on digits, with every file that training can leave."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BYTEPIXELS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        path = tmp_path_factory.mktemp("train") / "run"
        flags = words("--previews 2 --preview-images 3 --checkpoint-minutes 0 --keep 2 --warmup 100")
        assert train(path, *flags, steps=5) == 0
    return path


def test_config_json_is_resolved_and_says_what_made_it(run):
    saved = read_json(run / "config.json")
    config = Config.from_dict(saved["config"])
    assert config.data.size == (8, 8)
    assert config.data.channels == 1
    assert config.data.flip == "no"
    assert config.train.precision == "float32"
    assert config.network.width == 8
    assert config.to_dict() == Config.from_dict(config.to_dict()).to_dict()
    data, (made_by,) = saved["data"], saved["made_by"]
    assert data["source"] == "digits"
    assert data["count"] == 1797
    assert data["classes"] == list("0123456789")
    assert all(len(data["sha256"][name]) == 64 for name in ("images", "labels"))
    assert made_by["torch"] == torch.__version__
    assert {"bytepixels", "python", "platform", "git_commit", "time"} <= made_by.keys()


def test_the_log_has_a_line_for_every_step(run):
    lines = log_of(run)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    assert [line["images"] for line in lines] == [STEP * step for step in range(1, 6)]
    for line in lines:
        assert all(math.isfinite(line[name]) for name in ("loss", "grad_norm", "lr", "images_per_second", "time"))
        assert line["grad_norm"] > 0
    rates = [line["lr"] for line in lines]
    assert rates[0] < rates[-1] < 2e-3  # the warm-up


def test_the_last_checkpoints_are_kept_whole(run):
    kept = checkpoints(run)
    assert [path.name for path in kept] == ["step-00000004", "step-00000005"]
    for step, checkpoint in enumerate(kept, 4):
        files = snapshot(checkpoint)
        state, run_id = read_json(checkpoint / "state.json"), read_json(run / "config.json")["id"]
        files.pop("state.json")
        assert files.keys() == {f"{stem}.safetensors" for stem in FILES}
        assert len(state.pop("seal")) == len(run_id) * 2 == 64
        assert state == {"format": 1, "run": run_id, "step": step, "images": step * STEP, "sha256": files}
        assert all(value.isfinite().all() for value in tensors(checkpoint).values())


def test_the_optimizer_is_saved_for_every_weight(run):
    saved = tensors(checkpoints(run)[-1])
    weights = {name.removeprefix("model/") for name in saved if name.startswith("model/")}
    assert weights == {name.removeprefix("ema/") for name in saved if name.startswith("ema/")}
    for weight in weights:
        assert saved[f"optimizer/{weight}.exp_avg"].shape == saved[f"model/{weight}"].shape
        assert saved[f"optimizer/{weight}.step"].item() == 5


def test_previews_are_what_the_raw_and_the_averaged_weights_draw(run, tmp_path):
    assert [path.name for path in sorted(run.glob("samples/*.png"))] == [
        "images-000000096.png",  # the first step past half of 160 images
        "images-000000160.png",
    ]
    for weights in ("model", "ema"):
        assert cli("sample", run, "-n", 3, "--seed", 0, "--weights", weights, "--out", tmp_path / weights) == 0
    raw, average = (torch.tensor(pixels_of(tmp_path / name / "grid.png"))[None] for name in ("model", "ema"))
    assert not torch.equal(raw, average)
    shown = pixels_of(run / "samples" / "images-000000160.png")
    assert shown.shape == (134, 134 + 12 + 134)  # 2 x 2 images of 64, gaps of 2, 12 between the two grids
    np.testing.assert_array_equal(shown, beside(raw, average)[0].numpy())


GOLDEN = (0.8387575149536133, 0.8370471000671387)


def test_golden_loss(tmp_path):
    """The first and last loss of ten steps as they were recorded, to 1e-4: sums are rounded otherwise on other
    processors and thread counts (about 1e-6 in the first step, growing as Adam divides by small gradients), while
    another order of data, times, noise or weights moves them by more than 1e-2.
    """
    assert train(tmp_path / "run", "--warmup", 0, "--seed", 3, steps=10) == 0
    losses = [line["loss"] for line in log_of(tmp_path / "run")]
    assert (losses[0], losses[-1]) == pytest.approx(GOLDEN, rel=1e-4)


# From images of every kind to images


def paint(path, height, width, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)).save(path)


@pytest.fixture
def flat(tmp_path):
    for k, (height, width) in enumerate([(12, 8), (20, 20), (9, 31), (16, 12), (8, 8), (30, 10)]):
        paint(tmp_path / "flat" / f"{k}.png", height, width, k)
    return tmp_path / "flat"


@pytest.fixture
def sorted_by_class(tmp_path):
    for k in range(6):
        paint(tmp_path / "pets" / ("cat", "dog", "emu")[k % 3] / f"{k}.png", 10, 10, k)
    return tmp_path / "pets"


@pytest.fixture
def zipped(sorted_by_class, tmp_path):
    with zipfile.ZipFile(tmp_path / "pets.v1.zip", "w") as archive:
        for file in sorted_by_class.rglob("*.png"):
            archive.write(file, file.relative_to(tmp_path))
    return tmp_path / "pets.v1.zip"


def test_a_flat_folder_of_mixed_sizes(flat, tmp_path, capsys):
    run, flags = tmp_path / "run", ["--size", 12, 10, "--fit", "pad", "--background", "black", "--flip", "auto"]
    assert train(run, *flags, source=flat) == 0
    said = capsys.readouterr().out
    assert "images have another aspect ratio than 12 x 10: padded." in said
    assert "note: Only 6 images: the model is likely to copy them" in said
    saved = read_json(run / "config.json")
    assert saved["config"]["data"]["flip"] == "yes"
    assert saved["config"]["data"]["size"] == [12, 10]
    assert saved["data"]["classes"] == []
    assert cli("sample", run, "-n", 2, "--out", tmp_path / "out") == 0
    assert pixels_of(tmp_path / "out" / "seed-1.png").shape == (12, 10, 3)
    assert "label" not in read_json(tmp_path / "out" / "manifest.json")["pictures"][0]


@pytest.mark.parametrize("kind", ["sorted_by_class", "zipped"])
def test_classes_become_labels(kind, request, tmp_path):
    source, run, out = request.getfixturevalue(kind), tmp_path / "run", tmp_path / "out"
    assert train(run, source=source) == 0
    assert read_json(run / "config.json")["data"]["classes"] == ["cat", "dog", "emu"]
    assert cli("sample", run, "-n", 4, "--seed", 2, "--out", out) == 0
    shown = [one["label"] for one in read_json(out / "manifest.json")["pictures"]]
    assert shown == ["emu", "cat", "dog", "emu"]
    assert cli("sample", run, "-n", 2, "--label", "dog", "--guidance", 2, "--out", out) == 0
    assert [one["label"] for one in read_json(out / "manifest.json")["pictures"]] == ["dog", "dog"]


@pytest.mark.parametrize(
    ("order", "name"),
    [
        (["digits", *TINY], "digits-digits"),
        (["digits", "--preset=digits", *TINY[2:]], "digits-digits"),
        (["pets.v1.zip", *TINY], "pets-digits"),
    ],
    ids=["source first", "--preset=digits", "a file"],
)
def test_the_run_is_named_by_source_and_preset(zipped, tmp_path, monkeypatch, order, name):
    monkeypatch.chdir(tmp_path)
    assert cli("train", *order, "--images", STEP) == 0
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [name]


def test_source_gives_the_run_its_name_wherever_it_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli("train", "--images", STEP, "digits", *TINY) == 0
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["digits-digits"]


def test_without_labels_when_asked(tmp_path, capsys):
    run = tmp_path / "run"
    assert train(run, "--no-labels") == 0
    assert not any("label" in name for name in tensors(checkpoints(run)[-1]))
    assert cli("sample", run, "--label", "3") == 2
    assert "was trained without labels" in capsys.readouterr().err


def test_tensorboard_files_appear(tmp_path):
    assert train(tmp_path / "run", "--tensorboard") == 0
    assert list((tmp_path / "run" / "tensorboard").glob("events.*"))


@pytest.mark.slow
def test_tensorboard_files_hold_every_line_of_the_log(tmp_path):
    flags = [*TINY, "--images", str(3 * STEP), "--tensorboard", "--run", str(tmp_path / "run")]
    command = [sys.executable, "-m", "bytepixels", "train", "digits", *flags]  # its files are whole when it exits
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    logged = [(line["images"], line["loss"]) for line in log_of(tmp_path / "run")]
    assert [(event.step, pytest.approx(event.value, rel=1e-5)) for event in events.Scalars("loss")] == logged


def test_samples_are_measured_along_the_way_on_request(tmp_path, capsys):
    """At every grid, of the average: what one finds with the same samples and features by hand."""
    run = tmp_path / "run"
    assert train(run, "--previews", 2, "--preview-images", 4, "--measure", 20, steps=4) == 0
    records = [json.loads(line) for line in (run / "eval.jsonl").read_text().splitlines()]
    assert [(one["kind"], one["images"], one["n"]) for one in records] == [("kernel", 64, 20), ("kernel", 128, 20)]
    assert [one["checkpoint"] for one in records] == ["step-00000002", "step-00000004"]
    last, packed = records[-1], pack("digits")
    assert last["kernel_distance"] > 100 * abs(last["floor"])  # noise is not digits
    assert last["reference"]["sha256"] == packed.meta["sha256"]["images"]
    assert f"at 128 images: kernel distance {last['kernel_distance']:.4g}" in capsys.readouterr().err
    assert cli("sample", run, "-n", 20, "--out", tmp_path / "drawn") == 0
    drawn = torch.stack([torch.tensor(pixels_of(tmp_path / "drawn" / f"seed-{k}.png")) for k in range(20)])
    assert kernel_record(drawn[:, None], packed)["kernel_distance"] == pytest.approx(last["kernel_distance"], rel=1e-3)
    assert cli("runs", "show", run) == 0
    assert "kernel_distance" in capsys.readouterr().out
    assert train(run, "--measure", 3, steps=4) == 2
    assert "--measure must be at least 16, got 3" in capsys.readouterr().err


# A loss that is not finite


@pytest.fixture
def poisoned(monkeypatch):
    """In step 3, image 5 of the batch has no finite loss; returns what undoes it."""
    honest, calls = diffusion_task.diffusion_loss, []

    def diffusion_loss(*args):
        errors, t = honest(*args)
        if len(errors) < STEP:  # how much memory they take is looked at first
            return errors, t
        calls.append(t)
        if len(calls) == 4:
            errors = errors * torch.where(torch.arange(len(errors)) == 5, math.nan, 1.0)
        return errors, t

    monkeypatch.setattr(diffusion_task, "diffusion_loss", diffusion_loss)
    return calls


@pytest.mark.parametrize("log_seconds", [0, 99], ids=["read at once", "read later"])
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, capsys, poisoned, monkeypatch, log_seconds):
    run = tmp_path / "run"
    drawn = {}
    indices = Batches.indices
    monkeypatch.setattr(Batches, "indices", lambda self, step: drawn.setdefault(step, indices(self, step)))
    assert train(run, "--log-seconds", log_seconds, "--checkpoint-minutes", 0, "--seed", 11, steps=6) == 1
    error, t, bad = capsys.readouterr().err, int(poisoned[3][5]), int(drawn[3][5])
    assert f"not finite at step 3 with seed 11 (image {bad}, t {t}, loss nan" in error
    assert str(run / "nonfinite.json") in error
    assert "Traceback" not in error
    report = read_json(run / "nonfinite.json")
    assert (report["step"], report["seed"]) == (3, 11)
    assert [one["image"] for one in report["batch"]] == drawn[3].tolist()
    assert [one["t"] for one in report["batch"]] == poisoned[3].tolist()
    assert [k for k, one in enumerate(report["batch"]) if one["loss"] == "nan"] == [5]
    assert checkpoints(run)[-1].name == "step-00000003"
    assert all(value.isfinite().all() for value in tensors(checkpoints(run)[-1]).values())


def test_after_a_loss_that_was_not_finite_the_same_command_goes_on(tmp_path, poisoned):
    run, whole = tmp_path / "run", tmp_path / "whole"
    flags = ["--checkpoint-minutes", 0, "--keep", 9]
    assert train(run, *flags, steps=6) == 1
    assert train(run, *flags, steps=6) == 0  # the poison was for the fourth call alone
    assert train(whole, *flags, steps=6) == 0
    assert same_bits(checkpoints(run)[-1], checkpoints(whole)[-1]) == []


def test_a_step_that_is_not_finite_can_be_left_out(tmp_path, capsys, poisoned):
    """Its log has it, the run goes on to its end, and what comes after is finite."""
    run = tmp_path / "run"
    assert train(run, "--on-nonfinite", "skip", "--checkpoint-minutes", 0, "--keep", 9, steps=6) == 0
    assert "1 step skipped: the loss or its gradient was not finite" in capsys.readouterr().err
    log = log_of(run)
    assert [line["step"] for line in log] == [1, 2, 3, 4, 5, 6]
    assert [line.get("skipped", 0) for line in log] == [0, 0, 0, 1, 0, 0]
    assert "loss" not in log[3]
    assert not (run / "nonfinite.json").exists()
    before, after, last = (tensors(checkpoints(run)[k]) for k in (2, 3, 5))
    kept = [name for name in before if not name.startswith("ema")]
    assert all(torch.equal(before[name], after[name]) for name in kept)  # weights, moments and Adam's count of steps
    assert all(value.isfinite().all() for value in last.values())
    assert cli("runs", "show", run) == 0
    assert "1 step left out" in capsys.readouterr().out


def test_skipping_changes_nothing_where_all_is_finite(tmp_path):
    assert train(tmp_path / "stop", steps=3) == train(tmp_path / "skip", "--on-nonfinite", "skip", steps=3) == 0
    stop, skip = (tensors(checkpoints(tmp_path / name)[-1]) for name in ("stop", "skip"))
    assert all(torch.equal(stop[name], skip[name]) for name in stop)


def test_when_every_step_is_not_finite_the_weights_are_to_blame(tmp_path, capsys, monkeypatch):
    from bytepixels.training import trainer

    honest = diffusion_task.diffusion_loss
    monkeypatch.setattr(diffusion_task, "diffusion_loss", lambda *a: (honest(*a)[0] * math.nan, honest(*a)[1]))
    monkeypatch.setattr(trainer, "MOST_SKIPPED", 5)
    assert train(tmp_path / "run", "--on-nonfinite", "skip", steps=9) == 1
    assert "not finite at step 4 " in capsys.readouterr().err
    assert read_json(tmp_path / "run/nonfinite.json")["step"] == 4


@pytest.mark.parametrize("bad", ["loss", "gradient"])
def test_no_checkpoint_holds_what_is_not_finite(tmp_path, capsys, monkeypatch, bad):
    from bytepixels.training import trainer

    def steps(state, *others):
        for result in honest(state, *others):
            if result.step < 3:
                yield result
            elif bad == "loss":
                yield result._replace(losses=result.losses * math.inf)
            else:
                yield result._replace(grad_norm=result.grad_norm * math.nan)

    honest = trainer.train_steps
    monkeypatch.setattr(trainer, "train_steps", steps)
    assert train(tmp_path / "run", "--log-seconds", 99, "--checkpoint-minutes", 99, steps=5) == 1
    assert "not finite at step 2 " in capsys.readouterr().err
    assert checkpoints(tmp_path / "run") == []
