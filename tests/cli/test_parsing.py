"""Words of a command line in any order and in other spellings are understood; what is wrong is one sentence."""

from pathlib import Path

import pytest

from bytepixels.cli.main import main, verb_of
from bytepixels.cli.parsing import Line
from bytepixels.config.autoencoder import AutoencoderConfig
from bytepixels.config.presets import preset_with
from bytepixels.errors import InputError, check_choice
from bytepixels.registries import SAMPLERS
from bytepixels.requests.evaluate import Compare, Evaluate, Quality
from bytepixels.requests.runs import PruneRuns
from bytepixels.requests.sample import Sample
from bytepixels.requests.show import Show
from bytepixels.requests.train import Train, TrainAutoencoder, TrainLatent
from tests.tiny import cli


def asked(kind, line, default=None):
    return Line("verb", kind, line.split()).request(default)


TRAIN = Train("digits", Path("x"), config=preset_with("digits"))


@pytest.mark.parametrize(
    "line",
    [
        "digits --run x --preset digits --images 640 --multipliers 1 2 --no-labels",
        "--preset digits digits --run x --images 640 --multipliers 1 2 --no-labels",
        "--run=x --preset=digits --images=640 --no-labels --multipliers 1 2 digits",
        "--no-labels digits --run x --multipliers 1 2 --images 640 --preset digits",
        "--labels false digits --run x --multipliers 1 2 --num_images 640 --preset digits",
    ],
)
def test_words_come_in_any_order(line):
    request = asked(Train, line, TRAIN)
    assert (request.source, request.run) == ("digits", Path("x"))
    assert request.config.train.images == 640
    assert request.config.network.multipliers == (1, 2)
    assert request.config.network.labels is False


@pytest.mark.parametrize("verb", ["train", "train autoencoder", "train latent"])
def test_training_takes_flags_before_its_source(verb, tmp_path, capsys):
    """Far enough to see that SOURCE was found: it is not there."""
    nowhere = tmp_path / "nowhere"
    assert cli(*verb.split(), f"--run={tmp_path / 'run'}", "--size", 64, nowhere, "--batch_size", 4) == 2
    assert f"{nowhere}' is no file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spelling", "where", "value"),
    [
        ("--batch-size 16", "train.batch", 16),
        ("--batch_size=16", "train.batch", 16),
        ("--learning-rate 1e-3", "train.lr", 1e-3),
        ("--lr-schedule linear", "train.lr_decay", "linear"),
        ("--epochs=5", "train.epochs", 5.0),
        ("--num-epochs 5", "train.epochs", 5.0),
        ("--num-images 5k", "train.images", 5000),
        ("--size 64", "data.size", (64, 64)),
        ("--size=64", "data.size", (64, 64)),
        ("--size 48 64", "data.size", (48, 64)),
        ("--size 48x64", "data.size", (48, 64)),
        ("--image-size 64", "data.size", (64, 64)),
        ("--size none", "data.size", None),
        ("--channels None", "data.channels", None),
        ("--clip false", "sample.clip", False),
        ("--clip=no", "sample.clip", False),
        ("--clip 0", "sample.clip", False),
        ("--no-clip", "sample.clip", False),
        ("--clip no --clip", "sample.clip", True),
        ("--clip TRUE", "sample.clip", True),
        ("--tensorboard yes", "train.tensorboard", True),
        ("--labels 0", "network.labels", False),
        ("--compile false", "train.compile", "no"),
        ("--flip true", "data.flip", "yes"),
        ("--num-inference-steps 20", "sample.steps", 20),
        ("--cfg-scale 2", "sample.guidance", 2.0),
        ("--guidance-interval 0.1 5", "sample.guidance_interval", (0.1, 5.0)),
        ("--multipliers 1 2 2", "network.multipliers", (1, 2, 2)),
    ],
)
def test_other_spellings(spelling, where, value):
    """Before SOURCE, which the flag must not take for one more value, and after it."""
    for line in (f"{spelling} images", f"images {spelling}"):
        request = asked(Train, line, TRAIN)
        part, name = where.split(".")
        assert request.source == "images"
        assert getattr(getattr(request.config, part), name) == value


def test_spellings_of_other_verbs():
    assert asked(Sample, "-o there --num-images 3 run --clip off") == asked(
        Sample, "run --n 3 --out there --clip False"
    )
    assert asked(Sample, "run -n 3 --gif").gif
    assert asked(Quality, "--num_samples 100 run").n == 100
    assert asked(Evaluate, "--bits run").run == Path("run")
    assert asked(Show, "--size 8 digits").size == (8, 8)
    assert asked(PruneRuns, "--keep 1 a b --dry-run").run == (Path("a"), Path("b"))
    assert asked(PruneRuns, "a --keep=1 b").run == (Path("a"), Path("b"))
    latent = TrainLatent("x", stage=AutoencoderConfig(), config=preset_with("small"))
    assert asked(TrainLatent, "--stage.factor 2 --share .5 images", latent).stage.factor == 2
    for no in ("--stage.attention no", "--stage.no-attention", "--no-stage.attention"):
        assert not asked(TrainLatent, f"{no} images", latent).stage.attention
    autoencoder = asked(TrainAutoencoder, "--kind vq --attention no images")
    assert (autoencoder.autoencoder.kind, autoencoder.autoencoder.attention) == ("vq", False)


