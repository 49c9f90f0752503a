"""edm, flow and learned variance from train to sample, and autoguidance: through the command line."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from bytepixels.core.gaussian_diffusion import SPACINGS
from bytepixels.registries import SAMPLERS
from bytepixels.sampling.trained_model import TrainedModel
from tests.sampling.test_output import CPU, draw, farthest, train_once
from tests.tiny import checkpoints, cli, log_of, plain, read_json, same_bits, train, words

KINDS = {
    "edm": words("--diffusion edm --weighting edm"),
    "edm_eps": words("--diffusion edm --prediction eps"),
    "flow": words("--diffusion flow --weighting velocity"),
    "flow_logit_normal": words("--diffusion flow --times logit_normal --prediction x0 --weighting velocity"),
}
OWN_SPACING = {"edm": "karras", "edm_eps": "karras", "flow": "trailing", "flow_logit_normal": "trailing"}


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def run(kind, tmp_path_factory):
    return train_once(tmp_path_factory, *words("--warmup 0 --lr-decay none --steps 6"), *KINDS[kind], steps=12)


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A variance learned on digits; --keep 9 and a checkpoint at every step, for the weaker models."""
    flags = "--warmup 0 --lr-decay none --steps 6 --variance learned --objective hybrid --checkpoint-minutes 0 --keep 9"
    return train_once(tmp_path_factory, *words(flags), steps=8)


def test_it_trains_and_its_settings_are_in_the_run(kind, run):
    losses = [line["loss"] for line in log_of(run)]
    assert len(losses) == 12
    assert np.isfinite(losses).all()
    config = read_json(run / "config.json")["config"]
    assert config["process"]["diffusion"] == kind.split("_")[0]
    assert config["process"]["weighting"] == ("none" if kind == "edm_eps" else KINDS[kind][-1])


@pytest.mark.parametrize("kind", ["edm", pytest.param("flow", marks=pytest.mark.slow)])
def test_it_learns_and_has_no_limit_of_a_thousand_steps(tmp_path, kind):
    run = tmp_path / "run"
    assert train(run, *words("--warmup 0 --lr-decay none --lr 0.01"), *KINDS[kind], steps=40) == 0
    losses = [line["loss"] for line in log_of(run)]
    assert np.mean(losses[-10:]) < 0.85 * np.mean(losses[:5])
    _, manifest = draw(run, tmp_path / "out", "-n", 1, "--steps", 1001)
    assert manifest["settings"]["steps"] == 1001


def test_a_resume_is_bitwise_the_run_that_never_stopped(kind, tmp_path):
    flags = [*KINDS[kind], "--lr-decay", "none"]
    assert train(tmp_path / "straight", *flags, steps=5) == 0
    assert train(tmp_path / "stopped", *flags, steps=2) == 0
    assert cli("train", "digits", "--run", tmp_path / "stopped", "--images", 5 * 32) == 0
    assert same_bits(checkpoints(tmp_path / "straight")[-1], checkpoints(tmp_path / "stopped")[-1]) == []


@pytest.mark.parametrize("spacing", ["auto", *(pytest.param(one, marks=pytest.mark.slow) for one in SPACINGS)])
def test_every_sampler_runs_on_every_spacing(run, spacing):
    model = TrainedModel.open(run, device=CPU)
    for sampler in ("auto", *SAMPLERS):
        for steps in (1, 2, 5):
            settings = model.settings(sampler=sampler, spacing=spacing, steps=steps)
            states = []
            watch = lambda step, x, states=states: states.append(x)  # noqa: E731
            images = model.draw(settings, [0, 1], watch=watch)
            assert len(states) == steps + 1
            assert all(state.isfinite().all() for state in states), (sampler, steps)
            assert images.shape == (2, 1, 8, 8)


