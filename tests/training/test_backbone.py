"""--backbone dit through the command line: it trains, goes on, draws, is measured and shown as the U-Net is."""

import numpy as np
import pytest

from tests.sampling.test_output import draw, farthest
from tests.tiny import STEP, checkpoints, cli, log_of, plain, read_json, same_bits, tensors, words

DIT = words(
    """
    --preset digits --backbone dit --patch 2 --width 16 --depth 2 --heads 2 --registers 1 --dropout 0.2
    --schedule cosine --prediction v --lr 0.002 --warmup 0 --lr-decay none --ema-half-life 10000 --batch 32
    --precision float32 --device cpu --log-seconds 0 --previews 0 --sampler ddim --steps 3
    """
)


def train(run, *flags, steps=2):
    return cli("train", "digits", *DIT, "--images", steps * STEP, *flags, "--run", run)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """12 steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BYTEPIXELS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        path = tmp_path_factory.mktemp("dit") / "run"
        assert train(path, steps=12) == 0
    return path


def test_it_trains(run):
    losses = [line["loss"] for line in log_of(run)]
    assert len(losses) == 12
    assert np.isfinite(losses).all()
    assert np.mean(losses[-3:]) < losses[0]
    assert read_json(run / "config.json")["config"]["network"]["backbone"] == "dit"
    assert tensors(checkpoints(run)[-1])["model/registers"].shape == (1, 16)


@pytest.mark.parametrize("positions", ["rope", "sincos"])
def test_a_resume_is_bitwise_the_run_that_never_stopped(tmp_path, positions):
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    assert train(straight, "--positions", positions, steps=5) == 0
    assert train(stopped, "--positions", positions, steps=2) == 0
    assert cli("train", "digits", "--run", stopped, "--images", 5 * STEP) == 0  # no flag need be repeated
    assert same_bits(checkpoints(straight)[-1], checkpoints(stopped)[-1]) == []


def test_micro_batches_train_the_same(run, tmp_path):
    assert train(tmp_path / "micro", "--micro-batch", 5, steps=3) == 0
    for one, whole in zip(log_of(tmp_path / "micro"), log_of(run)[:3], strict=True):
        assert one["loss"] == pytest.approx(whole["loss"], rel=1e-5)


def test_an_image_depends_on_its_seed_alone(run, tmp_path):
    together, _ = draw(run, tmp_path / "together", "-n", 5, "--guidance", 2)
    parts, _ = draw(run, tmp_path / "parts", "-n", 5, "--guidance", 2, "--batch", 2)
    alone, _ = draw(run, tmp_path / "alone", "-n", 1, "--guidance", 2, "--seed", 3)
    assert farthest(together, parts) <= 1
    assert farthest(together, alone) <= 1
    assert farthest(together, draw(run, tmp_path / "unguided", "-n", 5)[0]) > 0


def test_every_verb_takes_it(run, tmp_path, capsys):
    image = tmp_path / "one" / "seed-0.png"
    draw(run, tmp_path / "one", "-n", 1, "--sampler", "unipc_3")
    for line in (
        ("evaluate", run, "-n", 20),
        ("evaluate", run, "--loss", "-n", 20),
        ("evaluate", run, "--bits", "-n", 2, "--steps", 3, "--ode-steps", 2),
        ("compare", run, "--steps", 2, "--samplers", "ddim", "-n", 20),
        ("edit", "vary", run, image, "--strength", 0.5, "-n", 1, "--out", tmp_path / "edit"),
        ("runs", "list", run.parent),
    ):
        assert cli(*line) == 0, line
    capsys.readouterr()


def test_its_own_settings_are_shown_and_repeat_it(run, tmp_path, capsys):
    assert cli("runs", "show", run) == 0
    shown = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("train another"))
    flags = words(shown.removeprefix("train another like it: bytepixels train digits --preset digits "))
    assert flags[:2] == ["--backbone", "dit"]
    assert "--multipliers" not in flags
    command = ["train", "digits", "--preset", "digits", *flags, "--device", "cpu", "--precision", "float32"]
    assert cli(*command, "--run", tmp_path / "again") == 0
    assert same_bits(checkpoints(run)[-1], checkpoints(tmp_path / "again")[-1]) == []
    assert cli("report", run) == 0
    assert f"--preset digits {' '.join(flags)}" in (run / "report.html").read_text()


def test_a_learned_variance_and_flow(tmp_path):
    flags = "--variance learned --objective hybrid --sampler ddpm --previews 1 --preview-images 2"
    assert train(tmp_path / "learned", *words(flags)) == 0
    assert train(tmp_path / "flow", *words("--diffusion flow --positions sincos --patch 4")) == 0
    assert cli("sample", tmp_path / "flow", "-n", 1) == 0


def test_it_is_profiled(tmp_path, capsys):
    assert train(tmp_path / "run", "--profile", 2, steps=6) == 0
    assert "GFLOP/s that large float32 matrix products reach here" in plain(capsys.readouterr().out)


def test_the_presets_dit_and_the_name_of_its_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    few = ("--images", 64, "--batch", 64, "--previews", 0)
    assert cli("train", "digits", "--preset", "digits", "--backbone=dit", *few) == 0
    assert cli("train", "digits", "--preset", "digits", "--backbone", "unet", *few) == 0
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["digits-digits", "digits-digits-dit"]


REFUSED = {
    "another backbone": ("--backbone vit", "--backbone must be one of unet, dit, unet2d; got 'vit'"),
    "levels": ("--multipliers 1 2", "--multipliers belongs to --backbone unet, got --backbone dit"),
    "its default": ("--multipliers 1 2 2 2", "--multipliers belongs to --backbone unet, got --backbone dit"),
    "with =": ("--blocks=3", "--blocks belongs to --backbone unet, got --backbone dit"),
    "patch": (
        "--patch 3 --size 8 8",
        "8 x 8 images do not divide into patches of 3 x 3: each side must be a multiple of 3",
    ),
    "no patch": ("--patch 0", "--patch must be at least 1, got 0"),
    "heads": ("--heads 3", "--heads must divide the width 16, got 3"),
    "narrow heads": ("--heads 8", "positions rope needs 4, 8, 12, ... channels in a head, got 16 / 8 heads"),
    "positions": ("--positions learned", "--positions must be one of rope, sincos; got 'learned'"),
    "registers": ("--registers -1", "--registers must be at least 0, got -1"),
}


@pytest.mark.parametrize(("flags", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(tmp_path, capsys, flags, sentence):
    assert train(tmp_path / "run", *words(flags)) == 2
    error = capsys.readouterr().err
    assert sentence in plain(error)
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("flags", ["--patch 4", "--patch=2", "--depth 3", "--positions rope", "--registers 0"])
def test_a_unet_refuses_what_is_a_dits(tmp_path, capsys, flags):
    assert cli("train", "digits", *words(flags), "--run", tmp_path / "run") == 2
    flag = flags.replace("=", " ").split()[0]
    assert f"{flag} belongs to --backbone dit, got --backbone unet" in plain(capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


def test_a_run_keeps_its_backbone(run, capsys):
    assert cli("train", "digits", "--run", run, "--backbone", "unet", "--images", 9999) == 2
    assert f"{run} was begun with --backbone dit, got unet; choose another --run" in plain(capsys.readouterr().err)
    assert cli("train", "digits", "--run", run, "--depth", 3, "--images", 9999) == 2
    assert "was begun with other settings (--depth 2 -> 3)" in plain(capsys.readouterr().err)