def test_several_names_leave_the_run_its_word():
    assert asked(Compare, "--samplers ddim heun run") == asked(Compare, "run --samplers ddim heun")
    assert asked(Compare, "--steps 5 10 run").steps == (5, 10)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("train digits --imgaes 3", "train has no flag --imgaes; did you mean --images?"),
        ("train digits --learning-rat 3", "train has no flag --learning-rat; did you mean --lr?"),
        ("train digits --max-steps 3", "the length of a training is --images (steps times --batch)"),
        ("train --data digits", "train has no flag --data; a source or a run stands without a flag"),
        ("train a.png b.png", "train takes SOURCE, got a.png b.png"),
        ("train digits --run", "--run needs a value, got none"),
        ("train digits --run --images 3", "--run needs a value, got none"),
        ("train --run x latent digits", "write train latent first, then the flags; got latent digits after a flag"),
        ("train digits --size big", "--size needs 2 numbers, got 'big'"),
        ("train digits --batch many", "--batch must be a whole number, got 'many'"),
        ("train digits --lr fast", "--lr must be a number, got 'fast'"),
        ("train digits --labels=perhaps", "--labels is true or false, got 'perhaps'"),
        ("train digits --size 1 2 3", "--size takes 2 numbers, got '1' '2' '3'"),
        ("train latnet digits", "did you mean bytepixels train latent?"),
        ("evaluate bit run", "did you mean bytepixels evaluate bits?"),
        (
            "train digits --diffusion dppm",
            "--diffusion must be one of ddpm, edm, flow; got 'dppm'; did you mean 'ddpm'?",
        ),
        ("train digits --images=1.5", "--images must be a whole number such as 2000000, 500k or 5M, got '1.5'"),
        ("train digits --epochs 1 --images 3", "--images and --epochs say the same thing"),
        ("runs prune x", "runs prune needs --keep N (bytepixels runs prune --help)"),
        ("smaple run", "did you mean 'sample'?"),
        ("eval run", "did you mean 'evaluate'?"),
        ("doctor images", "bytepixels has no verb doctor; did you mean bytepixels data doctor?"),
        ("inpaint run a.png", "did you mean bytepixels edit inpaint?"),
        ("generate run", "did you mean bytepixels sample?"),
        ("runs lst", "did you mean 'list'?"),
    ],
)
def test_what_is_wrong_is_one_sentence(line, sentence, capsys):
    assert main(line.split()) == 2
    said = capsys.readouterr()
    assert sentence in said.err
    assert (said.out, said.err.count("\n")) == ("", 1)


@pytest.mark.parametrize(
    ("word", "meant"),
    {
        "dpm++": "dpmpp_2m",
        "dpm": "dpmpp_2m",
        "DPM++ 2M": "dpmpp_2m",
        "DPM++ 2M Karras": "dpmpp_2m",
        "dpm++ 2m sde": "dpmpp_sde_2m",
        "dpm++ 3m": "dpmpp_3m",
        "k_euler": "euler",
        "k_dpmpp_2m": "dpmpp_2m",
        "unipc": "unipc_3",
        "plms": "ipndm",
        "hein": "heun",
    }.items(),
)
def test_samplers_by_other_names(word, meant):
    with pytest.raises(InputError, match=f"did you mean '{meant}'"):
        check_choice("--sampler", word, SAMPLERS)


def test_a_folder_that_is_called_as_a_second_word(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["--images", "5"]
    assert verb_of(["train", "latent", *words]) == ("train latent", words)  # whose error then asks for a SOURCE
    (tmp_path / "latent").mkdir()
    assert verb_of(["train", "latent", *words]) == ("train", ["latent", *words])
    assert verb_of(["train", "latent", "digits"]) == ("train latent", ["digits"])
    assert verb_of(["train", "digits"]) == ("train", ["digits"])
    assert verb_of(["train"]) == ("train", [])


@pytest.mark.parametrize(
    ("words", "verb"),
    [
        ("evaluate x", "evaluate"),
        ("evaluate x --bits", "evaluate bits"),
        ("evaluate --loss x", "evaluate loss"),
        ("evaluate bits x", "evaluate bits"),
        ("edit vary x", "edit vary"),
    ],
)
def test_a_verb_is_known_by_its_words_or_by_the_flag_that_they_stand_for(words, verb):
    assert verb_of(words.split())[0] == verb


@pytest.mark.parametrize("words", ["evaluate bits nowhere", "evaluate nowhere --bits", "evaluate loss nowhere"])
def test_what_evaluate_measures_is_a_word_or_a_flag(words, capsys):
    assert cli(*words.split()) == 2
    assert "nowhere is not a run" in capsys.readouterr().err