def test_the_first_state_is_noise_as_wide_as_the_process_says(kind, run):
    """edm: x_T has a standard deviation of 80; flow: of 1, at pure noise."""
    model, states = TrainedModel.open(run, device=CPU), []
    model.draw(model.settings(), range(64), watch=lambda step, x: states.append(x))
    assert states[0].std().item() == pytest.approx(80 if kind.startswith("edm") else 1, rel=0.05)


def test_samples_through_the_command_line(kind, run, tmp_path, capsys):
    images, manifest = draw(run, tmp_path / "own", "-n", 3, "--gif")
    assert f"Sampling with ddim, 6 steps, {OWN_SPACING[kind]} spacing" in capsys.readouterr().out
    assert manifest["settings"]["spacing"] == OWN_SPACING[kind]
    assert "auto" not in (manifest["settings"]["spacing"], manifest["settings"]["sampler"])
    with Image.open(tmp_path / "own" / "denoising.gif") as gif:
        assert gif.n_frames == 7
    guided, _ = draw(run, tmp_path / "guided", "-n", 3, "--guidance", 3)
    assert farthest(images, guided) > 0
    _, manifest = draw(run, tmp_path / "ddpm", "-n", 2, "--sampler", "ddpm")
    assert manifest["settings"]["reverse_variance"] == "small"
    _, manifest = draw(run, tmp_path / "auto", "-n", 2, "--sampler", "auto", "--steps", 9)
    assert manifest["settings"]["sampler"] in SAMPLERS
    draw(run, tmp_path / "churn", "-n", 2, "--sampler", "heun", "--churn", 2)
    one, _ = draw(run, tmp_path / "one", "-n", 1, "--seed", 2)
    assert farthest(one, images) <= 1  # image k depends on seed k alone


REFUSED = [
    ("--diffusion flow --prediction eps", "--diffusion flow needs --prediction v or x0, got eps"),
    ("--diffusion edm --objective vlb", "--objective vlb bounds a chain of T steps: it needs --diffusion ddpm"),
    ("--diffusion edm --times importance", "--times with --diffusion edm must be one of auto, log_normal; got 'import"),
    ("--diffusion edm --zero-terminal-snr", "--zero-terminal-snr rescales the schedule of ddpm, edm has none"),
    ("--variance learned", "--variance learned needs --objective hybrid or vlb: simple never trains it"),
    ("--objective hybrid", "--objective hybrid needs --variance learned"),
    ("--objective vlb --weighting p2", "--objective vlb has the bound's own weights, got --weighting p2"),
    ("--weighting snr", "--weighting must be one of none, eps, min_snr"),
    ("--zero-terminal-snr --weighting uniform", "is over log SNR, which --zero-terminal-snr makes endless"),
    ("--sampler ddpm --reverse-variance learned", "--reverse-variance learned needs a run that was trained with"),
    ("--no-labels --guidance 2", "--guidance 2 needs class labels and a --label-dropout above 0"),
]


@pytest.mark.parametrize(("flags", "sentence"), REFUSED)
def test_what_training_refuses(tmp_path, capsys, flags, sentence):
    assert train(tmp_path / "run", *words(flags)) == 2
    error = capsys.readouterr().err
    assert sentence in plain(error)
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_another_process_is_another_run(run, kind, capsys):
    other = ("--diffusion", "flow") if kind.startswith("edm") else ("--diffusion", "edm")
    extra = ("--times", "auto", "--prediction", "v")
    assert cli("train", "digits", "--run", run, "--images", 9999, *other, *extra) == 2
    error = plain(capsys.readouterr().err)
    assert f"--diffusion {kind.split('_')[0]} -> {other[1]}" in error
    assert "choose another --run" in error


# ---- a learned variance


