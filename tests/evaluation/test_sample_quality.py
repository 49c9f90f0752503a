"""evaluate RUN and evaluate train-features from the command line: the card, the record, the budget, what is refused."""

import json
import re

import numpy as np
import pytest
import torch

from bytepixels.data import pack
from bytepixels.evaluation import train_classifier as trainfeatures
from bytepixels.evaluation.summary import copies_sentence, drift_sentence
from bytepixels.metrics.features import RandomFeatures
from bytepixels.metrics.frechet import Moments, frechet_distance
from bytepixels.sampling.trained_model import TrainedModel
from tests.tiny import cli, pixels_of, plain, snapshot, train, words


def lines(run):
    path = run / "eval.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def measured(run, *flags):
    before = len(lines(run))
    assert cli("evaluate", run, *flags) == 0
    (line,) = lines(run)[before:]
    return line


def test_the_record_says_all_that_a_number_needs(run, source, capsys):
    line = measured(run, "-n", 40, "--seed", 5)
    capsys.readouterr()
    assert line["kind"] == "quality"
    assert (line["n"], line["seed"], line["sampler"], line["steps"], line["evaluations"]) == (40, 5, "ddim", 3, 3)
    assert (line["checkpoint"], line["weights"]) == ("step-00000020", "ema")
    assert line["made_by"].keys() >= {"git_commit", "torch"}
    assert line["features"] == {"name": "random", "sha256": RandomFeatures(1).hash, "resize": "none"}
    reference = line["reference"]
    assert (reference["n"], reference["source"], reference["split"]) == (600, str(source), "train")
    assert len(reference["sha256"]) == 64
    assert line["frechet_distance"] == line["measures"]["frechet"]["value"]
    assert line["measures"]["frechet"]["interval"] > 0
    assert "40 images do not span the 192 dimensions" in line["warning"]


def test_the_numbers_are_those_of_the_images_that_sample_draws(run, source, tmp_path, monkeypatch):
    """Drawn again by `sample`, one label at a time, and measured by hand."""
    monkeypatch.setattr(
        "bytepixels.evaluation.sample_quality.MatchedSampler._rows", lambda self, count, seed: self_rows(self, 7, count)
    )
    line = measured(run, "-n", 20, "--batch", 8)
    assert cli("sample", run, "-n", 20, "--label", 7, "--out", tmp_path / "drawn") == 0
    images = torch.stack(
        [torch.from_numpy(pixels_of(tmp_path / "drawn" / f"seed-{k}.png").copy())[None] for k in range(20)]
    )
    features, own = RandomFeatures(1), torch.from_numpy(np.array(pack(source).images))
    moments = [Moments.of(features(x)) for x in (images, own)]
    assert line["frechet_distance"] == pytest.approx(frechet_distance(*moments), rel=1e-5)
    assert cli("evaluate", run, "-n", 20) == 0
    assert lines(run)[-1]["frechet_distance"] == pytest.approx(line["frechet_distance"], rel=1e-4)  # at any batch size


def self_rows(painter, label, count):
    """Rows of training images of one class."""
    return (painter.labels == label).nonzero().flatten()[:1].expand(count)


def test_a_bad_model_is_above_its_floor_and_the_card_says_so(run, capsys):
    line = measured(run, "-n", 100, "--features", "pixels")
    said = plain(capsys.readouterr().out)
    assert line["measures"]["frechet"]["value"] > 3 * line["floor"]["measures"]["frechet"]["value"]
    assert line["floor"]["of"] == "100 held-out images"
    assert "Frechet distance (features pixels)" in said
    assert "FID" not in said
    assert "a model that memorised everything 100%" in said
    assert re.search(r"warning: mean of channel 1 of \d: [\d.]+ in samples, [\d.]+ ± [\d.]+ in the data", said)
    assert (
        "For scale, the same distance of real images that were damaged (lower is nearer): noise of std, of 255 2: "
        in said
    )
    copies = line["copies"]["pixels"]
    assert copies["copyist"]["rate"] > 0.9
    assert copies["held_out"]["rate"] < 0.05
    assert copies["more_than_held_out"] is False
    assert pixels_of(run / "evaluate" / "neighbours.png").shape[0] > 3 * 64
    assert pixels_of(run / "evaluate" / "samples.png").size


