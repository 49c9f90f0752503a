"""Each verb's help is plain: what a flag does, in whole sentences, with the values that it takes."""

import re

import pytest

from bytepixels.cli.flags import flags_of
from bytepixels.cli.help_text import _texts, help_of
from bytepixels.config.presets import PRESETS
from bytepixels.requests import train as flags
from bytepixels.verbs import VERBS, loaded
from tests.tiny import cli, plain

KINDS = {name: loaded(verb.request) for name, verb in VERBS.items()}


@pytest.mark.parametrize("verb", KINDS)
def test_every_flag_says_what_it_does(verb):
    for flag in flags_of(KINDS[verb]):
        text = _texts(flag.group).get(flag.field, "")
        assert re.match(r"[A-Z0-9]|\w+[:( ,]", text), (flag.name, text)
        assert text.endswith("."), (flag.name, text)
        assert not re.match(r"(Of|As for) \w+\.", text), (flag.name, text)
        assert len(text.split()) >= 3, (flag.name, text)


@pytest.mark.parametrize("verb", KINDS)
@pytest.mark.parametrize("columns", [40, 80, 200])
def test_help_is_plain_and_as_wide_as_the_terminal(verb, columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert cli(*verb.split(), "--help") == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: bytepixels {verb} ")
    for noise in ("None", "config.", "{", "│", "MISSING", "dataclass", "object at"):
        assert noise not in said.replace("train-{000000..000127}.tar", ""), noise
    assert max(map(len, said.splitlines())) <= max(60, min(columns, 120)) or columns == 40


def test_defaults_are_those_of_the_preset(capsys):
    for preset in PRESETS:
        said = help_of("train", flags.Train, flags.Train("", config=PRESETS[preset]()))
        assert f"(default: {PRESETS[preset]().train.lr})" in plain(said)


@pytest.mark.parametrize("verb", KINDS)
def test_no_flag_has_two_defaults(verb, capsys):
    """What its text says, and another one behind it: the size of a new run is decided by its images."""
    assert cli(*verb.split(), "--help") == 0
    for entry in capsys.readouterr().out.split("\n  -"):
        assert not ("Default:" in entry and "(default:" in entry), entry


def test_headings_and_ways_to_write_a_value(capsys):
    assert cli("train", "--help") == 0
    said = capsys.readouterr().out
    for line in ("Training: how long", "Network: a U-Net", "Sampling: how", "  --strict, --no-strict", "  --size N N"):
        assert f"\n{line}" in said
    assert cli("sample", "--help") == 0
    said = capsys.readouterr().out
    for line in ("  RUN", "  -n, --n N", "  -o, --out PATH", "  --weights ema|model", "  --clip yes|no"):
        assert f"\n{line}\n" in said
