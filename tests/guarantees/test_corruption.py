"""Damage of every kind to every file of a run: it is found and said, and what is loaded is what was written.

The oracle knows nothing of seals, sums or ids: it has the files as they were written, of two runs with the same
settings and other seeds, and compares bytes (of JSON, values).
"""

import io
import json
import shutil
from contextlib import redirect_stderr, redirect_stdout
from functools import lru_cache

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bytepixels.build import build_network
from bytepixels.errors import InputError
from bytepixels.runs.checkpoints import is_foreign
from bytepixels.runs.run_directory import open_run
from bytepixels.sampling.trained_model import TrainedModel
from bytepixels.training.loop import TrainState
from bytepixels.training.resume import load_latest
from tests.tiny import FILES, cli, same_bits, snapshot, tensors, train

STEPS, STRAIGHT = 3, 4
CPU = torch.device("cpu")
SEEDS = {"a": 1, "b": 2}
NAMES = [f"{stem}.safetensors" for stem in FILES] + ["state.json"]
TARGETS = ["config.json", ".config.json", "log.jsonl"] + [
    f"checkpoints/step-{step:08d}/{name}" for step in range(1, STEPS + 1) for name in NAMES
]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Runs a and b, stopped after three steps with all checkpoints kept, and as they end when nothing happens."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BYTEPIXELS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        folder = tmp_path_factory.mktemp("world")
        for name, seed in SEEDS.items():
            flags = ["--seed", seed, "--checkpoint-minutes", 0, "--keep", 9, "--lr-decay", "none", "--dropout", 0.1]
            assert train(folder / name, *flags, steps=STEPS) == 0
            shutil.copytree(folder / name, folder / f"{name}-straight")
            assert train(folder / f"{name}-straight", *flags, steps=STRAIGHT) == 0
    return folder


# What can happen to files


def truncate(run, other, target, where, bit):
    content = (run / target).read_bytes()
    (run / target).write_bytes(content[: int(where * len(content))])


def flip(run, other, target, where, bit):
    content = bytearray((run / target).read_bytes())
    if content:
        content[min(int(where * len(content)), len(content) - 1)] ^= 1 << bit
        (run / target).write_bytes(content)


def append(run, other, target, where, bit):
    content = (run / target).read_bytes()
    more = [b"\0", b"\n", b" ", b"}", b"\xff\xfe", b"x" * 999, content, content[: int(where * len(content))]][bit]
    (run / target).write_bytes(content + more)


def blank(run, other, target, where, bit):
    """A block that never reached the disk reads as zeros."""
    content = bytearray((run / target).read_bytes())
    start, length = int(where * len(content)), min(512 * (bit + 1), len(content) - int(where * len(content)))
    content[start : start + length] = bytes(length)
    (run / target).write_bytes(content)


def delete(run, other, target, where, bit):
    (run / target).unlink()


def from_the_other_run(run, other, target, where, bit):
    shutil.copy(other / target, run / target)


def from_another_step(run, other, target, where, bit):
    if "step-" in target:
        source = target.replace(target.split("/")[1], f"step-{1 + bit % STEPS:08d}")
        if (run / source).exists() and source != target:
            shutil.copy(run / source, run / target)


def whole_checkpoint_from_the_other_run(run, other, target, where, bit):
    step = f"checkpoints/step-{1 + bit % STEPS:08d}"
    shutil.rmtree(run / step, ignore_errors=True)
    shutil.copytree(other / step, run / step)


def whole_checkpoint_under_another_name(run, other, target, where, bit):
    source, name = run / f"checkpoints/step-{1 + bit % STEPS:08d}", run / f"checkpoints/step-{1 + int(where * 5):08d}"
    if source.exists() and source != name:
        shutil.rmtree(name, ignore_errors=True)
        shutil.copytree(source, name)


def both_configs(run, other, target, where, bit):
    for name in ("config.json", ".config.json"):
        if (run / name).exists():
            flip(run, other, name, where, bit)


