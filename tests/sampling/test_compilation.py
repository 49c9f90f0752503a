"""sample --compile: what is decided and said, and that a compiled network draws the same."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch._inductor.exc import InvalidCxxCompiler

from bytepixels.hardware import missing_compiler
from bytepixels.requests.sample import Sample
from bytepixels.sampling import compilation
from bytepixels.sampling.compilation import choose_network, job
from bytepixels.sampling.trained_model import TrainedModel
from tests.tiny import cli, pixels_of, read_json, train, words

CPU = torch.device("cpu")
FLAGS = words("--warmup 0 --lr-decay none --steps 6 --attention 0")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Labelled digits."""
    path = tmp_path_factory.mktemp("sample") / "run"
    assert train(path, *FLAGS, steps=30) == 0
    return path


def draw(run, out, *flags):
    """{seed: image} and the manifest of one sample command."""
    assert cli("sample", run, "--out", out, *flags) == 0
    manifest = read_json(out / "manifest.json")
    return {one["seed"]: pixels_of(out / one["file"]) for one in manifest["pictures"]}, manifest


def farthest(some, others):
    """The largest difference in grey levels between images of the same seeds."""
    assert some.keys() == others.keys()
    return max(int(np.abs(some[seed].astype(int) - others[seed]).max()) for seed in some)


def test_a_short_job_compiles_nothing_and_says_nothing(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(compilation, "shortest", None)  # nor is anything measured
    auto, manifest = draw(run, tmp_path / "auto", "-n", 5)
    assert "compiled" not in capsys.readouterr().out.replace(str(tmp_path), "")
    assert manifest["compiled"] is False
    plain, _ = draw(run, tmp_path / "no", "-n", 5, "--compile", "no")
    assert farthest(auto, plain) == 0


def decided(run, monkeypatch, times, asked="auto"):
    """Whether choose_network compiles for a job of 1,000 evaluations, with these seconds instead of measured ones."""
    model, measured = TrainedModel.open(run, device=CPU), iter(times)
    monkeypatch.setattr(compilation, "shortest", lambda calls, inputs, n: [next(measured) for _ in calls if n])
    monkeypatch.setattr(torch, "compile", lambda network, dynamic: torch.nn.Sequential(network))
    monkeypatch.setattr(compilation, "missing_compiler", lambda device: None)
    request = Sample(run, n=640, batch=64, compile=asked)
    chosen = choose_network(model, model.settings(steps=100), request)
    assert list(measured) == []  # no more is measured than it takes
    assert isinstance(chosen, torch.nn.Sequential) or chosen is model.network
    return chosen is not model.network


def test_auto_takes_the_faster_one_and_says_the_times(run, monkeypatch, capsys, console):
    assert decided(run, monkeypatch, [2.0, 2.0, 1.5])
    assert "\ncompiled: an evaluation takes 1.5 s instead of 2 s; compiling took" in capsys.readouterr().out
    assert not decided(run, monkeypatch, [2.0, 2.0, 1.95])  # is not worth another rounding
    assert not decided(run, monkeypatch, [2.0, 2.0, 2.1])
    assert "\nnot compiled: an evaluation takes 2.1 s instead of 2 s" in capsys.readouterr().out


def test_auto_tries_only_what_is_long_enough(run, monkeypatch, capsys):
    assert not decided(run, monkeypatch, [1.19])  # 1,190 s
    assert capsys.readouterr().out == ""
    assert decided(run, monkeypatch, [1.21, 1.21, 1.0])


def test_yes_and_no_measure_nothing(run, monkeypatch, capsys, console):
    assert not decided(run, monkeypatch, [], asked="no")
    assert capsys.readouterr().out == ""
    assert decided(run, monkeypatch, [], asked="yes")
    assert "\ncompiled: compiling took" in capsys.readouterr().out


def test_processes_that_could_choose_differently_do_not_choose(run, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not decided(run, monkeypatch, [])
    assert decided(run, monkeypatch, [], asked="yes")


def test_the_evaluations_of_a_job(run):
    settings = TrainedModel.open(run, device=CPU).settings()

    def count(overrides=None, **asks):
        return job(replace(settings, **overrides or {}), Sample(run, **asks))

    assert count(n=100, batch=64) == (64, 2 * 6)
    assert count(n=10, batch=64) == (10, 6)
    assert count({"sampler": "heun"}, n=10) == (10, 12)
    assert count({"guidance": 2.0}, n=10) == (20, 6)


def fails(run, tmp_path, monkeypatch, capsys):
    """What yes and auto say where the compiler fails. yes: exit code 1 and no image; auto: as if it were no."""
    assert cli("sample", run, "-n", 3, "--compile", "yes", "--out", tmp_path / "yes") == 1
    yes = capsys.readouterr().err
    assert not list((tmp_path / "yes").iterdir())
    monkeypatch.setattr(compilation, "MIN_EVALUATIONS", 1)
    monkeypatch.setattr(compilation, "LEAST_TO_COMPILE", 0.0)
    auto, manifest = draw(run, tmp_path / "auto", "-n", 3)
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "not compiled" in line)
    assert manifest["compiled"] is False
    assert farthest(auto, draw(run, tmp_path / "no", "-n", 3, "--compile", "no")[0]) == 0
    return yes, line


def test_without_a_compiler(run, tmp_path, monkeypatch, capsys):
    def none():
        raise InvalidCxxCompiler

    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", none)
    why = "torch.compile needs a C++ compiler, and there is none on this machine"
    yes, auto = fails(run, tmp_path, monkeypatch, capsys)
    assert yes == f"bytepixels: {why}; --compile no samples without it\n"
    assert auto == f"not compiled: {why}"


def test_whatever_the_compiler_meets_is_one_sentence(run, tmp_path, monkeypatch, capsys):
    def broken(network, dynamic):
        raise ValueError("no such operator\nand forty lines more")

    monkeypatch.setattr(compilation, "missing_compiler", lambda device: None)
    monkeypatch.setattr(torch, "compile", broken)
    yes, auto = fails(run, tmp_path, monkeypatch, capsys)
    why = "torch could not compile the network (ValueError: no such operator)"
    assert yes == f"bytepixels: {why}; --compile no samples without it\n"
    assert auto == f"not compiled: {why}"


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "most"), [("float32", 1), ("bf16", 12)])
def test_a_compiled_network_draws_the_same(tmp_path, capsys, precision, most):
    """Within one grey level in float32; in bf16 the compiler rounds less often than torch does."""
    run, flags = tmp_path / "run", (*FLAGS, "--precision", precision)
    assert train(run, *flags, steps=30) == 0
    capsys.readouterr()
    if (lacking := missing_compiler(CPU)) is not None:
        assert cli("sample", run, "--compile", "yes") == 1
        assert lacking in capsys.readouterr().err
        return
    ask = "-n", 7, "--batch", 3, "--guidance", 2, "--guidance-interval", 0.1, 5  # 6, 3, 2 and 1 images at a time
    plain, _ = draw(run, tmp_path / "no", *ask, "--compile", "no")
    compiled, manifest = draw(run, tmp_path / "yes", *ask, "--compile", "yes")
    assert "\ncompiled: compiling took" in capsys.readouterr().out
    assert manifest["compiled"] is True
    assert farthest(plain, compiled) <= most
