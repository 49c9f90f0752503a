"""Reading a run beside its training, which removes checkpoints at any time: the newest that is there is taken."""

import shutil

import pytest

from bytepixels.runs import checkpoints as module
from bytepixels.runs import overview
from bytepixels.runs.overview import inspect_run
from bytepixels.runs.run_directory import open_run
from bytepixels.sampling import load_weights as weights
from tests.tiny import checkpoints, cli, read_json, train


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("race") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BYTEPIXELS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        assert train(path, "--checkpoint-minutes", 0, steps=2) == 0
    return path


@pytest.fixture
def run(trained, tmp_path):
    """A run with the checkpoints step-00000001 and step-00000002."""
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def prunes(run, monkeypatch):
    """Has the training replace its newest checkpoint by the next one just before a function reads, twice."""

    def install(owner, name):
        reads, own, rounds = getattr(owner, name), open_run(run).id, iter(range(3, 5))

        def read(*arguments, **flags):
            if step := next(rounds, None):
                newest = checkpoints(run)[-1]
                state = module.read_state(newest, own) | {"step": step}
                for old in checkpoints(run)[:-1]:
                    shutil.rmtree(old)
                newest.rename(newest.with_name(f"step-{step:08d}"))
                module.write_sealed(newest.with_name(f"step-{step:08d}") / "state.json", state)
            return reads(*arguments, **flags)

        monkeypatch.setattr(owner, name, read)

    return install


COMMANDS = {
    "sample": lambda run: ["sample", run, "-n", 1, "--steps", 1, "--out", run.parent / "out"],
    "weak": lambda run: [*COMMANDS["sample"](run), "--guidance", 2, "--weak", run],
    "edit": lambda run: ["edit", "interpolate", run, 0, 1, "-n", 2, "--steps", 1, "--out", run.parent / "out"],
    "evaluate": lambda run: ["evaluate", run, "--loss", "-n", 8],
    "report": lambda run: ["report", run, "--strip", 1],
    "runs list": lambda run: ["runs", "list", run],
    "runs show": lambda run: ["runs", "show", run],
}
READERS = {"sum": (module, "sha256"), "state": (module, "read_sealed"), "weights": (weights, "read_tensors")}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_a_checkpoint_that_is_pruned_while_it_is_read_is_not_called_damaged(run, prunes, capsys, command, reader):
    prunes(*reader)
    assert cli(*command(run)) == 0
    said = "".join(capsys.readouterr())
    assert not any(word in said for word in ("damaged", "incomplete", "warning", "missing", "none yet"))


def test_the_manifest_names_the_checkpoint_that_was_read(run, prunes):
    prunes(weights, "read_tensors")
    assert cli(*COMMANDS["sample"](run)) == 0
    assert read_json(run.parent / "out" / "manifest.json")["checkpoint"] == "step-00000004"


def test_what_was_opened_is_enough(run, monkeypatch):
    """The checkpoint goes while its other files are compared: its weights have been read, and are used."""

    def compare(checkpoint, state):
        shutil.rmtree(checkpoint)
        module.check_files(checkpoint, state)

    monkeypatch.setattr(weights, "check_files", compare)
    assert cli(*COMMANDS["sample"](run)) == 0
    assert read_json(run.parent / "out" / "manifest.json")["checkpoint"] == "step-00000002"


def test_a_named_checkpoint_that_is_pruned_meanwhile(run, prunes, capsys):
    prunes(weights, "read_tensors")
    assert cli(*COMMANDS["sample"](run), "--checkpoint", "step-00000002") == 2
    assert "--checkpoint must be one of step-00000003; got 'step-00000002'" in capsys.readouterr().err


def test_an_optimizer_that_is_pruned_while_one_looks(run, monkeypatch):
    def compare(checkpoint, name, state):
        monkeypatch.undo()
        module.drop_optimizer(checkpoint, state)
        return module.check_file(checkpoint, "optimizer.safetensors", state)

    monkeypatch.setattr(overview, "check_file", compare)
    seen = inspect_run(run, thorough=True)
    assert seen.damage == []
    assert [one.pruned for one in seen.saved] == [True, False]


def test_damage_is_still_damage(run, capsys):
    for checkpoint in checkpoints(run):
        (checkpoint / "state.json").unlink()
    assert cli(*COMMANDS["sample"](run)) == 2
    assert "none of the 2 checkpoints" in capsys.readouterr().err
