"""The run directory: what it says about itself, and what it says when it cannot be read."""

import hashlib
import json
from dataclasses import replace

import pytest

from bytepixels.config.presets import digits
from bytepixels.errors import InputError
from bytepixels.files import one_line, write_json
from bytepixels.runs.run_directory import Run, is_run, new_id, open_run

DATA = {"source": "digits", "count": 3, "classes": ["a", "b"], "sha256": {"images": "x"}}


@pytest.fixture
def run(tmp_path):
    config = digits()
    run = Run(tmp_path / "run", replace(config, data=replace(config.data, size=(8, 12), channels=1)), DATA, id=new_id())
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
    later = replace(open_run(run.path), opened="2020-02-02T00:00:00+00:00")
    later.save()
    later.save()  # once more in the same session: the time is that of its beginning
    last = json.loads((run.path / "config.json").read_text())["made_by"][-1]
    assert last["time"] == later.opened
    assert {"bytepixels", "torch", "python", "platform", "git_commit", "time"} <= made_by[0].keys()


def test_a_network_without_labels_knows_no_classes(run):
    config = replace(run.config, network=replace(run.config.network, labels=False))
    assert replace(run, config=config).classes == []


def test_a_place_that_is_no_run_is_said_with_the_runs_beside_it(run):
    with pytest.raises(InputError, match=r"rum is not a run: it has no config.json; runs in .*: run$"):
        open_run(run.path.with_name("rum"))


def rewrite(path, change):
    """config.json with other values, sealed as if they had been meant."""
    values = change({key: value for key, value in json.loads(path.read_text()).items() if key != "seal"})
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"))
    path.write_text(json.dumps(values | {"seal": hashlib.sha256(canonical.encode()).hexdigest()}))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda saved: saved | {"format": 9}, "run format 9, this version reads 1"),
        (lambda saved: saved | {"config": saved["config"] | {"presett": 1}}, "did you mean 'preset'"),
        (lambda saved: saved | {"config": {"train": {"imags": 1}}}, "a key of train .* did you mean 'images'"),
        (lambda saved: saved | {"config": {"train": {"batch": -1}}}, "--batch must be at least 0, got -1"),
    ],
)
def test_a_config_that_cannot_be_used_is_said(run, change, sentence):
    rewrite(run.path / "config.json", change)
    with pytest.raises(InputError, match=sentence):
        open_run(run.path)


DAMAGE = {
    "cut short": (lambda text: text[: len(text) // 2], "char"),
    "empty": (lambda text: "", "Expecting value"),
    "another kind of json": (lambda text: "[]", "it is no JSON object"),
    "nothing in it": (lambda text: "{}", "it has no seal"),
    "another value": (lambda text: text.replace('"count": 3', '"count": 7'), "differs from what was written"),
    "no seal": (lambda text: text.replace('"seal"', '"sea1"'), "it has no seal"),
    "missing": (None, "it is missing"),
}


def damage(path, change):
    if change is None:
        path.unlink()
    else:
        path.write_text(change(path.read_text()))


@pytest.mark.parametrize(("change", "reason"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_config_is_replaced_by_its_spare_copy_and_said_once(run, capsys, console, change, reason):
    path, whole = run.path / "config.json", (run.path / "config.json").read_text()
    damage(path, change)
    damaged = path.read_bytes() if path.exists() else None
    assert open_run(run.path) == open_run(run.path) == replace(run, made_by=open_run(run.path).made_by)
    said = capsys.readouterr().err
    assert said.startswith(f"warning: {path} cannot be read: ")
    assert reason in said
    assert said.endswith("; using its spare copy\n")
    assert said.count("\n") == 1
    assert path.read_text() == whole
    aside = run.path / "config.json.damaged"
    assert (aside.read_bytes() if aside.exists() else None) == damaged


@pytest.mark.parametrize(("change", "reason"), DAMAGE.values(), ids=DAMAGE)
def test_with_both_copies_damaged_it_is_refused_and_kept(run, change, reason):
    damage(run.path / "config.json", change)
    (run.path / ".config.json").write_text("{")
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=f"config.json cannot be read: .*{reason}"):
        open_run(run.path)
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


def test_a_damaged_spare_copy_is_made_again(run, capsys):
    spare = run.path / ".config.json"
    spare.write_text("{")
    open_run(run.path).save()
    assert capsys.readouterr().err == ""
    assert spare.read_text() == (run.path / "config.json").read_text()


def test_lines_of_the_log_after_the_checkpoint_are_dropped(run):
    for step in (1, 2, 3, 4):
        run.log({"step": step, "loss": 0.5})
    with open(run.path / "log.jsonl", "a") as file:
        file.write('{"step": 5, "lo')  # the process was killed
    assert run.trim_log(2) == 1
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