def test_own_features_are_trained_and_used_and_know_the_classes(run, source, tmp_path, capsys):
    folder = tmp_path / "my-features"
    flags = words("--epochs 4 --width 8 --batch 50 --device cpu")
    assert cli("evaluate", "train-features", source, *flags, "--out", folder) == 0
    said = plain(capsys.readouterr().out)
    notes = json.loads((folder / "features.json").read_text())
    assert notes["held_out_accuracy"] > 0.8
    assert (notes["n"], notes["held_out"], notes["epochs"]) == (200, "split test", 4)
    assert f"{100 * notes['held_out_accuracy']:.2f}%" in said
    line = measured(run, "-n", 40, "--features", folder)
    assert line["features"] == {"name": "my-features", "sha256": notes["hash"], "resize": "bilinear to 8 x 8"}
    assert [one["name"] for one in line["drift"]][-1] == "classes"
    first = snapshot(folder)
    assert cli("evaluate", "train-features", source, *flags, "--out", folder) == 0
    assert snapshot(folder)["features.safetensors"] == first["features.safetensors"]


def test_own_features_that_are_interrupted_say_which_are_kept(source, tmp_path, monkeypatch, capsys):
    save = trainfeatures.save_classifier

    def interrupted(*args):
        if args[3]["epochs"] == 3:
            raise KeyboardInterrupt
        save(*args)

    monkeypatch.setattr(trainfeatures, "save_classifier", interrupted)
    line = ("evaluate", "train-features", source, *words("--epochs 4 --width 8 --batch 50 --device cpu"))
    assert cli(*line, "--out", tmp_path / "f") == 130
    said = f"bytepixels: interrupted: what 2 epochs of 4 made is kept in {tmp_path / 'f'}\n"
    assert capsys.readouterr().err.endswith(said)


def test_features_are_trained_by_one_process(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert cli("evaluate", "train-features", "digits", "--out", tmp_path / "features") == 2
    assert "evaluate train-features is for one process: run it without torchrun" in capsys.readouterr().err
    assert not (tmp_path / "features").exists()


def test_the_budget_ends_the_drawing_not_the_measuring(run, monkeypatch, capsys):
    line = measured(run, "-n", 1000, "--batch", 16, "--budget", "0.001s")
    assert line["n"] == 16
    assert "--budget 0.001s was used up after 16 of 1,000 samples" in plain(capsys.readouterr().out)


def test_the_reference_is_kept_and_another_sampler_is_said(run, monkeypatch):
    first = measured(run, "-n", 20)
    monkeypatch.setattr("bytepixels.metrics.feature_cache.features_of", None)  # the reference is not made anew
    again = measured(run, "-n", 20, "--sampler", "heun", "--steps", 4, "--guidance", 2)
    assert (again["sampler"], again["steps"], again["evaluations"], again["guidance"]) == ("heun", 4, 14, 2)
    assert again["reference"]["sha256"] == first["reference"]["sha256"]
    assert again["frechet_distance"] != first["frechet_distance"]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("-n 15", "-n must be at least 16, got 15"),
        ("--budget soon", "--budget must be a time such as 2h, 90m or 1h30m (units d, h, m, s), got 'soon'"),
        ("--budget 0m", "--budget must be a time"),
        ("--features nothing", "--features must be auto, random, imagenet, pixels, a folder of evaluate"),
        ("--features inception", "no checksum of inception-2015-12-05.pt is published"),
        ("--steps 21", "steps must be in 1..20, got 21"),
        ("--sampler dimm", "did you mean 'ddim'"),
        ("--checkpoint step-1", "--checkpoint must be one of step-00000020"),
        ("--source nowhere", "'nowhere' is no file"),
        ("--probes 3", "--probes"),
    ],
)
def test_what_is_refused(run, capsys, flags, sentence):
    before = lines(run)
    assert cli("evaluate", run, *words(flags)) == 2
    assert sentence in plain(capsys.readouterr().err)
    assert lines(run) == before


