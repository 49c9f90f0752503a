"""Completion, asked of bash itself: verbs, second words, flags, the names that a flag chooses from, and files."""

import re
import subprocess

import pytest

from bytepixels.registries import SAMPLERS
from bytepixels.runs.models import model_names
from bytepixels.verbs import VERBS
from tests.tiny import cli, plain

ASK = 'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _bytepixels; printf "%s\\n" "${COMPREPLY[@]}"'


@pytest.fixture
def complete(tmp_path, capsys):
    assert cli("--completion", "bash") == 0
    script = capsys.readouterr().out
    (tmp_path / "images").mkdir()

    def ask(*words):
        command = ["bash", "-c", f"{script}\n{ASK}", "bytepixels", "bytepixels", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.stderr == ""
        return done.stdout.split()

    return ask


def test_verbs_and_second_words(complete):
    assert set(complete("")) == {name.split()[0] for name in VERBS}
    assert complete("tra") == ["train"]
    assert complete("edit", "i") == ["inpaint", "interpolate", "invert", "images"]
    assert complete("train", "la") == ["latent"]


@pytest.mark.parametrize("verb", VERBS)
def test_every_flag_of_every_verb(verb, complete, capsys):
    assert cli(*verb.split(), "--help") == 0
    told = set(re.findall(r"^  (?:-\w, )?(--[a-z0-9.-]+)", capsys.readouterr().out, re.MULTILINE)) - {"--help"}
    assert set(complete(*verb.split(), "--")) == told


def test_choices_models_and_files(complete):
    assert complete("sample", "emoji", "--sampler", "") == [*SAMPLERS, "images"]
    assert complete("export", "digits", "--to", "o") == ["onnx"]
    assert complete("sample", "cifar10") == [name for name in model_names() if name.startswith("cifar10")]
    assert complete("train", "im") == ["images"]


def test_another_shell(capsys):
    assert cli("--completion", "zsh") == 0
    assert "bashcompinit" in capsys.readouterr().out
    assert cli("--completion", "fsh") == 2
    assert "--completion must be one of bash, zsh; got 'fsh'" in plain(capsys.readouterr().err)
