"""train --from: a new run with another's averaged weights, on other images, with classes matched by name."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from bytepixels.training.pretrained import matched_labels
from tests.tiny import cli, log_of, plain, read_json, snapshot, words

FLAGS = words("--preset digits --width 8 --multipliers 1 2 --attention --heads 1 --blocks 1 --batch 16 --images 32")
AGAIN = words("--images 32")  # the network's flags come with the weights
QUIET = words("--precision float32 --device cpu --log-seconds 0 --previews 0")


def folder(root, classes, each=3, side=8, channels=1):
    """A folder of small images, some for each class."""
    for k, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(each):
            pixels = np.random.default_rng(10 * k + i).integers(0, 256, (side, side, channels), np.uint8)
            Image.fromarray(pixels.squeeze()).save(root / name / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """A run on the classes cat and dog."""
    home = tmp_path_factory.mktemp("origin")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BYTEPIXELS_CACHE", str(home / "cache"))
        assert cli("train", folder(home / "pets", ["cat", "dog"]), *FLAGS, *QUIET, "--run", home / "run") == 0
    return home / "run"


def weights(run, stem):
    (checkpoint,) = (run / "checkpoints").iterdir()
    return load_file(checkpoint / f"{stem}.safetensors")


def same(one, other):
    """But for the steps of `begun`."""
    return torch.allclose(one, other, rtol=0, atol=1e-20)


def begun(run, source, origin, *flags):
    """Begin from the origin, with another seed, and end before any weight moves."""
    return cli("train", source, "--from", origin, *AGAIN, *QUIET, "--lr", 1e-30, "--seed", 5, *flags, "--run", run)


def test_it_begins_with_the_average_and_classes_of_the_same_name(origin, tmp_path, capsys):
    run = tmp_path / "run"
    source = folder(tmp_path / "zoo", ["ape", "cat", "emu"], side=12)
    assert begun(run, source, origin) == 0
    assert f"starting from the EMA weights of {origin}" in capsys.readouterr().out
    old, new = weights(origin, "ema"), weights(run, "model")
    assert all(same(old[name], new[name]) for name in old if name != "label.weight")
    ape, cat, emu, none = new["label.weight"]
    assert same(cat, old["label.weight"][0])
    assert same(none, old["label.weight"][2])
    assert not any(same(row, known) for row in (ape, emu) for known in old["label.weight"])
    saved = read_json(run / "config.json")
    assert saved["data"]["from"]["id"] == read_json(origin / "config.json")["id"]
    assert saved["config"]["network"] == read_json(origin / "config.json")["config"]["network"]
    assert saved["config"]["data"]["size"] == [8, 8]  # no larger than it knows


def test_size_and_budget_may_be_others(origin, tmp_path):
    run, source = tmp_path / "run", folder(tmp_path / "zoo", ["cat"], side=20)
    assert begun(run, source, origin, "--size", 16, "--images", 48) == 0
    assert read_json(run / "config.json")["config"]["data"]["size"] == [16, 16]
    assert log_of(run)[-1]["images"] == 48


def test_images_without_classes(origin, tmp_path):
    source = folder(tmp_path / "flat", ["."])
    assert begun(tmp_path / "run", source, origin) == 0
    assert "label.weight" not in weights(tmp_path / "run", "model")


def test_a_checkpoint_may_be_named_and_the_run_goes_on_without_it(origin, tmp_path):
    run, source = tmp_path / "run", folder(tmp_path / "zoo", ["cat"])
    (checkpoint,) = (origin / "checkpoints").iterdir()
    assert begun(run, source, checkpoint) == 0
    assert cli("train", source, *QUIET, "--run", run, "--images", 64) == 0
    assert begun(run, source, origin, "--images", 96) == 0  # said again, it is the same
    assert log_of(run)[-1]["images"] == 96


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--width", 16], "has another network than this run's settings and images make"),
        (["--channels", 3], "has another network than this run's settings and images make"),
        (["--preset", "small"], "has --preset digits, got small"),
        (["--backbone", "dit"], "has --backbone unet, got dit"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(origin, tmp_path, capsys, flags, said):
    run, source = tmp_path / "run", folder(tmp_path / "zoo", ["cat"])
    assert begun(run, source, origin, *flags) == 2
    assert said in plain(capsys.readouterr().err)
    assert not run.exists()


def test_no_run_and_a_run_that_is_there_are_refused(origin, tmp_path, capsys):
    source = folder(tmp_path / "zoo", ["cat"])
    assert begun(tmp_path / "run", source, tmp_path / "nothing") == 2
    before = snapshot(origin)
    assert begun(origin, source, origin) == 2
    assert "--from begins a new run" in plain(capsys.readouterr().err)
    assert snapshot(origin) == before


def test_a_folder_that_has_grown_says_how_to_go_on(origin, tmp_path, capsys):
    """An image more makes other images; the sentence is a command that trains on them."""
    source = folder(tmp_path / "pets", ["cat", "dog"])
    assert cli("train", source, *FLAGS, *QUIET, "--run", tmp_path / "run") == 0
    folder(source, ["cow"], each=1)
    assert cli("train", source, *FLAGS, *QUIET, "--run", tmp_path / "run") == 2
    said = plain(capsys.readouterr().err)
    command = said[said.index("bytepixels train ") :].removeprefix("bytepixels ").split()
    command[command.index("NEW")] = str(tmp_path / "new")
    assert cli(*command, *AGAIN, *QUIET) == 0
    assert read_json(tmp_path / "new" / "config.json")["data"]["classes"] == ["cat", "cow", "dog"]


def test_rows_of_labels():
    own, other = torch.zeros(3, 2), torch.tensor([[1.0, 1], [2, 2]])
    assert matched_labels(own, other, ["a", "b"], ["b"]).tolist() == [[0, 0], [1, 1], [2, 2]]
    assert matched_labels(own, None, ["a", "b"], []) is own
    assert matched_labels(own, torch.ones(2, 3), ["a", "b"], ["b"]) is own
