"""train --compile: what is decided, what is said, and that the compiled steps are the same training."""

from dataclasses import replace

import pytest
import torch
from torch._inductor.exc import InvalidCxxCompiler

from bytepixels.config.presets import PRESETS
from bytepixels.data import pack
from bytepixels.training.autotune import compilation as compiling
from bytepixels.training.autotune.compilation import choose_compile
from tests.tiny import checkpoints, log_of, read_json, same_bits, train

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def decided(monkeypatch, choice, device, plain=1.0, compiling_seconds=60.0, compiled=0.5, lacks=None):
    """choose_compile for 2,000 steps of the digits, with these times instead of measured ones."""
    times = {"no": [0.0, plain, plain + 1], "yes": [compiling_seconds, compiled + 1, compiled]}
    monkeypatch.setattr(compiling, "timed_steps", lambda config, *_: times[config.train.compile])
    monkeypatch.setattr(compiling, "missing_compiler", lambda device: lacks)
    config = PRESETS["digits"]()
    config = replace(config, train=replace(config.train, compile=choice, batch=64, images=2000 * 64))
    return choose_compile(config, pack("digits"), device)


def test_auto_is_decided_by_the_times_and_said_with_them(monkeypatch, capsys, console):
    assert decided(monkeypatch, "auto", CUDA) == "yes"  # saves 2000 * 0.5 - 60 s
    assert "compiled: a step takes 0.5 s instead of 1 s, compiling 60 s, which saves 0:15:40" in capsys.readouterr().out
    assert decided(monkeypatch, "auto", CUDA, compiled=0.98) == "no"  # 40 s saved for 60
    assert "not compiled:" in (said := capsys.readouterr().out)
    assert "which costs 0:00:20 more than it gives over 2,000 steps" in said
    assert decided(monkeypatch, "auto", CUDA, plain=0.5, compiled=0.0) == "no"  # 1,000 s: not tried
    assert "too few to pay for it" in capsys.readouterr().out


def test_a_cpu_and_a_no_ask_nothing(monkeypatch, capsys):
    assert decided(monkeypatch, "auto", CPU) == "no"
    assert decided(monkeypatch, "no", CUDA) == "no"
    assert "compiled" not in capsys.readouterr().out


def test_without_a_compiler_training_is_eager_and_says_so(tmp_path, monkeypatch, capsys):
    def none():
        raise InvalidCxxCompiler

    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", none)  # the config's own does not come back
    assert train(tmp_path / "run", "--compile", "yes", steps=1) == 0
    assert "not compiled: torch.compile needs a C++ compiler, and there is none" in capsys.readouterr().out
    assert read_json(tmp_path / "run" / "config.json")["config"]["train"]["compile"] == "no"


def test_a_batch_that_does_not_fit_is_not_measured(monkeypatch, capsys, console):
    def timed_steps(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(compiling, "timed_steps", timed_steps)
    monkeypatch.setattr(compiling, "missing_compiler", lambda device: None)
    assert choose_compile(PRESETS["digits"](), pack("digits"), CUDA) == "no"
    assert "not compiled: a batch does not fit in memory whole" in capsys.readouterr().out


def test_shards_are_not_compiled(tmp_path, capsys):
    assert train(tmp_path / "run", "--compile", "yes", "--shard") == 2
    assert "--compile yes does not go with --shard" in capsys.readouterr().err


@pytest.mark.parametrize(("compiling_seconds", "choice"), [(999, "yes"), (1001, "no")])
def test_the_break_even(monkeypatch, compiling_seconds, choice):
    """2,000 steps that take half a second less save 1,000 s."""
    assert decided(monkeypatch, "auto", CUDA, compiling_seconds=compiling_seconds) == choice


@pytest.mark.slow
def test_compiled_training_is_eager_training_to_rounding_and_resumes_bitwise(tmp_path):
    """100 steps: each logged loss within 1e-4 over the first 50, the mean of the last 50 within 1%."""
    assert train(tmp_path / "eager", "--dropout", 0.1, steps=100) == 0
    assert train(tmp_path / "compiled", "--dropout", 0.1, "--compile", "yes", steps=100) == 0
    eager, compiled = ([line["loss"] for line in log_of(tmp_path / name)] for name in ("eager", "compiled"))
    assert len(eager) == len(compiled) == 100
    assert compiled[:50] == pytest.approx(eager[:50], rel=1e-4)
    assert compiled != eager
    assert sum(compiled[-50:]) == pytest.approx(sum(eager[-50:]), rel=0.01)
    constant = "--lr-decay", "none"
    assert train(tmp_path / "straight", *constant, "--compile", "yes", steps=8) == 0
    assert train(tmp_path / "stopped", *constant, "--compile", "yes", steps=3) == 0
    assert train(tmp_path / "stopped", *constant, steps=8) == 0  # compiled, as it began
    assert read_json(tmp_path / "stopped" / "config.json")["config"]["train"]["compile"] == "yes"
    assert same_bits(checkpoints(tmp_path / "straight")[-1], checkpoints(tmp_path / "stopped")[-1]) == []
