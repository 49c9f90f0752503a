"""sample --compile: what is decided and said, and that compiled code is kept, used again, and draws the same."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch._inductor.exc import InvalidCxxCompiler

from bytepixels.hardware import missing_compiler
from bytepixels.requests.sample import SampleRequest
from bytepixels.runs.run_directory import open_run
from bytepixels.sampling import compiled as compiledsampling
from bytepixels.sampling.compiled import Compiled, choose_network, job, kept_at
from bytepixels.sampling.settings import chosen_settings
from bytepixels.sampling.trained_model import find_checkpoint, load_network

from .tiny import checkpoints, cli, picture, read_json, train, words

CPU = torch.device("cpu")
FLAGS = words("--warmup 0 --lr-decay none --steps 6 --attention 0")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _this_cache(cache, monkeypatch):
    monkeypatch.setenv("BYTEPIXELS_CACHE", str(cache))


@pytest.fixture(scope="module")
def run(tmp_path_factory, cache):
    """Labelled digits, two checkpoints."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BYTEPIXELS_CACHE", str(cache))
        path = tmp_path_factory.mktemp("sample") / "run"
        assert train(path, *FLAGS, steps=10) == 0
        assert train(path, *FLAGS, steps=30) == 0
    return path


def opened(path):
    run = open_run(path)
    return run, load_network(run, find_checkpoint(run, None), "ema", CPU)


def kept(network, run):
    return kept_at(network, run.config, run.shape, CPU)


def draw(run, out, *flags):
    """{seed: image} and the manifest of one sample command."""
    assert cli("sample", run, "--out", out, *flags) == 0
    manifest = read_json(out / "manifest.json")
    return {one["seed"]: picture(out / one["file"]) for one in manifest["pictures"]}, manifest


def farthest(some, others):
    """The largest difference in grey levels between images of the same seeds."""
    assert some.keys() == others.keys()
    return max(int(np.abs(some[seed].astype(int) - others[seed]).max()) for seed in some)


