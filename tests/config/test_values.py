"""Values that a program gives: read like words of a command line, or refused in a sentence with the field's name."""

from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest

import bytepixels as bp
from bytepixels import InputError
from bytepixels.config.training import TrainConfig
from bytepixels.config.values import value_of
from bytepixels.requests.sample import Sample

KINDS = get_type_hints(TrainConfig, include_extras=True) | get_type_hints(Sample, include_extras=True)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("images", "500k", 500_000),
        ("images", np.int64(7), 7),
        ("images", 7.0, 7),
        ("batch", "8", 8),
        ("lr", "1e-3", 1e-3),
        ("lr", np.float32(0.5), 0.5),
        ("warmup", "5%", 0.05),
        ("label", 7, "7"),
        ("label", None, None),
        ("clip", "no", False),
        ("compile", True, "yes"),
        ("weak", "runs/x", Path("runs/x")),
        ("guidance_interval", (1, "2"), (1.0, 2.0)),
        ("steps", "5", 5),
    ],
)
def test_a_value_is_read_as_the_command_line_reads_it(name, value, expected):
    found = value_of(KINDS[name], name, value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("images", 1.5, "images must be a whole number, got 1.5"),
        ("images", None, "images must be a whole number, got None"),
        ("batch", True, "batch must be a whole number, got True"),
        ("batch", "many", "batch must be a whole number, got 'many'"),
        ("lr", "abc", "lr must be a number, got 'abc'"),
        ("lr", None, "lr must be a number, got None"),
        ("clip", "perhaps", "clip must be True or False, got 'perhaps'"),
        ("clip", 1, "clip must be True or False, got 1"),
        ("weak", 3, "weak must be a path, got 3"),
        ("label", 7.5, "label must be text, got 7.5"),
        ("guidance_interval", (1, 2, 3), r"guidance_interval takes 2 values, got \(1, 2, 3\)"),
        ("precision", "double", "precision must be one of auto, float32, bf16; got 'double'"),
    ],
)
def test_what_a_setting_cannot_have_is_refused_by_its_name(name, value, sentence):
    with pytest.raises(InputError, match=sentence):
        value_of(KINDS[name], name, value)


@pytest.mark.parametrize(
    "call",
    [
        lambda run: run.sample(1, steps="x"),
        lambda run: run.sample("many"),
        lambda run: run.vary(np.full((8, 8), 7.0)),
        lambda run: bp.train("digits", images=1.5),
        lambda run: bp.train("digits", budget=60),
        lambda run: bp.train("digits", labels="perhaps"),
        lambda run: bp.train("digits", attention="x"),
        lambda run: bp.prune_runs([run], keep=0),
        lambda run: bp.Run.open(3),
    ],
)
def test_calls_with_wrong_types_are_input_errors(call):
    with pytest.raises(InputError):
        call(bp.Run.open("digits"))


def test_a_number_names_a_class_and_a_run_is_a_path():
    run = bp.Run.open("digits")
    assert value_of(KINDS["run"], "run", run) == run.path
    assert (run.sample(1, label=7, steps=2) == run.sample(1, label="7", steps=2)).all()