def whole_checkpoint_gone(run, other, target, where, bit):
    shutil.rmtree(run / f"checkpoints/step-{1 + bit % STEPS:08d}", ignore_errors=True)


DAMAGE = [
    truncate,
    flip,
    append,
    blank,
    delete,
    from_the_other_run,
    from_another_step,
    whole_checkpoint_from_the_other_run,
    whole_checkpoint_under_another_name,
    both_configs,
    whole_checkpoint_gone,
]
NEWEST = [target for target in TARGETS if f"step-{STEPS:08d}" in target]
strike = st.tuples(
    st.sampled_from(DAMAGE), st.sampled_from(TARGETS + 2 * NEWEST), st.floats(0, 1, exclude_max=True), st.integers(0, 7)
)
strikes = st.lists(strike, min_size=1, max_size=5)


def struck(world, folder, hits):
    """A copy of run a after the hits, fresh each time."""
    run = folder / "a"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(world / "a", run)
    for damage, target, where, bit in hits:
        if (run / target).exists():
            damage(run, world / "b", target, where, bit)
    return run


# What is intact, by comparison with what was written


def same(path, original):
    if not (path.is_file() and original.is_file()):
        return False
    if path.suffix != ".json":
        return path.read_bytes() == original.read_bytes()
    try:
        return json.loads(path.read_text()) == json.loads(original.read_text())
    except ValueError:
        return False


def owner(world, path):
    """The run, "a" or "b", whose config.json this is; None for neither."""
    for name in SEEDS:
        if same(path, world / name / "config.json"):
            return name
    return None


def whole_steps(world, run, name):
    """Steps of the checkpoints that are just as run `name` wrote them, and all that are there."""
    there = sorted(run.glob("checkpoints/step-*"))
    whole = [
        int(one.name[5:])
        for one in there
        if all(same(one / file, world / name / "checkpoints" / one.name / file) for file in NAMES)
    ]
    return whole, [int(one.name[5:]) for one in there]


written_tensors = lru_cache(tensors)  # of the runs that nothing happens to


def equal(loaded, checkpoint, stems=FILES):
    written = written_tensors(checkpoint)
    found = {f"{stem}/{name}": value for stem in stems for name, value in loaded[stem].items()}
    wanted = {name: value for name, value in written.items() if name.split("/")[0] in stems}
    return found.keys() == wanted.keys() and all(
        found[name].dtype == wanted[name].dtype and torch.equal(found[name], wanted[name]) for name in wanted
    )


def one_line(text):
    return text.strip() and "\n" not in text.strip() and "Traceback" not in text


def loaded_for_training(path):
    """(run, its state, its step or None, what was said); InputError when it is refused."""
    said = io.StringIO()
    with redirect_stderr(said):
        run = open_run(path)
        state = TrainState.fresh(build_network(run.config, run.shape, 10, CPU), run.config.train)
        step = load_latest(run, state)
    return state, step, said.getvalue()


class Counts(dict):
    def add(self, key):
        self[key] = self.get(key, 0) + 1


def check_loading(world, run, counts):
    name = owner(world, run / "config.json") or owner(world, run / ".config.json")
    wounded = owner(world, run / "config.json") is None
    if name is None:
        with pytest.raises(InputError) as refused:
            open_run(run)
        assert one_line(str(refused.value))
        counts.add("no config: refused")
        return
    whole, there = whole_steps(world, run, name)
    before = snapshot(run)
    if there and not whole:
        with pytest.raises(InputError, match=rf"none of the {len(there)} checkpoints in .* is intact"):
            loaded_for_training(run)
        changed = {file for file, found in snapshot(run).items() if before.get(file) != found}
        assert changed <= {"config.json", "config.json.damaged"}
        counts.add("none whole: refused")
        return
    state, step, said = loaded_for_training(run)
    assert step == (max(whole) if whole else None)
    newer = [one for one in there if whole and one > max(whole)]
    assert said.count("warning: ") == len(newer) + wounded
    assert all(f"step-{one:08d}" in said for one in newer)
    if whole:
        assert equal(state.tensors(), world / name / "checkpoints" / f"step-{step:08d}")
        opened = open_run(run)
        weights = ("ema", "model")[step % 2]
        model = TrainedModel.open(opened, weights=weights, device=CPU)
        assert model.checkpoint_name == f"step-{step:08d}"
        drawn = {weights: model.network.state_dict()}
        assert equal(drawn, world / name / "checkpoints" / model.checkpoint_name, [weights])
    counts.add("begun anew" if step is None else f"{'passed over' if newer else 'newest'} taken")
    logged = [json.loads(line) for line in read_log(run)]
    assert all(line["step"] <= (step or 0) for line in logged)


