"""The command line: verbs, help, and one sentence with exit code 2, and nothing written, for every mistake."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import bytepixels
from bytepixels.cli.main import main
from bytepixels.config.diffusion import ProcessConfig
from bytepixels.config.presets import PRESETS
from bytepixels.config.run import check_steps
from bytepixels.config.sampling import SampleConfig
from bytepixels.errors import InputError
from bytepixels.verbs import VERBS
from tests.tiny import STEP, TINY, cli, plain, train, verb_that


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]], ids=str)
def test_help_shows_how_to_begin(capsys, words):
    assert cli(*words) == 0
    said = capsys.readouterr().out
    assert all(f"\n  {verb} " in said or f"\n  {verb}\n" in said for verb in VERBS)
    assert "bytepixels train digits --preset digits" in said


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(capsys, verb):
    assert cli(*verb.split(), "--help") == 0
    assert f"usage: bytepixels {verb}" in capsys.readouterr().out


@pytest.mark.parametrize("preset", PRESETS)
def test_the_help_of_train_shows_the_presets_values(capsys, preset):
    assert cli("train", "--help", "--preset", preset) == 0
    assert f"(default: {PRESETS[preset]().train.images})" in plain(capsys.readouterr().out)


def test_version(capsys):
    assert cli("--version") == 0
    assert capsys.readouterr().out.strip() == f"bytepixels {bytepixels.__version__}"


def test_the_line_that_scripts_use(tmp_path, capsys):
    """train SOURCE --preset NAME --images N --run DIR --seed S; then the files that outside code reads."""
    assert train(tmp_path / "DIR", "--seed", 4, steps=3) == 0
    assert f"draw images with: bytepixels sample {tmp_path / 'DIR'}" in capsys.readouterr().out
    (checkpoint,) = (tmp_path / "DIR" / "checkpoints").iterdir()
    assert {path.name for path in checkpoint.iterdir()} == {
        "model.safetensors",
        "ema.safetensors",
        "optimizer.safetensors",
        "state.json",
    }
    assert json.loads((checkpoint / "state.json").read_text())["images"] == 3 * STEP


REFUSED = {
    "a typo in a flag": (["--imagse", 9], "train has no flag --imagse; did you mean --images?"),
    "a flag of another verb": (["--gif"], "--gif"),
    "preset": (
        ["--preset", "digts"],
        "must be one of small, few_steps, digits, cifar10, speedrun; got 'digts'; did you",
    ),
    "schedule": (["--schedule", "cosin"], "got 'cosin'; did you mean 'cosine'?"),
    "spacing": (["--spacing", "trailin"], "got 'trailin'; did you mean 'trailing'?"),
    "sampler": (["--sampler", "hein"], "got 'hein'; did you mean 'heun'?"),
    "prediction": (["--prediction", "epsilon"], "must be one of eps, x0, v; got 'epsilon'; did you mean 'eps'?"),
    "a word for a number": (["--images", "many"], "'many'"),
    "images": (["--images", 0], "--images must be in 1..1000000000000, got 0"),
    "batch": (["--batch", -1], "--batch must be at least 0, got -1"),
    "micro-batch": (["--micro-batch", 64], "--micro-batch must be in 0..32, got 64"),
    "negative": (["--warmup", -1], "--warmup must be at least 0, got -1"),
    "keep": (["--keep", 0], "--keep must be at least 1, got 0"),
    "lr": (["--lr", 0], "--lr must be between 0 and 1, got 0"),
    "lr nan": (["--lr", "nan"], "--lr must be between 0 and 1, got nan"),
    "label dropout": (["--label-dropout", 1.5], "--label-dropout must be in 0..1, got 1.5"),
    "size": (["--size", 0, 32], "--size height must be in 1..4096, got 0"),
    "three sides": (["--size", "8x8x8"], "--size takes 2 numbers, got '8' '8' '8'"),
    "channels": (["--channels", 5], "--channels must be in 1..4, got 5"),
    "background": (["--background", "nocolour"], "background must be a CSS colour"),
    "split": (["--split", "tset"], "did you mean 'test'?"),
    "zero snr": (["--zero-terminal-snr", "--prediction", "eps"], "--zero-terminal-snr needs --prediction v or x0"),
    "device": (["--device", "nonsense"], "--device nonsense is not on this machine; try auto or cpu"),
    "steps": (["--steps", 1001], "--steps must be in 1..1000, got 1001"),
    "steps and timesteps": (["--timesteps", 5, "--steps", 6], "--steps must be in 1..5, got 6"),
    "no steps": (["--steps", 0], "--steps must be at least 1, got 0"),
    "eta": (["--sampler", "heun", "--eta", 1], "--eta 1.0 needs --sampler ddim, got heun"),
}
NETWORK = {  # else the corrected command would be refused as another run's
    "too deep": (["--multipliers", 1, 1, 1, 1, 1], "8 x 8 images are too small for 5 levels"),
    "attention": (["--attention", 5], "--attention must be in 0..0, got 5"),
    "heads": (["--heads", 3], "heads must divide the 8 channels of level 0, got 3"),
    "dropout": (["--dropout", 1], "dropout must be at least 0 and below 1, got 1.0"),
    "width": (["--width", 2], "width must be at least 4, got 2"),
    "blocks": (["--blocks", 0], "blocks must be at least 1, got 0"),
}


def refused(words, capsys, sentence):
    assert cli(*words) == 2
    said = capsys.readouterr()
    assert sentence in plain(said.err)
    assert "Traceback" not in said.err


@pytest.mark.parametrize(("flags", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_train_refuses(tmp_path, capsys, flags, sentence):
    refused(["train", "digits", *TINY, *flags, "--run", tmp_path / "run"], capsys, sentence)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("flags", "sentence"), NETWORK.values(), ids=NETWORK)
def test_what_the_network_refuses(tmp_path, capsys, flags, sentence):
    refused(["train", "digits", *TINY, "--images", STEP, *flags, "--run", tmp_path / "run"], capsys, sentence)
    assert list(tmp_path.iterdir()) == []


def test_guidance_without_labels_is_refused_before_training(tmp_path, capsys):
    flags = ["--no-labels", "--guidance", 2, "--previews", 1, "--images", STEP]
    refused(["train", "digits", *TINY, *flags, "--run", tmp_path / "run"], capsys, "--guidance 2 needs class labels")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seed", [2**63, 10**30])
def test_a_seed_that_is_too_large(tmp_path, capsys, seed):
    refused(["train", "digits", *TINY, "--seed", seed, "--run", tmp_path / "run"], capsys, "--seed must be in 0..")
    assert list(tmp_path.iterdir()) == []


def test_sources_that_are_refused(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.png").write_text("not an image")
    for source, sentence in (
        (tmp_path / "nowhere", "is no file, no folder and no known data set"),
        ("digit", "did you mean"),
        (tmp_path / "empty", "holds no image: it is empty"),
        (tmp_path / "text", "holds no readable image: a.png"),
    ):
        refused(["train", source, *TINY, "--run", tmp_path / "run"], capsys, sentence)
        assert not (tmp_path / "run").exists()


def test_strict_refuses_what_would_be_skipped(tmp_path, capsys):
    for k in range(3):
        Image.fromarray(np.full((8, 8, 3), k, np.uint8)).save(tmp_path / f"{k}.png")
    (tmp_path / "bad.png").write_text("not an image")
    refused(["train", tmp_path, *TINY, "--strict", "--run", tmp_path / "run"], capsys, "bad.png cannot be read")
    assert train(tmp_path / "run", source=tmp_path, steps=1) == 0
    assert "Skipped 1 of 4 files: bad.png" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["a file", "a folder of something else"])
def test_a_run_goes_nowhere_where_something_else_is(tmp_path, capsys, kind):
    run = tmp_path / "run"
    if kind == "a file":
        run.write_text("mine")
    else:
        run.mkdir()
        (run / "letter.txt").write_text("mine")
    refused(["train", "digits", *TINY, "--run", run], capsys, f"{run} exists and is not a run; choose another --run")
    assert (run if run.is_file() else run / "letter.txt").read_text() == "mine"
    assert len(list(tmp_path.rglob("*"))) <= 2


def test_a_run_cannot_be_below_a_file(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    refused(["train", "digits", *TINY, "--run", tmp_path / "file" / "run"], capsys, "--run")


def test_an_empty_folder_becomes_the_run(tmp_path):
    assert train(tmp_path, steps=1) == 0
    assert (tmp_path / "config.json").is_file()


def test_verbs_and_missing_words(capsys):
    verbs = "data, show, train, encode, runs, cache, sample, edit, export, import, push, pull"
    verbs += ", evaluate, compare, report, verify"
    refused(["trian"], capsys, f"must be one of {verbs}; got 'trian'; did you mean 'train'?")
    refused(["train"], capsys, "train needs SOURCE (bytepixels train --help)")
    refused(["sample"], capsys, "sample needs RUN")
    refused(["show"], capsys, "show needs SOURCE")
    refused(["train", "digits", "--preset"], capsys, "--preset needs a value")


def test_ctrl_c_outside_training(monkeypatch, capsys):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setitem(VERBS, "show", verb_that(interrupted))
    assert cli("show") == 130
    assert capsys.readouterr().err.strip() == "bytepixels: interrupted"


def test_the_process_exits_with_the_code(tmp_path):
    command = [sys.executable, "-m", "bytepixels", "train", str(tmp_path / "nowhere")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=tmp_path, env=dict(os.environ))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("bytepixels: ")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--images", "0"], "--images must be in 1..1000000000000, got 0"),
        (["--steps", "2000"], "--steps must be in 1..1000, got 2000"),
        (["--dropout", "1"], "--dropout must be at least 0 and below 1, got 1.0"),
        (["--attention", "3"], "--attention must be in 0..1, got 3"),
        (["--width", "0"], "--width must be at least 4, got 0"),
    ],
)
def test_a_value_out_of_range_is_one_sentence_and_nothing_else(capsys, tmp_path, flags, sentence):
    assert cli("train", "digits", "--preset", "digits", *flags, "--run", tmp_path / "run") == 2
    assert capsys.readouterr().err == f"bytepixels: {sentence}\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ("sample x --steps 1.5", "--steps must be a whole number, got '1.5'"),
        ("sample x --guidance-interval 1", "--guidance-interval takes 2 numbers, got '1'"),
        ("edit invert x y --refine nan", "--refine must be a whole number, got 'nan'"),
        ("sample x --bogus 3", "sample has no flag --bogus; see bytepixels sample --help"),
        ("train digits --diffusion nope", "--diffusion must be one of ddpm, edm, flow; got 'nope'"),
    ],
)
def test_what_the_parser_refuses_is_one_line(argv, sentence, capsys):
    assert main(argv.split()) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.startswith("bytepixels: ")
    assert error.count("\n") == 1


def test_ctrl_c_in_the_middle_of_an_import(monkeypatch, capsys):
    def verb():
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise ImportError("initialization failed") from error

    monkeypatch.setitem(VERBS, "sample", verb_that(verb))
    assert main(["sample"]) == 130
    assert capsys.readouterr().err == "\nbytepixels: interrupted: nothing was kept\n"
    monkeypatch.setitem(VERBS, "sample", verb_that(lambda: __import__("no_such_module")))
    with pytest.raises(ImportError):
        main(["sample"])


def test_what_is_missing_is_named_without_its_help(capsys):
    assert cli("edit", "inpaint") == 2
    assert plain(capsys.readouterr().err) == (
        "bytepixels: edit inpaint needs RUN IMAGE --mask PATH (bytepixels edit inpaint --help)"
    )
    assert cli("sample", "run", "--step", 3) == 2
    assert plain(capsys.readouterr().err) == ("bytepixels: sample has no flag --step; did you mean --steps?")


def test_an_empty_word_is_refused(capsys):
    assert cli("sample", "run", "--out", "") == 2
    assert "one of the words after bytepixels sample is empty" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--weight-decay", "--clip-norm", "--checkpoint-minutes", "--guidance"])
def test_endless_settings_are_refused(tmp_path, capsys, flag):
    assert cli("train", "digits", "--preset", "digits", "--run", tmp_path / "run", flag, "inf") == 2
    assert f"{flag} must be at least 0 and finite, got inf" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_setting_of_the_core_is_named_as_the_flag_that_it_was(tmp_path, capsys):
    assert cli("train", "digits", "--preset", "digits", "--run", tmp_path / "run", "--background", "nocolour") == 2
    assert "bytepixels: --background must be a CSS colour" in capsys.readouterr().err


@pytest.mark.parametrize("diffusion", ["edm", "flow"])
def test_continuous_processes_have_a_limit_of_steps_too(diffusion):
    process = ProcessConfig(diffusion=diffusion, prediction="v")
    check_steps(SampleConfig(steps=10_000), process)
    with pytest.raises(InputError, match=r"--steps must be in 1\.\.10000, got 10001"):
        check_steps(SampleConfig(steps=10_001), process)