def test_few_training_images_are_refused_before_anything_is_drawn(tmp_path, capsys):
    np.savez(tmp_path / "few.npz", images=np.zeros((5, 8, 8), np.uint8))
    assert train(tmp_path / "run", steps=1, source=tmp_path / "few.npz") == 0
    capsys.readouterr()
    assert cli("evaluate", tmp_path / "run") == 2
    assert "distances need 6 training images or more" in (said := plain(capsys.readouterr().err))
    assert f"look instead at samples: bytepixels sample {tmp_path / 'run'}" in said
    flags = words("--images 16 --batch 16 --width 8 --factor 2 --blocks 1 --previews 1 --device cpu")
    assert cli("train", "autoencoder", tmp_path / "few.npz", *flags, "--run", tmp_path / "stage") == 0
    capsys.readouterr()
    assert cli("evaluate", tmp_path / "stage") == 2  # which draws nothing
    assert f"look instead at the images in {tmp_path / 'stage' / 'samples'}" in plain(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("arrays", "flags", "sentence"),
    [
        ({"labels": np.zeros(40, int)}, "", "has 1 classes; evaluate train-features needs 2 or more"),
        ({}, "", "has 0 classes"),
        ({"labels": np.arange(40)}, "", "has 40 images of 40 classes: too few"),
        ({"labels": np.arange(40) % 2}, "--epochs 0", "--epochs must be at least 1, got 0"),
    ],
)
def test_features_that_cannot_be_learnt(tmp_path, capsys, arrays, flags, sentence):
    np.savez(tmp_path / "x.npz", images=np.zeros((40, 8, 8), np.uint8), **arrays)
    assert cli("evaluate", "train-features", tmp_path / "x.npz", "--out", tmp_path / "f", *words(flags)) == 2
    assert sentence in plain(capsys.readouterr().err)


def test_every_sample_has_its_own_label_whatever_the_batch(run, monkeypatch):
    drawn = []
    draw = TrainedModel.draw
    monkeypatch.setattr(TrainedModel, "draw", lambda *given: drawn.append(given[3]) or draw(*given))
    one, other = (measured(run, "-n", 40, "--batch", batch) for batch in (7, 40))
    assert [label for part in drawn[:-1] for label in part] == drawn[-1]
    assert len(set(drawn[-1])) > 5
    assert one["frechet_distance"] == pytest.approx(other["frechet_distance"], rel=1e-4)


def test_a_statistic_that_never_varies_over_the_data_is_said():
    """All training images alike: nothing spans anything, and any sample leaves it."""
    brightness = {
        "name": "brightness",
        "samples": [0.25, 0.75],
        "data": [1.0, 0.0],
        "half": [0.0, 0.0],
        "outside": [0, 1],
    }
    assert drift_sentence(brightness) == "pixels of brightness 0..127 of 255: 25.0% in samples, 100.0% ± 0% in the data"


@pytest.mark.parametrize(
    ("rate", "more", "verdict"),
    [
        (0.0, False, "no sign of copying."),
        (0.0, True, "no more copies, but nearer to training images than new ones are, as guidance makes samples too."),
        (0.1, True, "it copies."),
    ],
)
def test_copies_are_told_from_samples_that_are_only_near(rate, more, verdict):
    one = {"rate": rate, "interval": 0.01, "n": 400, "near": 0.1}
    sets = {"samples": one, "copyist": one | {"rate": 1.0}, "held_out": one | {"rate": 0.0}, "more_than_held_out": more}
    assert copies_sentence("features", sets).endswith(
        f"10.0% are nearer than 95% of the held-out images are: {verdict}"
    )
