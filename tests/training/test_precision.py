"""train --precision auto: measured once, when the run begins, and kept."""

import pytest
import torch

from bytepixels import hardware
from bytepixels.sampling import trained_model
from bytepixels.sampling.trained_model import TrainedModel
from bytepixels.training import session
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


@pytest.fixture
def slow_in_bf16(monkeypatch):
    """A machine that imitates bf16, as far as those can tell who ask."""
    for room in (session, trained_model):
        monkeypatch.setattr(room, "is_slow_in_bf16", lambda device: True)


def test_a_machine_that_imitates_bf16_is_known_by_its_speed(monkeypatch):
    for gain, slow in ((0.05, True), (0.49, True), (0.8, False), (1.9, False)):
        monkeypatch.setattr(hardware, "bf16_gain", lambda device, gain=gain: gain)
        hardware.is_slow_in_bf16.cache_clear()
        assert hardware.is_slow_in_bf16(CPU) is slow
        assert not hardware.is_slow_in_bf16(torch.device("cuda"))
    hardware.is_slow_in_bf16.cache_clear()


def test_a_run_in_bf16_draws_in_float32_where_bf16_is_imitated(tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    assert train(run, "--precision", "bf16", "--lr-decay", "none", steps=1) == 0
    x, found = torch.randn(2, 1, 8, 8), {}
    for slow in (False, True):
        monkeypatch.setattr(trained_model, "is_slow_in_bf16", lambda device, slow=slow: slow)
        model = TrainedModel.open(run, device=CPU)
        level = model.process.levels(2)[1]
        found[slow], exact = model.denoiser()(x, level), model.denoiser(exact=True)(x, level)
        assert torch.equal(found[slow], exact) is slow
    assert not torch.equal(found[False], found[True])
    assert arithmetic(run) == "bf16"


def test_a_run_that_begins_from_one_in_bf16_is_measured_anew(tmp_path, gains, slow_in_bf16, capsys):
    run, second = tmp_path / "run", tmp_path / "second"
    assert train(run, "--precision", "bf16", "--lr-decay", "none", steps=1) == 0
    gains.append(0.05)
    assert cli("train", "digits", "--from", run, "--run", second, "--images", 32) == 0
    assert arithmetic(second) == "float32"
    capsys.readouterr()
    assert cli("train", "digits", "--run", run, "--images", 64) == 0
    assert f"This machine only imitates bf16, which is slow; a new run --from {run} would be faster" in plain(
        capsys.readouterr().out
    )
    assert arithmetic(run) == "bf16"