def test_ddpm_takes_the_variance_that_was_learned(learned, tmp_path):
    auto, manifest = draw(learned, tmp_path / "auto", "-n", 3, "--sampler", "ddpm")
    assert manifest["settings"]["reverse_variance"] == "learned"
    spelt, _ = draw(learned, tmp_path / "spelt", "-n", 3, "--sampler", "ddpm", "--reverse-variance", "learned")
    assert farthest(auto, spelt) == 0
    for variance in ("small", "large"):
        fixed, manifest = draw(
            learned, tmp_path / variance, "-n", 3, "--sampler", "ddpm", "--reverse-variance", variance
        )
        assert manifest["settings"]["reverse_variance"] == variance
        assert farthest(auto, fixed) > 0


@pytest.mark.parametrize("guidance", [1, 2.5])
@pytest.mark.parametrize("sampler", ["auto", *SAMPLERS])
def test_every_sampler_leaves_the_learned_variance_aside(learned, tmp_path, sampler, guidance):
    images, _ = draw(learned, tmp_path, "-n", 2, "--sampler", sampler, "--guidance", guidance)
    assert {one.shape for one in images.values()} == {(8, 8)}


def test_folders_of_different_variances_are_different(learned):
    for variance in ("small", "large", "learned"):
        assert cli("sample", learned, "-n", 1, "--sampler", "ddpm", "--reverse-variance", variance) == 0
        (folder,) = (learned / "samples").glob(f"ddpm-6-{variance}-seed-0")
        assert read_json(folder / "manifest.json")["settings"]["reverse_variance"] == variance


def test_previews_of_a_learned_variance(tmp_path):
    flags = words("--variance learned --objective vlb --times importance --sampler ddpm --previews 1")
    assert train(tmp_path / "run", *flags, "--preview-images", 4) == 0
    assert [path.name for path in (tmp_path / "run" / "samples").iterdir()] == ["images-000000064.png"]


# ---- autoguidance


def test_away_from_an_earlier_checkpoint_and_from_another_run(learned, tmp_path):
    plainly, _ = draw(learned, tmp_path / "plain", "-n", 3)
    early = checkpoints(learned)[0]
    away, manifest = draw(learned, tmp_path / "early", "-n", 3, "--guidance", 2, "--weak", early)
    assert manifest["weak"] == str(early)
    assert farthest(plainly, away) > 0
    copy = tmp_path / "copy"
    shutil.copytree(learned, copy)
    for checkpoint in checkpoints(copy)[1:]:
        shutil.rmtree(checkpoint)
    other, _ = draw(learned, tmp_path / "other", "-n", 3, "--guidance", 2, "--weak", copy)
    assert farthest(away, other) == 0
    assert farthest(draw(learned, tmp_path / "labels", "-n", 3, "--guidance", 2)[0], other) > 0


def test_away_from_itself_is_nowhere(learned, tmp_path):
    plainly, _ = draw(learned, tmp_path / "plain", "-n", 3)
    itself, _ = draw(learned, tmp_path / "itself", "-n", 3, "--guidance", 3, "--weak", learned)
    assert farthest(plainly, itself) <= 1


def test_away_from_a_run_without_labels(learned, tmp_path):
    weak = tmp_path / "weak"
    assert train(weak, "--no-labels", *words("--variance learned --objective hybrid"), steps=1) == 0
    plainly, _ = draw(learned, tmp_path / "plain", "-n", 2)
    away, _ = draw(learned, tmp_path / "away", "-n", 2, "--guidance", 2, "--weak", weak)
    assert farthest(plainly, away) > 0
    nowhere, _ = draw(weak, tmp_path / "nowhere", "-n", 2, "--guidance", 2, "--weak", weak)  # it needs no label itself
    assert farthest(nowhere, draw(weak, tmp_path / "unlabelled", "-n", 2)[0]) <= 1


def test_folders_say_what_they_are_guided_away_from(learned):
    early = checkpoints(learned)[0]
    assert cli("sample", learned, "-n", 1, "--guidance", 2, "--weak", early, "--guidance-interval", 0.5, 4) == 0
    assert (learned / "samples" / f"ddim-6-guidance-2-in-0.5-4-weak-run-{early.name}-seed-0" / "seed-0.png").exists()


