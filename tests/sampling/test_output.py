"""sample: what it writes, that image k depends on seed k alone, and that every setting does what it says."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from bytepixels.config.sampling import SampleConfig
from bytepixels.core.gaussian_diffusion import SPACINGS
from bytepixels.core.samplers import best_sampler
from bytepixels.errors import InputError
from bytepixels.registries import SAMPLERS
from bytepixels.requests.sample import Sample
from bytepixels.runs.run_directory import open_run
from bytepixels.sampling.settings import chosen_settings
from bytepixels.sampling.trained_model import TrainedModel
from tests.tiny import checkpoints, cli, pixels_of, plain, read_json, snapshot, train, words

CPU = torch.device("cpu")


def train_once(tmp_path_factory, *flags, steps):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BYTEPIXELS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        path = tmp_path_factory.mktemp("sample") / "run"
        assert train(path, *flags, steps=steps) == 0
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """30 steps on digits: enough for labels, weights and settings to show in the images. Samples with 6 steps."""
    return train_once(tmp_path_factory, *words("--warmup 0 --lr-decay none --steps 6 --attention 0"), steps=30)


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory):
    return train_once(tmp_path_factory, "--no-labels", "--timesteps", 20, "--steps", 1, steps=1)


def draw(run, out, *flags):
    """{seed: image} and the manifest of one sample command."""
    assert cli("sample", run, "--out", out, *flags) == 0
    manifest = read_json(out / "manifest.json")
    return {one["seed"]: pixels_of(out / one["file"]) for one in manifest["pictures"]}, manifest


def farthest(some, others):
    """The largest difference in grey levels between images of the same seeds."""
    return max(int(np.abs(some[k].astype(int) - others[k]).max()) for k in some.keys() & others.keys())


def test_the_line_that_scripts_use(run, tmp_path, capsys):
    out = tmp_path / "OUT"
    flags = words("-n 16 --sampler ddim --steps 50 --seed 7")
    assert cli("sample", run, *flags, "--out", out) == 0
    assert f"16 images, grid.png and manifest.json: {out}" in capsys.readouterr().out
    names = [f"seed-{seed}.png" for seed in range(7, 23)]
    assert {path.name for path in out.iterdir()} == {*names, "grid.png", "manifest.json"}
    images = [pixels_of(out / name) for name in names]
    assert all(one.shape == (8, 8) and one.dtype == np.uint8 for one in images)
    assert len({one.tobytes() for one in images}) == 16
    manifest = read_json(out / "manifest.json")
    assert manifest["run"] == str(run)
    assert manifest["checkpoint"] == "step-00000030"
    assert manifest["weights"] == "ema"
    assert manifest["settings"] == {
        "sampler": "ddim", "steps": 50, "spacing": "trailing", "eta": 0.0, "churn": 0.0, "renoise": 0.0,
        "reverse_variance": "auto",
        "guidance": 1.0, "guidance_interval": None, "guidance_rescale": 0.0, "guidance_parallel": 1.0,
        "clip": True,
    }  # fmt: skip
    assert manifest["pictures"] == [
        {"file": f"seed-{seed}.png", "seed": seed, "label": str(seed % 10)} for seed in range(7, 23)
    ]
    assert manifest["made_by"]["torch"] == torch.__version__


def test_the_grid_holds_the_images_row_by_row(run, tmp_path):
    images, _ = draw(run, tmp_path, "-n", 5)
    sheet = pixels_of(tmp_path / "grid.png")
    assert sheet.shape == (2 + 2 * 66, 2 + 3 * 66)  # 5 images in 3 columns, enlarged 8 times
    for k, one in images.items():
        top, left = 2 + k // 3 * 66, 2 + k % 3 * 66
        np.testing.assert_array_equal(sheet[top : top + 64 : 8, left : left + 64 : 8], one)
    assert (sheet[68:134, 134:] == 255).all()  # the empty place


def test_classes_in_turn_get_a_column_each(run, tmp_path):
    images, _ = draw(run, tmp_path, "-n", 12, "--seed", 3)
    sheet = pixels_of(tmp_path / "grid.png")
    assert sheet.shape == (2 + 2 * 66, 2 + 10 * 66)
    np.testing.assert_array_equal(sheet[68 : 68 + 64 : 8, 68 : 68 + 64 : 8], images[14])  # below seed 4: class 4 too
    draw(run, tmp_path / "one", "-n", 12, "--label", "4")
    assert pixels_of(tmp_path / "one/grid.png").shape == (2 + 3 * 66, 2 + 4 * 66)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "heun", "dpmpp_2m"])
def test_image_k_depends_on_seed_k_alone(run, tmp_path, sampler):
    """Exact where the convolutions of this machine are; one grey level where another batch size sums otherwise."""
    flags = ["--sampler", sampler, "--seed", 3]
    whole, _ = draw(run, tmp_path / "whole", *flags, "-n", 5)
    assert len({one.tobytes() for one in whole.values()}) == 5
    one, _ = draw(run, tmp_path / "one", *flags, "-n", 1)
    assert farthest(one, whole) <= 1
    for batch in (1, 3):
        parts, _ = draw(run, tmp_path / str(batch), *flags, "-n", 5, "--batch", batch)
        assert parts.keys() == whole.keys()
        assert farthest(parts, whole) <= 1
    later, _ = draw(run, tmp_path / "later", "--sampler", sampler, "--seed", 5, "-n", 2)
    assert later.keys() == {5, 6}
    assert farthest(later, whole) <= 1


def test_the_same_command_draws_the_same_images(run, tmp_path):
    for name in ("a", "b"):
        draw(run, tmp_path / name, "-n", 3, "--sampler", "ddpm")
    a, b = snapshot(tmp_path / "a"), snapshot(tmp_path / "b")
    assert {k: v for k, v in a.items() if k.endswith("png")} == {k: v for k, v in b.items() if k.endswith("png")}


@pytest.fixture(scope="module")
def zero_snr(tmp_path_factory):
    return train_once(tmp_path_factory, "--zero-terminal-snr", "--warmup", 0, steps=3)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_runs_on_every_spacing(run, zero_snr, sampler, spacing):
    for path in (run, zero_snr):
        model = TrainedModel.open(path, device=CPU)
        for steps in (1, 2, 7):
            settings = model.settings(sampler=sampler, spacing=spacing, steps=steps)
            states = []
            watch = lambda step, x, states=states: states.append(x)  # noqa: E731
            images = model.draw(settings, [0, 1], watch=watch)
            assert len(states) == steps + 1
            assert all(state.isfinite().all() for state in states)
            assert images.shape == (2, 1, 8, 8)


@pytest.mark.parametrize(
    "flags",
    [
        ["--sampler", "ddpm"],
        ["--sampler", "heun"],
        ["--sampler", "dpmpp_2m"],
        ["--sampler", "unipc_3"],
        ["--sampler", "heun", "--churn", 2],
        ["--sampler", "ddpm", "--reverse-variance", "large"],
        ["--steps", 7],
        ["--spacing", "leading"],
        ["--spacing", "karras"],
        ["--eta", 1],
        ["--guidance", 3],
        ["--guidance", 0],
        ["--guidance", 3, "--guidance-interval", 0.5, 5],
        ["--guidance", 3, "--guidance-rescale", 1],
        ["--guidance", 3, "--guidance-parallel", 0],
        ["--clip", "False"],
        ["--label", "4"],
        ["--weights", "model"],
        ["--seed", 1],
    ],
    ids=lambda flags: " ".join(map(str, flags)),
)
def test_every_flag_changes_the_images_and_is_in_the_manifest(run, tmp_path, flags):
    plainly, usual = draw(run, tmp_path / "usual", "-n", 2)
    changed, manifest = draw(run, tmp_path / "changed", "-n", 2, *flags)
    assert [one.tobytes() for one in changed.values()] != [one.tobytes() for one in plainly.values()]
    manifest.pop("made_by"), usual.pop("made_by")
    assert manifest != usual


def test_the_runs_own_settings_are_the_default(tmp_path):
    guide = "--guidance 1.5 --guidance-interval 0.2 3 --guidance-rescale 0.5 --guidance-parallel 0.25"
    own = words(f"--sampler heun --steps 4 --spacing log_snr --churn 0.5 --clip False {guide}")
    assert train(tmp_path / "run", *own) == 0
    silent, manifest = draw(tmp_path / "run", tmp_path / "silent", "-n", 2)
    assert manifest["settings"] == {
        "sampler": "heun", "steps": 4, "spacing": "log_snr", "eta": 0.0, "churn": 0.5, "renoise": 0.0,
        "reverse_variance": "auto",
        "guidance": 1.5, "guidance_interval": [0.2, 3.0], "guidance_rescale": 0.5, "guidance_parallel": 0.25,
        "clip": False,
    }  # fmt: skip
    spelt = words(f"--sampler heun --steps 4 --spacing log_snr --churn 0.5 --clip False {guide}")
    said, _ = draw(tmp_path / "run", tmp_path / "said", "-n", 2, *spelt)
    assert farthest(silent, said) == 0


@pytest.mark.parametrize(
    ("with_flag", "without"),
    [
        ("--sampler heun --churn 2", "--sampler heun"),
        ("--sampler euler --churn 2", "--sampler euler"),
        ("--sampler ddpm --reverse-variance large", "--sampler ddpm"),
        ("--guidance 3 --guidance-interval 0.5 5", "--guidance 3"),
        ("--guidance 3 --guidance-rescale 1", "--guidance 3"),
        ("--guidance 3 --guidance-parallel 0", "--guidance 3"),
    ],
)
def test_what_another_flag_makes_room_for_does_something_too(run, tmp_path, with_flag, without):
    one, _ = draw(run, tmp_path / "with", "-n", 2, *words(with_flag))
    other, _ = draw(run, tmp_path / "without", "-n", 2, *words(without))
    assert farthest(one, other) > 0


def test_auto_is_said_and_is_the_best_sampler(run, tmp_path, capsys):
    for steps in (5, 8):
        auto, manifest = draw(run, tmp_path / f"auto-{steps}", "-n", 2, "--sampler", "auto", "--steps", steps)
        sampler, spacing = best_sampler(steps)
        assert (
            f"Sampling with {sampler}, {steps} steps, {spacing} spacing, averaged (EMA) weights of step 30\n"
            in capsys.readouterr().out
        )
        assert (manifest["settings"]["sampler"], manifest["settings"]["spacing"]) == (sampler, spacing)
        spelt = ["--sampler", sampler, "--spacing", spacing, "--steps", steps]
        assert farthest(auto, draw(run, tmp_path / f"spelt-{steps}", "-n", 2, *spelt)[0]) == 0
    capsys.readouterr()
    draw(run, tmp_path / "spacing", "-n", 1, "--spacing", "auto")
    assert "Sampling with ddim, 6 steps, trailing spacing" in capsys.readouterr().out


def test_guidance_within_an_interval_that_holds_every_step_is_guidance_everywhere(run, tmp_path):
    everywhere, _ = draw(run, tmp_path / "everywhere", "-n", 2, "--guidance", 3)
    wide, _ = draw(run, tmp_path / "wide", "-n", 2, *words("--guidance 3 --guidance-interval 0 1e9"))
    nowhere, _ = draw(run, tmp_path / "nowhere", "-n", 2, *words("--guidance 3 --guidance-interval 1e8 1e9"))
    assert farthest(everywhere, wide) == 0
    assert farthest(nowhere, draw(run, tmp_path / "unguided", "-n", 2)[0]) <= 1


def test_another_sampler_drops_the_eta_of_the_run(run):
    opened = open_run(run)
    stochastic = replace(opened, config=replace(opened.config, sample=SampleConfig("ddim", steps=5, eta=0.5)))
    assert chosen_settings(stochastic, {}).eta == 0.5
    assert chosen_settings(stochastic, {"sampler": "ddpm"}).eta == 0
    assert chosen_settings(stochastic, {"sampler": "ddim", "eta": 1.0}).eta == 1


def test_another_sampler_drops_the_churn_the_variance_and_the_spacing_of_the_run(run):
    def run_with(settings):
        opened = open_run(run)
        return replace(opened, config=replace(opened.config, sample=settings))

    churned = run_with(SampleConfig("heun", steps=5, churn=1.0, spacing="karras"))
    assert (chosen_settings(churned, {"steps": 4}).churn, chosen_settings(churned, {}).spacing) == (1.0, "karras")
    other = chosen_settings(churned, {"sampler": "dpmpp_2m"})
    assert (other.churn, other.spacing) == (0.0, "trailing")
    assert chosen_settings(churned, {"sampler": "heun"}) == chosen_settings(churned, {})
    large = run_with(SampleConfig("ddpm", steps=5, reverse_variance="large"))
    assert chosen_settings(large, {}).reverse_variance == "large"
    assert chosen_settings(large, {"sampler": "euler"}).reverse_variance == "auto"


def test_labels_in_turn_by_name_and_by_number(run, tmp_path):
    turn, manifest = draw(run, tmp_path / "turn", "-n", 3, "--seed", 13)
    assert [one["label"] for one in manifest["pictures"]] == ["3", "4", "5"]
    four, manifest = draw(run, tmp_path / "four", "-n", 3, "--seed", 13, "--label", "4")
    assert [one["label"] for one in manifest["pictures"]] == ["4", "4", "4"]
    assert farthest({14: turn[14]}, four) <= 1
    assert farthest({13: turn[13]}, four) > 1


def test_a_label_by_name_and_by_number(tmp_path):
    np.savez(tmp_path / "pets.npz", images=np.zeros((4, 8, 8), np.uint8), labels=np.array(["cat", "dog", "emu", "emu"]))
    assert train(tmp_path / "run", source=tmp_path / "pets.npz", steps=1) == 0
    for label, name in (("dog", "dog"), ("2", "emu")):
        _, manifest = draw(tmp_path / "run", tmp_path / label, "-n", 1, "--label", label)
        assert manifest["pictures"][0]["label"] == name


def test_one_step_and_as_many_steps_as_there_are(unlabelled, tmp_path):
    for steps in (1, 19, 20):
        for sampler in SAMPLERS:
            draw(unlabelled, tmp_path / f"{sampler}-{steps}", "-n", 1, "--steps", steps, "--sampler", sampler)


def test_gif_shows_the_denoising(run, tmp_path):
    draw(run, tmp_path, "-n", 3, "--gif", "--batch", 2)
    with Image.open(tmp_path / "denoising.gif") as gif:
        assert gif.n_frames == 7  # noise, and 6 steps
        frames = []
        for k in range(gif.n_frames):
            gif.seek(k)
            frames.append(np.asarray(gif.convert("L"), int))
        assert gif.info["duration"] >= 1000  # the last frame stays
    shown = pixels_of(tmp_path / "seed-0.png")
    assert np.abs(frames[-1][2:66:8, 2:66:8] - shown).max() <= 2  # a palette has 256 colours
    assert np.abs(frames[0][2:66:8, 2:66:8] - shown).max() > 20


def test_gif_of_many_steps_stays_short(run, tmp_path):
    draw(run, tmp_path, "-n", 1, "--gif", "--steps", 150)
    with Image.open(tmp_path / "denoising.gif") as gif:
        assert 30 <= gif.n_frames <= 80


def test_without_out_the_images_go_into_the_run(run, capsys):
    assert cli("sample", run, "-n", 1, "--seed", 40, "--label", "7") == 0
    assert (run / "samples" / "ddim-6-7-seed-40" / "seed-40.png").exists()
    assert "ddim-6-7-seed-40" in capsys.readouterr().out


def test_a_named_checkpoint(tmp_path):
    run = tmp_path / "run"
    assert train(run, "--checkpoint-minutes", 0, "--warmup", 0, "--lr", 0.1, steps=2) == 0
    newest, manifest = draw(run, tmp_path / "newest", "-n", 2)
    assert manifest["checkpoint"] == "step-00000002"
    first, manifest = draw(run, tmp_path / "first", "-n", 2, "--checkpoint", "step-00000001")
    assert manifest["checkpoint"] == "step-00000001"
    assert farthest(newest, first) > 0


@pytest.fixture
def two_checkpoints(tmp_path):
    run = tmp_path / "run"
    assert train(run, "--checkpoint-minutes", 0) == 0
    return run


def damage(checkpoint):
    path = checkpoint / "ema.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")


def test_a_damaged_checkpoint_is_passed_over(two_checkpoints, tmp_path):
    damage(checkpoints(two_checkpoints)[-1])
    _, manifest = draw(two_checkpoints, tmp_path / "out", "-n", 1)
    assert manifest["checkpoint"] == "step-00000001"


def test_passing_over_a_damaged_checkpoint_is_said(two_checkpoints, tmp_path, capsys):
    damage(checkpoints(two_checkpoints)[-1])
    draw(two_checkpoints, tmp_path / "out", "-n", 1)
    assert "step-00000002" in capsys.readouterr().err


@pytest.mark.parametrize("named", [True, False])
def test_nothing_is_drawn_from_damaged_weights(two_checkpoints, tmp_path, capsys, named):
    for checkpoint in checkpoints(two_checkpoints):
        damage(checkpoint)
    flags = ["--checkpoint", "step-00000002"] if named else []
    assert cli("sample", two_checkpoints, "--out", tmp_path / "out", *flags) == 2
    assert "ema.safetensors is damaged" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_run_without_a_checkpoint(two_checkpoints, capsys):
    for checkpoint in checkpoints(two_checkpoints):
        checkpoint.rename(checkpoint.with_name("." + checkpoint.name))
    assert cli("sample", two_checkpoints) == 2
    assert "has no checkpoint yet; train it further first" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"format": 2}', '{"format": 1, "config": {"trian": {}}, "data": {}}']
)
def test_a_config_that_cannot_be_read(tmp_path, capsys, content):
    (tmp_path / "config.json").write_text(content)
    assert cli("sample", tmp_path) == 2
    error = capsys.readouterr().err
    assert str(tmp_path) in error or "did you mean 'train'?" in error
    assert error.count("\n") == 1


REFUSED = [
    (["--steps", 0], "--steps must be at least 1, got 0"),
    (["--steps", 1001], "--steps must be in 1..1000, got 1001"),
    (["--sampler", "ddmp"], "did you mean 'ddpm'?"),
    (["--spacing", "karas"], "did you mean 'karras'?"),
    (["--sampler", "ddpm", "--eta", 0.5], "--eta 0.5 needs --sampler ddim, got ddpm"),
    (["--eta", 1.5], "--eta must be in 0..1, got 1.5"),
    (["--guidance", -1], "--guidance must be at least 0, got -1"),
    (["--guidance", "nan"], "--guidance must be at least 0, got nan"),
    (["--sampler", "auto", "--eta", 0.5], "--eta 0.5 needs --sampler ddim, got auto"),
    (["--sampler", "dpmpp_3m", "--churn", 1], "--churn 1.0 needs --sampler ddim, euler or heun, got dpmpp_3m"),
    (["--sampler", "heun", "--churn", 9], "--churn must be in 0..2.48"),
    (["--reverse-variance", "small"], "--reverse-variance small needs --sampler ddpm, got ddim"),
    (["--sampler", "ddpm", "--reverse-variance", "learned"], "needs a run that was trained with --variance learned"),
    (["--sampler", "ddpm", "--reverse-variance", "smal"], "did you mean 'small'?"),
    (["--guidance-interval", 0.5, 2], "--guidance-interval needs a --guidance other than 1, which is no guidance"),
    (["--guidance-rescale", 0.5], "--guidance-rescale needs a --guidance other than 1, which is no guidance"),
    (["--guidance-parallel", 0], "--guidance-parallel needs a --guidance other than 1, which is no guidance"),
    (["--guidance", 2, "--guidance-parallel", 2], "--guidance-parallel must be in 0..1, got 2"),
    (["--guidance", 2, "--guidance-interval", 2, 1], "must be two numbers, 0 <= LOW <= HIGH, got 2 1"),
    (["--guidance", 2, "--guidance-rescale", 2], "--guidance-rescale must be in 0..1, got 2"),
    (["--guidance", 2, "--weak", "/nowhere"], "/nowhere is not a run: it has no config.json"),
    (["--label", "11"], "--label must be one of 0, 1, 2, 3, 4, 5, 6, 7, 8, 9; got '11'; did you mean '1'?"),
    (["--checkpoint", "step-0000030"], "did you mean 'step-00000030'?"),
    (["-n", 0], "-n must be at least 1, got 0"),
    (["--seed", -1], "--seed must be in 0.."),
    (["--batch", 0], "--batch must be at least 1, got 0"),
    (["--device", "nonsense"], "--device nonsense is not on this machine; try auto or cpu"),
    (["--stpes", 3], "did you mean --steps?"),
    (["--steps", "few"], "'few'"),
]  # fmt: skip


@pytest.mark.parametrize(("flags", "sentence"), REFUSED, ids=lambda value: " ".join(map(str, value))[:30])
def test_what_is_refused(run, tmp_path, capsys, flags, sentence):
    before = snapshot(run)
    assert cli("sample", run, "--out", tmp_path / "out", *flags) == 2
    said = capsys.readouterr()
    assert sentence in plain(said.err)
    assert "Traceback" not in said.err
    assert not (tmp_path / "out").exists()
    assert snapshot(run) == before


@pytest.mark.parametrize("name", ["optimizer", "emma"])
def test_weights_are_ema_or_model(run, tmp_path, capsys, name):
    assert cli("sample", run, "--out", tmp_path / "out", "-n", 1, "--weights", name) == 2
    error = plain(capsys.readouterr().err)
    assert f"--weights must be one of ema, model; got '{name}'" in error
    with pytest.raises(InputError, match=f"--weights must be one of ema, model; got '{name}'"):
        Sample(run, weights=name)


def test_out_may_not_be_a_file(run, tmp_path, capsys):
    (tmp_path / "out").write_text("mine")
    assert cli("sample", run, "--out", tmp_path / "out", "-n", 1) == 2
    assert "--out" in capsys.readouterr().err


def test_guidance_needs_labels(unlabelled, tmp_path, capsys):
    assert cli("sample", unlabelled, "--guidance", 2, "--out", tmp_path / "out") == 2
    assert "--guidance 2 needs class labels, and this run has none" in capsys.readouterr().err


def test_guidance_without_labels_leaves_nothing_behind(unlabelled, tmp_path):
    assert cli("sample", unlabelled, "--guidance", 2, "--out", tmp_path / "out") == 2
    assert not (tmp_path / "out").exists()


def test_an_interruption_leaves_what_is_done(run, tmp_path, monkeypatch, capsys):
    calls, draw_batch = [], TrainedModel.draw

    def draw_two_batches(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return draw_batch(*args)

    monkeypatch.setattr(TrainedModel, "draw", draw_two_batches)
    assert cli("sample", run, "-n", 6, "--batch", 2, "--out", tmp_path) == 130
    assert capsys.readouterr().err.endswith(f"\nbytepixels: interrupted: 4 of 6 images kept in {tmp_path}\n")
    names = [f"seed-{seed}.png" for seed in range(4)]
    assert {path.name for path in tmp_path.iterdir()} == {*names, "grid.png", "manifest.json"}
    assert [one["file"] for one in read_json(tmp_path / "manifest.json")["pictures"]] == names


def test_an_interruption_before_the_first_image_says_that_nothing_was_kept(run, tmp_path, monkeypatch, capsys):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(TrainedModel, "draw", interrupted)
    assert cli("sample", run, "-n", 2, "--out", tmp_path) == 130
    assert capsys.readouterr().err.endswith("\nbytepixels: interrupted: nothing was kept\n")


def test_the_last_line_says_that_all_are_done(run, tmp_path, capsys):
    draw(run, tmp_path, "-n", 3)
    assert "step 6/6, images 1-3 of 3" in capsys.readouterr().err


def test_a_typo_in_the_run_names_the_runs_that_are_there(unlabelled, capsys):
    assert cli("sample", unlabelled.parent / "rnu") == 2
    error = capsys.readouterr().err
    assert "rnu is not a run: it has no config.json; runs in" in error
    assert cli("sample", "/nowhere/at/all") == 2
    assert "/nowhere/at/all is not a run" in capsys.readouterr().err


def test_the_runs_images_are_drawn_while_it_could_go_on(run):
    """Sampling changes nothing that training reads."""
    before = {name: value for name, value in snapshot(run).items() if not name.startswith("samples/")}
    assert cli("sample", run, "-n", 1) == 0
    after = {name: value for name, value in snapshot(run).items() if not name.startswith("samples/")}
    assert after == before


def test_images_of_an_earlier_call_stay_in_the_manifest(run, tmp_path):
    """A folder used three times: what was not drawn again is listed with the settings that it was drawn with."""
    out = tmp_path / "out"
    draw(run, out, "-n", 4)
    draw(run, out, "-n", 3, "--sampler", "heun")
    _, manifest = draw(run, out, "-n", 1, "--steps", 2)
    assert [one["seed"] for one in manifest["pictures"]] == [0]
    heun, ddim = manifest["earlier"]
    assert ([one["seed"] for one in heun["pictures"]], heun["settings"]["sampler"]) == ([1, 2], "heun")
    assert ([one["seed"] for one in ddim["pictures"]], ddim["settings"]["sampler"]) == ([3], "ddim")
    (out / "seed-3.png").unlink()
    _, manifest = draw(run, out, "-n", 1)
    assert [call["settings"]["sampler"] for call in manifest["earlier"]] == ["heun"]
    (out / "manifest.json").write_text("[]")
    assert "earlier" not in draw(run, out, "-n", 1)[1]


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(run, capsys, monkeypatch):
    monkeypatch.setattr(TrainedModel, "draw", None)
    assert cli("sample", run, "--out", "/proc", "-n", 1) == 2
    assert "--out: the folder /proc cannot be written" in capsys.readouterr().err


def test_weights_that_are_not_finite_are_refused(run, tmp_path, capsys, monkeypatch):
    from bytepixels.sampling import load_weights as module

    def broken(checkpoint, weights, state):
        tensors = read_tensors(checkpoint, weights, state)
        return tensors | {"first.bias": torch.full_like(tensors["first.bias"], float("nan"))}

    read_tensors = module.read_tensors
    monkeypatch.setattr(module, "read_tensors", broken)
    assert cli("sample", run, "--out", tmp_path / "out", "-n", 1) == 2
    assert "holds ema weights that are not finite: its training went wrong" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("broken", ["save_gif", "save_png"])
def test_a_failing_extra_never_costs_the_manifest(run, tmp_path, capsys, monkeypatch, broken):
    def fail(*arguments):
        raise OverflowError("unsigned short is greater than maximum")

    monkeypatch.setattr(f"bytepixels.sampling.output.{broken}", fail)
    assert cli("sample", run, "-n", 2, "--gif", "--out", tmp_path) == 1
    said = capsys.readouterr().err
    assert "could not be written (unsigned short is greater than maximum)" in said
    assert "Traceback" not in said
    assert [one["file"] for one in read_json(tmp_path / "manifest.json")["pictures"]] == ["seed-0.png", "seed-1.png"]


@pytest.mark.parametrize("n", [1, 3])
def test_out_may_name_a_png(run, tmp_path, capsys, n):
    """The only image, or a grid of several; the manifest is beside it, and the rest where it always is."""
    out = tmp_path / "new" / "demo.png"
    assert cli("sample", run, "-n", n, "--seed", 60 + n, "--out", out) == 0
    folder = run / "samples" / f"ddim-6-seed-{60 + n}"
    assert f"everything is in {folder}" in capsys.readouterr().out
    np.testing.assert_array_equal(pixels_of(out), pixels_of(folder / (f"seed-{60 + n}.png" if n == 1 else "grid.png")))
    assert read_json(tmp_path / "new" / "demo.manifest.json")["pictures"][0]["seed"] == 60 + n
    assert {path.name for path in out.parent.iterdir()} == {"demo.png", "demo.manifest.json"}


def test_out_of_another_kind_of_file_is_refused(run, tmp_path, capsys):
    assert cli("sample", run, "-n", 1, "--out", tmp_path / "demo.jpg") == 2
    assert f"images are written as .png; try --out {tmp_path / 'demo.png'}, or a folder" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_runs_lists_them(unlabelled, tmp_path, monkeypatch, capsys):
    assert cli("sample", unlabelled.parent) == 2
    assert f"{unlabelled.parent} is a folder of runs (run), not a run; try {unlabelled}" in capsys.readouterr().err
    (tmp_path / "runs").symlink_to(unlabelled.parent)
    monkeypatch.chdir(tmp_path)
    assert cli("sample", "runn/a") == 2
    assert "runn/a is not a run: it has no config.json; runs in runs: run" in capsys.readouterr().err