def test_a_short_job_compiles_nothing_and_says_nothing(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BYTEPIXELS_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr(compiledsampling, "shortest", None)  # nor is anything measured
    auto, manifest = draw(run, tmp_path / "auto", "-n", 5)
    assert "compiled" not in capsys.readouterr().out.replace(str(tmp_path), "")
    assert manifest["compiled"] is False
    assert not (tmp_path / "empty").exists()
    plain, _ = draw(run, tmp_path / "no", "-n", 5, "--compile", "no")
    assert farthest(auto, plain) == 0


def decided(run, monkeypatch, times, asked="auto", kept=False, **asks):
    """choose_network for a job of 1,000 evaluations, with these seconds instead of measured ones."""
    (opened_run, network), measured = opened(run), iter(times)
    path = run / "kept.pt2"
    path.unlink(missing_ok=True)
    if kept:
        path.touch()
    monkeypatch.setattr(compiledsampling, "kept_at", lambda *_: path)
    monkeypatch.setattr(compiledsampling, "shortest", lambda calls, *_: [next(measured) for _ in calls])
    monkeypatch.setattr(compiledsampling, "obtained", lambda *_: (Compiled(network, network), "how"))
    request = SampleRequest(n=640, batch=64, compile=asked, **asks)
    chosen = choose_network(network, opened_run, chosen_settings(opened_run, {"steps": 100}), request, CPU)
    assert list(measured) == []  # no more is measured than it takes
    assert isinstance(chosen, Compiled) or chosen is network
    return isinstance(chosen, Compiled)


def test_auto_takes_the_faster_one_and_says_the_times(run, monkeypatch, capsys, console):
    assert decided(run, monkeypatch, [2.0, 2.0, 1.5])
    assert capsys.readouterr().out == "compiled: an evaluation takes 1.5 s instead of 2 s; how\n"
    assert not decided(run, monkeypatch, [2.0, 2.0, 1.95])  # is not worth another rounding
    capsys.readouterr()
    assert not decided(run, monkeypatch, [2.0, 2.0, 2.1])
    assert capsys.readouterr().out == "not compiled: an evaluation takes 2.1 s instead of 2 s; how\n"


def test_auto_tries_only_what_is_long_enough(run, monkeypatch, capsys):
    assert not decided(run, monkeypatch, [1.19])  # 1,190 s
    assert not decided(run, monkeypatch, [0.059], kept=True)  # 59 s
    assert capsys.readouterr().out == ""
    assert decided(run, monkeypatch, [0.061, 0.061, 0.05], kept=True)


def test_yes_and_no_measure_nothing(run, monkeypatch, capsys, console):
    assert not decided(run, monkeypatch, [], asked="no")
    assert capsys.readouterr().out == ""
    assert decided(run, monkeypatch, [], asked="yes")
    assert capsys.readouterr().out == "compiled: how\n"


def test_processes_that_could_choose_differently_do_not_choose(run, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not decided(run, monkeypatch, [])
    assert decided(run, monkeypatch, [], asked="yes")


def test_the_evaluations_of_a_job(run):
    opened_run = open_run(run)

    def count(overrides=None, **asks):
        return job(chosen_settings(opened_run, overrides or {}), SampleRequest(**asks))

    assert count(n=100, batch=64) == (64, 2 * 6)
    assert count(n=10, batch=64) == (10, 6)
    assert count({"sampler": "heun"}, n=10) == (10, 12)
    assert count({"guidance": 2.0}, n=10) == (20, 6)


def long_job(monkeypatch):
    """Makes any job one that is worth a trial."""
    monkeypatch.setattr(compiledsampling, "FEW", 1)
    monkeypatch.setattr(compiledsampling, "LEAST_TO_COMPILE", 0.0)


def fails(run, tmp_path, monkeypatch, capsys):
    """What yes and auto say where the compiler fails. yes: exit code 1 and no image; auto: as if it were no."""
    assert cli("sample", run, "-n", 3, "--compile", "yes", "--out", tmp_path / "yes") == 1
    yes = capsys.readouterr().err
    assert not list((tmp_path / "yes").iterdir())
    long_job(monkeypatch)
    auto, manifest = draw(run, tmp_path / "auto", "-n", 3)
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "not compiled" in line)
    assert manifest["compiled"] is False
    assert farthest(auto, draw(run, tmp_path / "no", "-n", 3, "--compile", "no")[0]) == 0
    return yes, line


def test_without_a_compiler(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BYTEPIXELS_CACHE", str(tmp_path / "empty"))

    def none():
        raise InvalidCxxCompiler

    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", none)
    why = "torch.compile needs a C++ compiler, and there is none on this machine"
    yes, auto = fails(run, tmp_path, monkeypatch, capsys)
    assert yes == f"bytepixels: {why}; --compile no samples without it\n"
    assert auto == f"not compiled: {why}"


def test_whatever_the_compiler_meets_is_one_sentence(run, tmp_path, monkeypatch, capsys):
    def broken(*_):
        raise ValueError("no such operator\nand forty lines more")

    monkeypatch.setattr(compiledsampling, "missing_compiler", lambda device: None)
    monkeypatch.setattr(compiledsampling, "compile_into", broken)
    yes, auto = fails(run, tmp_path, monkeypatch, capsys)
    why = "torch could not compile the network (ValueError: no such operator)"
    assert yes == f"bytepixels: {why}; --compile no samples without it\n"
    assert auto == f"not compiled: {why}"


def test_the_file_is_that_of_the_network_and_the_machine_not_of_the_weights(run, monkeypatch):
    one, network = opened(run)
    path = kept(network, one)
    older = load_network(one, checkpoints(run)[0], "model", CPU)
    assert kept(older, one) == path
    other_seed = replace(one, config=replace(one.config, train=replace(one.config.train, seed=5)))
    assert kept(network, other_seed) == path

    def changed(part, **values):
        return replace(one, config=replace(one.config, **{part: replace(getattr(one.config, part), **values)}))

    others = {
        "heads": kept(network, changed("network", heads=2)),
        "precision": kept(network, changed("train", precision="bf16")),
        "process": kept(network, changed("process", diffusion="flow")),
        "pictures": kept(network, changed("data", size=(16, 16))),
        "layout": kept(older.to(memory_format=torch.contiguous_format), one),
    }
    for where, name, value in (
        (torch, "__version__", "9.9"),
        (torch, "get_num_threads", lambda: 77),
        (compiledsampling, "processor", lambda device: "another"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(where, name, value)
            others[name] = kept(network, one)
    assert path not in others.values()
    assert sorted(set(others.values())) == sorted(others.values()), others
    assert kept(network, one) == path


class Twice(nn.Module):
    null_label = None

    def forward(self, x, t, label=None):
        return 2 * x


def test_the_code_gets_what_it_was_made_for():
    seen = []

    def code(weights, x, t):
        seen.append((x.is_contiguous(), torch.is_autocast_enabled("cpu")))
        return 3 * x

    compiled = Compiled(Twice(), code)
    x = torch.randn(4, 3, 8, 8).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(compiled(x, torch.zeros(4)), 3 * x)
    assert seen == [(True, False)]
    assert torch.equal(compiled(x[:1], torch.zeros(1)), 2 * x[:1])  # by the network itself
    assert len(seen) == 1


def again(run, out, *flags):
    """The images and words of sample --compile yes in a process that has no compiler."""
    line = [sys.executable, "-m", "bytepixels", "sample", run, "--out", out, "--compile", "yes", *flags]
    made = subprocess.run(
        [str(word) for word in line], env=os.environ | {"CXX": "no-such-compiler"}, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    return {int(path.stem[5:]): picture(path) for path in out.glob("seed-*.png")}, made.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "most"), [("float32", 1), ("bf16", 12)])
def test_compiled_code_draws_the_same_and_is_used_again(tmp_path, capsys, precision, most):
    """Within one grey level in float32; in bf16 the compiler rounds less often than torch does."""
    run, flags = tmp_path / "run", (*FLAGS, "--precision", precision)
    assert train(run, *flags, steps=10) == 0
    assert train(run, *flags, steps=30) == 0
    capsys.readouterr()
    if (lacking := missing_compiler(CPU)) is not None:
        assert cli("sample", run, "--compile", "yes") == 1
        assert lacking in capsys.readouterr().err
        return
    ask = "-n", 7, "--batch", 3, "--guidance", 2, "--guidance-interval", 0.1, 5  # 6, 3, 2 and 1 images at a time
    plain, _ = draw(run, tmp_path / "no", *ask, "--compile", "no")
    compiled, manifest = draw(run, tmp_path / "yes", *ask, "--compile", "yes")
    assert "compiled: kept for the next time" in capsys.readouterr().out
    assert manifest["compiled"] is True
    assert farthest(plain, compiled) <= most
    opened_run, network = opened(run)
    evaluations_agree(opened_run, network, 1e-5 if precision == "float32" else 0.02)

    older = "-n", 5, "--checkpoint", checkpoints(run)[0].name
    plain, _ = draw(run, tmp_path / "older-no", *older, "--compile", "no")
    compiled, said = again(run, tmp_path / "older-yes", *older)
    assert "compiled: from the cache" in said
    assert farthest(plain, compiled) <= most


def evaluations_agree(run, network, tolerance):
    """One evaluation of the compiled code in the cache, against the network's own, for several sizes of a batch."""
    inputs = compiledsampling.example(network, run.shape, 9, CPU)
    compiled, how = compiledsampling.obtained(network, run.config, inputs, kept(network, run))
    assert how.startswith("from the cache")
    plain = compiledsampling.at_precision(network, run.config, CPU)
    for batch in (2, 3, 9):
        x, label = torch.randn(batch, *run.shape), torch.arange(batch)
        t = torch.linspace(1, 900, batch)
        with torch.no_grad():
            torch.testing.assert_close(compiled(x, t, label), plain(x, t, label), atol=tolerance, rtol=tolerance)


@pytest.mark.slow
def test_a_damaged_file_is_made_anew(run, tmp_path, capsys):
    opened_run, network = opened(run)
    path = kept(network, opened_run)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"PK half of it")
    capsys.readouterr()
    if (lacking := missing_compiler(CPU)) is not None:
        assert cli("sample", run, "--compile", "yes") == 1
        assert lacking in capsys.readouterr().err
        return
    _, manifest = draw(run, tmp_path, "-n", 3, "--compile", "yes")
    assert "compiled: kept for the next time" in capsys.readouterr().out
    assert manifest["compiled"] is True
    assert "compiled: from the cache" in again(run, tmp_path / "again", "-n", 3)[1]