def read_log(run):
    path = run / "log.jsonl"
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


LOUD = {
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    "print_blob": True,
}


def test_loading_after_any_damage(world, tmp_path, console):
    counts = Counts()

    @settings(max_examples=150, **LOUD)
    @given(strikes)
    def check(hits):
        check_loading(world, struck(world, tmp_path, hits), counts)

    check()
    assert sum(counts.values()) >= 150
    kinds = ("no config: refused", "none whole: refused", "newest taken", "passed over taken")
    assert min(counts.get(kind, 0) for kind in kinds) > 0, counts


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("damage", DAMAGE[:6], ids=lambda damage: damage.__name__)
def test_every_file_by_every_damage(world, tmp_path, console, target, damage):
    for where, bit in ((0.0, 0), (0.5, 7), (0.999, 3)):
        check_loading(world, struck(world, tmp_path, [(damage, target, where, bit)]), Counts())


def check_commands(world, run, counts):
    """train, sample and runs on a damaged run: a sentence or the right images and weights, never a traceback."""
    name = owner(world, run / "config.json") or owner(world, run / ".config.json")
    whole, there = whole_steps(world, run, name) if name else ([], [])
    fine = name is not None and (bool(whole) or not there)
    for words in (["runs", "list", run.parent], ["runs", "show", run], ["sample", run, "-n", 1, "--steps", 3]):
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = cli(*words)
        expected = {"list": 0, "show": 0 if name else 2}.get(words[1], 0 if whole else 2)
        assert code == expected, (words, err.getvalue())
        assert "Traceback" not in err.getvalue()
        if code == 2:
            assert one_line(err.getvalue().splitlines()[-1].removeprefix("bytepixels: "))
    before = snapshot(run)
    err = io.StringIO()
    with redirect_stdout(io.StringIO()), redirect_stderr(err):
        code = cli("train", "digits", "--run", run, "--images", STRAIGHT * 32)
    assert code == (0 if fine else 2), err.getvalue()
    if fine:
        last = f"checkpoints/step-{STRAIGHT:08d}"
        assert same_bits(run / last, world / f"{name}-straight" / last) == []
        with redirect_stdout(io.StringIO()):
            assert cli("runs", "prune", run, "--keep", 1) == 0
        left = [one for one in (run / "checkpoints").iterdir() if not is_foreign(one, open_run(run).id)]
        assert [one.name for one in left] == [f"step-{STRAIGHT:08d}"]  # another run's are not ours to remove
    else:
        ours = {".lock", "config.json", "config.json.damaged"}
        assert {k: v for k, v in snapshot(run).items() if k not in ours} == {
            k: v for k, v in before.items() if k not in ours
        }
    counts.add(f"train {code}")


@pytest.mark.slow
def test_commands_after_any_damage(world, tmp_path, capsys):
    counts = Counts()

    @settings(max_examples=60, **LOUD)
    @given(strikes)
    def check(hits):
        check_commands(world, struck(world, tmp_path, hits), counts)

    check()
    with capsys.disabled():
        print(f"\ndamaged runs: {sum(counts.values())}, {dict(counts)}")
    assert min(counts["train 0"], counts["train 2"]) > 0
