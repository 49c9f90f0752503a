"""train --precision auto: measured once, when the run begins, and kept."""

import pytest
import torch

from bytepixels.training.autotune import precision
from bytepixels.training.autotune.precision import choose_precision, decided
from tests.tiny import checkpoints, cli, plain, read_json, same_bits, train

CPU = torch.device("cpu")


@pytest.fixture
def gains(monkeypatch):
    """What the machine gains by bf16, each time that it is measured; none are left once all have been asked for."""
    left = []
    monkeypatch.setattr(precision, "bf16_gain", lambda device: left.pop(0))
    return left


def arithmetic(run):
    return read_json(run / "config.json")["config"]["train"]["precision"]


def test_bf16_where_it_is_clearly_faster():
    assert [decided(gain) for gain in (0.05, 1, 1.19, 1.2, 2.2)] == ["float32"] * 3 + ["bf16"] * 2


def test_what_is_asked_for_is_not_measured(gains):
    for name in ("float32", "bf16"):
        assert choose_precision(name, CPU) == (name, "")
    assert choose_precision("auto", torch.device("mps")) == ("float32", "")


def test_a_gpu_is_measured_where_it_has_bf16(monkeypatch, gains):
    card = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "device", lambda device: torch.no_grad())  # some context
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    assert choose_precision("auto", card) == ("float32", "")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    gains.append(1.1)
    assert choose_precision("auto", card)[0] == "float32"
    gains.append(14)
    assert choose_precision("auto", card) == (
        "bf16",
        "Using bf16: bf16 is 14.0 times as fast as float32 here",
    )


def test_measured_here():
    chosen, why = choose_precision("auto", CPU)
    assert chosen in ("float32", "bf16")
    assert why.startswith(f"Using {chosen}: bf16 is ")


@pytest.mark.parametrize(("gain", "name"), [(0.31, "float32"), (1.87, "bf16")])
def test_a_run_is_measured_when_it_begins_and_goes_on_in_the_same_arithmetic(tmp_path, capsys, gains, gain, name):
    run = tmp_path / "run"
    gains.append(gain)
    assert train(run, "--precision", "auto", "--lr-decay", "none", steps=1) == 0
    assert gains == []
    said = capsys.readouterr().out
    assert f"Using {name}: bf16 is " in said
    assert f"weights, {name} on cpu" in said
    assert arithmetic(run) == name
    gains.append(1 / gain)  # from here on it would come out otherwise
    assert train(run, "--precision", "auto", "--lr-decay", "none", steps=2) == 0  # asked for once more
    assert cli("train", "digits", "--run", run, "--images", 96) == 0  # nothing said
    assert len(gains) == 1
    assert f"weights, {name} on cpu" in (said := capsys.readouterr().out)
    assert "times as fast" not in said
    assert arithmetic(run) == name


def test_an_arithmetic_that_is_named_is_taken_and_never_changed(tmp_path, capsys, gains):
    run = tmp_path / "run"
    assert train(run, "--precision", "bf16", "--lr-decay", "none", steps=1) == 0
    assert arithmetic(run) == "bf16"
    assert "times as fast" not in capsys.readouterr().out
    assert train(run, "--precision", "float32", "--lr-decay", "none", steps=2) == 2
    assert "begun with other settings (--precision bf16 -> float32)" in plain(capsys.readouterr().err)


def test_a_run_in_bf16_resumes_bitwise(tmp_path):
    flags = "--precision", "bf16", "--lr-decay", "none", "--dropout", 0.1
    assert train(tmp_path / "straight", *flags, steps=8) == 0
    assert train(tmp_path / "stopped", *flags, steps=3) == 0
    assert train(tmp_path / "stopped", *flags, steps=8) == 0
    assert same_bits(checkpoints(tmp_path / "straight")[-1], checkpoints(tmp_path / "stopped")[-1]) == []
