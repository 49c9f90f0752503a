"""The size and preset of a new run come from its images, by one rule, and are said in one line."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from bytepixels.cli import train as command_line
from bytepixels.config.data import DataConfig
from bytepixels.config.presets import PRESETS, autoencoder_config
from bytepixels.data.sources.decode import ImageHeader
from bytepixels.runs.run_directory import Run, open_run
from bytepixels.training.defaults import choice_sentence, choose, sized
from tests.tiny import cli, words

CPU = torch.device("cpu")


def images(*sizes):
    return [ImageHeader(height, width, False, "PNG RGB", False, False) for height, width in sizes]


def chosen(*sizes, preset=None, backbone="unet", multiple=None, **asked):
    seen, data = images(*sizes), DataConfig(**asked)
    config = choose(seen, data, preset, CPU, backbone, multiple)
    return config, choice_sentence(config, seen, data, preset, multiple)


SENTENCES = {
    "own size": (((28, 28),), {}, "Training at 28 x 28, the images' own size, with preset small"),
    "tiny": (((8, 8),), {}, "Training at 8 x 8, the images' own size, with preset digits (made for up to 16 x 16)"),
    "photographs": (
        ((4032, 3024),),
        {},
        "Training at 32 x 32 with preset small: your images are 4032 x 3024; "
        "--size 64 64 keeps more and takes about 4 times as long",
    ),
    "does not halve": (
        ((30, 30),),
        {},
        "Training at 28 x 28 with preset small: your images are 30 x 30, and sides must divide by 4",
    ),
    "a little larger": (
        ((40, 40),),
        {},
        "Training at 32 x 32 with preset small: your images are 40 x 40; "
        "--size 40 40 keeps more and takes about 1.6 times as long",
    ),
    "mixed": (
        ((20, 30), (24, 24), (900, 26)),
        {},
        "Training at 24 x 24 with preset small: your images' median short side is 24",
    ),
    "too small": (
        ((1, 3),),
        {"preset": "small"},
        "Training at 8 x 8: your images are 1 x 3, too small for a network that needs sides of 4 or more",
    ),
    "asked preset": (((28, 28),), {"preset": "small"}, "Training at 28 x 28, the images' own size"),
    "asked size": (((28, 28),), {"size": (64, 48)}, "Training at 64 x 48 (--size) with preset small"),
    "asked both": (((28, 28),), {"size": (64, 48), "preset": "small"}, ""),
    "patches": (((31, 31),), {"backbone": "dit", "multiple": 8, "preset": "small"}, "Training at 24 x 24: your images"),
}


@pytest.mark.parametrize(("sizes", "asked", "sentence"), SENTENCES.values(), ids=SENTENCES)
def test_the_choice_is_said_in_one_line(sizes, asked, sentence):
    config, said = chosen(*sizes, **asked)
    assert said.startswith(sentence)
    assert not said or " x ".join(map(str, config.data.size)) in said


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("backbone", ["unet", "dit"])
def test_photographs_are_never_trained_on_as_they_are(preset, backbone):
    config, said = chosen((4032, 3024), preset=preset, backbone=backbone)
    assert config.data.size == (32, 32)
    assert "4032 x 3024" in said


def test_an_autoencoder_keeps_more_of_a_photograph():
    seen = images((4032, 3024), (700, 600))
    assert sized(autoencoder_config(), seen, DataConfig(), CPU).data.size == (128, 128)
    assert sized(autoencoder_config(), images((65, 67)), DataConfig(), CPU).data.size == (64, 64)


@pytest.fixture
def asked_of(monkeypatch, tmp_path):
    """What `train` would train, and where, without training."""
    monkeypatch.chdir(tmp_path)
    seen = []
    monkeypatch.setattr(command_line, "fit", lambda source, config, path, **rest: seen.append((config, path)) or 0)

    def ask(*line):
        assert cli("train", *line) == 0
        return seen[-1]

    return ask


def folder(path, height, width):
    path.mkdir()
    for k in range(3):
        Image.fromarray(np.full((height, width, 3), 40 * k, np.uint8)).save(path / f"{k}.png")
    return path


def test_train_chooses_as_the_doctor_does(asked_of, tmp_path, capsys):
    folder(tmp_path / "set", 28, 28)
    config, path = asked_of("set")
    assert (config.preset, config.data.size, config.data.channels, str(path)) == (
        "small",
        (28, 28),
        3,
        "runs/set-small",
    )
    assert "Training at 28 x 28, the images' own size, with preset small\n" in capsys.readouterr().out
    assert str(asked_of("set", "--backbone", "dit")[1]) == "runs/set-small-dit"
    assert asked_of("set", "--size", 12, 16)[0].data.size == (12, 16)
    assert asked_of("set", "--multipliers", 1, 2, 2, 2)[0].data.size == (24, 24)
    assert asked_of("set", "--preset", "digits")[0].preset == "digits"


def test_tiny_images_get_the_digits_preset(asked_of, tmp_path):
    folder(tmp_path / "set", 12, 12)
    config, path = asked_of("set")
    assert (config.preset, config.data.size, str(path)) == ("digits", (12, 12), "runs/set-digits")
    assert (config.network, config.train) == (PRESETS["digits"]().network, PRESETS["digits"]().train)


def test_a_run_that_is_there_keeps_its_settings(asked_of, tmp_path, capsys):
    folder(tmp_path / "set", 12, 12)
    config = replace(PRESETS["small"](), data=DataConfig(size=(16, 16), channels=1))
    data = {"source": "set", "count": 3, "classes": [], "sha256": {}}
    Run(tmp_path / "runs" / "set-small", config, data).save()
    (tmp_path / "set" / "0.png").write_text("not looked at")
    assert asked_of("set") == (config, tmp_path.relative_to(tmp_path) / "runs" / "set-small")
    assert "Training at" not in capsys.readouterr().out


def test_both_stages_of_a_latent_run_have_one_size(asked_of, tmp_path):
    folder(tmp_path / "set", 150, 140)
    assert asked_of("autoencoder", "set")[0].data.size == (128, 128)
    assert asked_of("latent", "set")[0].data.size == (128, 128)
    assert asked_of("latent", "set", "--size", 64, 64)[0].data.size == (64, 64)


def test_a_model_on_latents_takes_its_autoencoders_size(asked_of, tmp_path, capsys):
    folder(tmp_path / "set", 150, 140)
    stage = replace(autoencoder_config(), data=DataConfig(size=(64, 48), channels=3))
    Run(tmp_path / "stage", stage, {"source": "set", "count": 3, "classes": [], "sha256": {}}).save()
    assert asked_of("set", "--autoencoder", "stage")[0].data.size == (64, 48)
    assert "Training at 64 x 48, the size that stage was trained at" in capsys.readouterr().out


def test_help_reads_no_images(tmp_path, capsys):
    assert cli("train", tmp_path / "none", "--help") == 0
    assert "--size" in capsys.readouterr().out
    assert cli("train", tmp_path / "none") == 2


@pytest.mark.parametrize(("side", "stem"), [(24, "haar"), (16, "conv")])
def test_the_stem_that_suits_the_size_is_written_down(tmp_path, side, stem):
    line = f"--preset small --size {side} {side} --width 8 --heads 2 --images 16 --batch 16 --previews 0 --device cpu"
    assert cli("train", "digits", *words(line), "--run", tmp_path / "run") == 0
    assert open_run(tmp_path / "run").config.network.stem == stem
    assert cli("train", "digits", "--run", tmp_path / "run", "--images", 32) == 0  # and goes on
