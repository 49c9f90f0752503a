"""Models that come along: what is in the package, and that every verb takes their names where it takes a run."""

import json

import numpy as np
import pytest
from PIL import Image

from bytepixels.export.hand_over import hand_over
from bytepixels.runs import models
from bytepixels.runs.models import MODELS, model_names
from bytepixels.runs.overview import inspect_run
from bytepixels.runs.run_directory import open_run
from tests.tiny import cli, pixels_of, plain, snapshot, train

VERBS = {
    "sample": ("sample", "tiny", "-n", 2),
    "evaluate": ("evaluate", "tiny", "-n", 16, "--features", "random"),
    "evaluate --bits": ("evaluate", "tiny", "--bits", "-n", 4),
    "evaluate --loss": ("evaluate", "tiny", "--loss", "-n", 16),
    "compare": ("compare", "tiny", "--samplers", "ddim", "--steps", 2, "-n", 16),
    "report": ("report", "tiny"),
    "runs show": ("runs", "show", "tiny"),
    "runs prune": ("runs", "prune", "tiny", "--keep", 1),
    "edit": ("edit", "vary", "tiny", "image.png"),
    "sample --weak": ("sample", "tiny", "-n", 2, "--weak", "tiny", "--guidance", 2),
    "train --from": ("train", "digits", "--from", "tiny", "--images", 32, "--run", "mine"),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("trained") / "run"
    assert train(path, steps=4) == 0
    return path


@pytest.fixture
def packaged(trained, tmp_path, monkeypatch):
    """A folder to work in, and a package that holds one model, "tiny"."""
    hand_over(open_run(trained), tmp_path / "package/tiny", "digits")
    monkeypatch.setattr(models, "MODELS", tmp_path / "package")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.mark.parametrize("name", model_names())
def test_a_model_is_whole_and_says_where_it_comes_from_without_paths(name):
    one = inspect_run(MODELS / name, thorough=True)
    assert one.damage == []
    assert len(one.saved) == 1
    text = (MODELS / name / "config.json").read_text()
    assert all(not value.startswith("/") for value in strings(json.loads(text)))
    assert one.run.made_by[0]["git_commit"]
    assert one.recent[-1]["images"] == one.saved[0].images


def test_they_are_small():
    assert sum(path.stat().st_size for path in MODELS.rglob("*") if path.is_file()) < 30e6


def strings(value):
    """All strings in a value of JSON."""
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from strings(one)
    elif isinstance(value, str):
        yield value


def test_it_draws_what_the_run_drew_but_for_the_half_precision(packaged, trained, capsys):
    assert cli("sample", trained, "-n", 4, "--out", "full") == 0
    capsys.readouterr()
    assert cli("sample", "tiny", "-n", 4) == 0
    said = capsys.readouterr()
    assert "tiny is a bundled model; using its copy runs/tiny" in said.err
    (drawn,) = (packaged / "runs/tiny/samples").glob("*/grid.png")
    apart = np.abs(pixels_of(drawn).astype(int) - pixels_of(packaged / "full/grid.png"))
    assert apart.max() <= 2
    assert cli("sample", "tiny", "-n", 4) == 0
    assert "comes along" not in capsys.readouterr().err  # the copy is there


@pytest.mark.parametrize("line", VERBS.values(), ids=VERBS)
def test_every_verb_takes_its_name(packaged, line):
    Image.new("L", (8, 8), 200).save("image.png")
    assert cli(*line) == 0
    assert [path.name for path in (packaged / "runs").iterdir()] == ["tiny"]


def test_a_run_of_that_name_goes_first(packaged, trained):
    before = snapshot(models.MODELS)
    assert train(packaged / "runs/tiny") == 0
    assert cli("sample", "tiny", "-n", 1) == 0
    assert open_run(packaged / "runs/tiny").id not in (None, open_run(trained).id)
    assert snapshot(models.MODELS) == before  # and nothing is written into the package


def test_what_lies_in_its_way_and_what_is_no_name_at_all(packaged, capsys):
    (packaged / "runs").mkdir()
    (packaged / "runs/tiny").write_text("a file")
    assert cli("sample", "tiny") == 2
    assert "tiny, a model of bytepixels, cannot be copied to runs/tiny (" in plain(capsys.readouterr().err)
    assert [path.name for path in (packaged / "runs").iterdir()] == ["tiny"]
    assert cli("sample", "tinier") == 2
    assert "models that come along: tiny" in plain(capsys.readouterr().err)


def test_it_cannot_be_trained_on_and_says_so(packaged, capsys):
    assert cli("sample", "tiny", "-n", 1) == 0
    assert cli("train", "digits", "--run", "runs/tiny", "--images", 1_000) == 2
    assert "draw from it, but it cannot be trained on" in plain(capsys.readouterr().err)