@pytest.mark.parametrize(
    ("flags", "other", "own"),
    [
        ("--schedule linear", "schedule linear", "cosine"),
        ("--diffusion edm --variance fixed --objective simple", "diffusion edm", "ddpm"),
        ("--size 4 4", "images (1, 4, 4)", "(1, 8, 8)"),
        ("--channels 3", "images (3, 8, 8)", "(1, 8, 8)"),
    ],
)
def test_a_weaker_model_of_another_kind_is_refused(learned, tmp_path, capsys, flags, other, own):
    weak = tmp_path / "weak"
    assert train(weak, *words("--variance learned --objective hybrid"), *words(flags), steps=1) == 0
    assert cli("sample", learned, "--out", tmp_path / "out", "--guidance", 2, "--weak", weak) == 2
    error = capsys.readouterr().err
    assert f"--weak {weak} has {other}, {learned} has {own}" in plain(error)
    assert not (tmp_path / "out").exists()


def test_a_weaker_model_of_other_classes_is_refused(learned, tmp_path, capsys):
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8), np.uint8)
    np.savez(tmp_path / "pets.npz", images=images, labels=np.array(["cat", "dog"] * 6))
    weak = tmp_path / "weak"
    flags = words("--variance learned --objective hybrid --batch 4 --images 4")
    assert train(weak, *flags, steps=1, source=tmp_path / "pets.npz") == 0
    assert cli("sample", learned, "--guidance", 2, "--weak", weak) == 2
    assert f"--weak {weak} knows other classes than {learned}" in plain(capsys.readouterr().err)


def test_a_weaker_model_needs_guidance(learned, capsys):
    assert cli("sample", learned, "--weak", learned) == 2
    assert "--weak needs a --guidance other than 1, which is no guidance" in plain(capsys.readouterr().err)


def test_a_damaged_weaker_checkpoint_is_refused(learned, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(learned, copy)
    early = checkpoints(copy)[0]
    (early / "ema.safetensors").write_bytes(b"half")
    assert cli("sample", learned, "--guidance", 2, "--weak", early) == 2
    error = capsys.readouterr().err
    assert "ema.safetensors is damaged" in plain(error)
    assert "Traceback" not in error


def test_labels_that_were_never_dropped_cannot_guide(tmp_path, capsys):
    run = tmp_path / "run"
    assert train(run, "--label-dropout", 0, steps=1) == 0
    assert cli("sample", run, "--guidance", 2) == 2
    assert "--guidance 2 needs class labels, and this run was trained with --label-dropout 0" in capsys.readouterr().err
    draw(run, tmp_path / "weak", "-n", 1, "--guidance", 2, "--weak", run)  # but a weaker model can


# ---- runs of before


def test_a_run_of_before_the_other_processes_goes_on_and_samples(tmp_path):
    """Without the fields that its config.json could not have."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    for path in (run, whole):
        assert train(path, "--lr-decay", "none", "--spacing", "trailing") == 0
    saved = read_json(run / "config.json")
    for name in ("diffusion", "times", "weighting", "objective", "variance"):
        saved["config"]["process"].pop(name)
    for name in ("churn", "reverse_variance", "guidance_interval", "guidance_rescale", "guidance_parallel"):
        saved["config"]["sample"].pop(name)
    (run / "config.json").write_text(json.dumps(saved))
    before, after = (draw(path, tmp_path / f"{path.name}-out", "-n", 2) for path in (run, whole))
    assert farthest(before[0], after[0]) == 0
    assert before[1]["settings"] == after[1]["settings"]
    for path in (run, whole):
        assert train(path, "--lr-decay", "none", "--spacing", "trailing", steps=4) == 0
    assert same_bits(checkpoints(run)[-1], checkpoints(whole)[-1]) == []
    assert torch.isfinite(torch.tensor([line["loss"] for line in log_of(run)])).all()
