"""The run directory: what it says about itself, and what it says when it cannot be read."""

import json
from dataclasses import replace

import pytest

from bytepixels.errors import InputError
from bytepixels.presets import digits
from bytepixels.runs.directory import Run, is_run, one_line, open_run, write_json

DATA = {"source": "digits", "count": 3, "classes": ["a", "b"], "sha256": {"images": "x"}}


@pytest.fixture
def run(tmp_path):
    config = digits()
    run = Run(tmp_path / "run", replace(config, data=replace(config.data, size=(8, 12), channels=1)), DATA)
    run.save()
    return run


def test_what_is_saved_opens_again(run):
    read = open_run(run.path)
    assert is_run(run.path)
    assert (read.config, read.data, read.shape) == (run.config, DATA, (1, 8, 12))
    assert read.classes == ["a", "b"]


def test_every_process_that_worked_on_it_is_named(run):
    open_run(run.path).save()
    made_by = json.loads((run.path / "config.json").read_text())["made_by"]
    assert len(made_by) == 2
    assert {"bytepixels", "torch", "python", "platform", "git_commit", "time"} <= made_by[0].keys()


def test_a_network_without_labels_knows_no_classes(run):
    config = replace(run.config, network=replace(run.config.network, labels=False))
    assert replace(run, config=config).classes == []


def test_a_place_that_is_no_run_is_said_with_the_runs_beside_it(run):
    with pytest.raises(InputError, match=r"rum is not a run: it has no config.json; there are runs run in"):
        open_run(run.path.with_name("rum"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda saved: saved | {"format": 9}, "run format 9, this version reads 1"),
        (lambda saved: {}, "cannot be read"),
        (lambda saved: saved | {"config": saved["config"] | {"presett": 1}}, "did you mean 'preset'"),
        (lambda saved: saved | {"config": {"train": {"imags": 1}}}, "a key of train .* did you mean 'images'"),
        (lambda saved: saved | {"config": {"train": {"batch": 0}}}, "--batch must be at least 1, got 0"),
    ],
)
def test_a_config_that_cannot_be_used_is_said(run, change, sentence):
    path = run.path / "config.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(InputError, match=sentence):
        open_run(run.path)


def test_a_config_that_is_no_json_is_said(run):
    (run.path / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json cannot be read"):
        open_run(run.path)


def test_lines_of_the_log_after_the_checkpoint_are_dropped(run):
    for step in (1, 2, 3, 4):
        run.log({"step": step, "loss": 0.5})
    with open(run.path / "log.jsonl", "a") as file:
        file.write('{"step": 5, "lo')  # the process was killed
    run.trim_log(2)
    assert [json.loads(line)["step"] for line in (run.path / "log.jsonl").read_text().splitlines()] == [1, 2]


def test_json_is_written_whole_or_not_at_all(tmp_path):
    write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_numbers_that_json_cannot_say_are_null(tmp_path):
    value = {"a": [1.5, float("nan")], "b": {"c": float("inf")}, "d": (float("-inf"), None, "x")}
    said = {"a": [1.5, None], "b": {"c": None}, "d": [None, None, "x"]}
    write_json(tmp_path / "a.json", value)
    strict = {"parse_constant": lambda name: pytest.fail(name)}
    assert json.loads((tmp_path / "a.json").read_text(), **strict) == said
    assert json.loads(one_line(value), **strict) == said
