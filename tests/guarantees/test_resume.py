"""A run that stops and goes on is bitwise the run that never stopped; what would make it another run is refused."""

import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from bytepixels.data.batches import Batches
from bytepixels.signals import stop_on_signals
from tests.tiny import (
    STEP,
    TINY,
    checkpoints,
    cli,
    log_of,
    plain,
    read_json,
    same_bits,
    snapshot,
    tensors,
    train,
    words,
)

# Everything that a resume could lose: dropout, mirroring, label dropout, weight decay, a decaying rate, micro-batches.
RICH = words(
    "--dropout 0.2 --flip yes --label-dropout 0.3 --weight-decay 0.05 --lr-decay cosine --warmup 64 --micro-batch 12"
)


class Watch:
    """Every batch that training takes, and the steps in which the process gets a signal."""

    def __init__(self, monkeypatch):
        self.seen, self.stops, self.signal = [], set(), signal.SIGTERM
        draw = Batches.__call__

        def call(batches, step):
            images, labels = draw(batches, step)
            self.seen.append((step, images.numpy().tobytes(), labels.tolist()))
            if step in self.stops:
                self.stops.remove(step)
                os.kill(os.getpid(), self.signal)
            return images, labels

        monkeypatch.setattr(Batches, "__call__", call)

    def take(self):
        seen, self.seen = self.seen, []
        return seen


@pytest.fixture
def watch(monkeypatch):
    return Watch(monkeypatch)


@pytest.mark.parametrize(
    ("number", "code", "stops", "repeat"),
    [
        (signal.SIGTERM, 143, {3}, True),
        (signal.SIGINT, 130, {3}, False),  # ... and going on without a flag repeated
        (signal.SIGTERM, 143, {0, 2, 6}, True),
    ],
    ids=["sigterm", "ctrl-c, flags not repeated", "three times"],
)
def test_a_resume_is_bitwise_the_run_that_never_stopped(tmp_path, watch, capsys, number, code, stops, repeat):
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    assert train(straight, *RICH, steps=8) == 0
    never_stopped = watch.take()
    watch.signal, watch.stops = number, set(stops)
    for step in sorted(stops):
        assert train(stopped, *RICH, steps=8) == code
        assert f"stopped at {(step + 1) * STEP} images; saved. Repeat the command to resume" in capsys.readouterr().err
        assert checkpoints(stopped)[-1].name == f"step-{step + 1:08d}"
    assert (train(stopped, *RICH, steps=8) if repeat else cli("train", "digits", "--run", stopped)) == 0
    assert f"resuming at {(max(stops) + 1) * STEP} images" in capsys.readouterr().out
    assert watch.take() == never_stopped
    assert same_bits(checkpoints(straight)[-1], checkpoints(stopped)[-1]) == []
    assert log_of(straight)[-1]["loss"] == log_of(stopped)[-1]["loss"]


def test_the_same_seed_is_the_same_run_and_another_is_not(tmp_path):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        assert train(tmp_path / name, *RICH, "--seed", seed, steps=3) == 0
    a, b, c = (checkpoints(tmp_path / name)[-1] for name in "abc")
    assert same_bits(a, b) == []
    assert {"model/first.weight", "ema/first.weight", "optimizer/first.weight.exp_avg"} <= set(same_bits(a, c))


def test_micro_batches_give_the_gradient_of_the_whole_batch(tmp_path):
    for name, micro in (("whole", 0), ("equal", 8), ("uneven", 12)):
        assert train(tmp_path / name, "--micro-batch", micro, "--warmup", 0, steps=3) == 0
    whole = tensors(checkpoints(tmp_path / "whole")[-1])
    for name in ("equal", "uneven"):
        for line, reference in zip(log_of(tmp_path / name), log_of(tmp_path / "whole"), strict=True):
            assert line["loss"] == pytest.approx(reference["loss"], rel=1e-4)
            assert line["grad_norm"] == pytest.approx(reference["grad_norm"], rel=1e-3)
        parts = tensors(checkpoints(tmp_path / name)[-1])
        for key in whole:  # Adam divides by the gradient's size, so rounding of a tiny gradient moves a weight by ~lr
            if key.endswith("exp_avg"):
                scale = whole[key].abs().max().clamp(min=1e-6)
                assert ((parts[key] - whole[key]).abs().max() / scale) < 1e-3, key


def test_a_larger_budget_goes_on_from_the_old_step(tmp_path, watch, capsys):
    straight, extended = tmp_path / "straight", tmp_path / "extended"
    flags = ("--lr-decay", "none")
    assert train(straight, *flags, steps=5) == 0
    assert train(extended, *flags, steps=2) == 0
    watch.take()
    assert train(extended, *flags, steps=5) == 0
    assert [step for step, _, _ in watch.take()] == [2, 3, 4]
    assert "resuming at 64 images" in capsys.readouterr().out
    assert same_bits(checkpoints(straight)[-1], checkpoints(extended)[-1]) == []
    assert read_json(extended / "config.json")["config"]["train"]["images"] == 5 * STEP


def test_a_finished_run_says_so_and_stays_as_it_is(tmp_path, watch, capsys):
    run = tmp_path / "run"
    assert train(run) == 0
    before = snapshot(run)
    watch.take()
    assert train(run) == 0
    said = capsys.readouterr().out
    assert f"{run} is finished: 64 images seen. Go on with a larger --images, --epochs or --budget." in said
    assert f"bytepixels sample {run}" in said
    assert watch.take() == []
    assert snapshot(run) == before


def test_a_finished_run_says_what_it_has_seen_when_asked_for_less(tmp_path, capsys):
    assert train(tmp_path / "run", steps=3) == 0
    assert train(tmp_path / "run", steps=1) == 0
    assert "96 images seen" in capsys.readouterr().out


@pytest.fixture
def finished(tmp_path):
    run = tmp_path / "run"
    assert train(run, "--flip", "yes") == 0
    return run


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--lr", "0.001"], "--lr 0.002 -> 0.001"),
        (["--batch", "16"], "--batch 32 -> 16"),
        (["--seed", "1"], "--seed 0 -> 1"),
        (["--flip", "no"], "--flip yes -> no"),
        (["--width", "16"], "--width 8 -> 16"),
        (["--multipliers", "1", "2"], "--multipliers 1 -> 1 2"),
        (["--schedule", "linear"], "--schedule cosine -> linear"),
        (["--prediction", "eps"], "--prediction v -> eps"),
        (["--no-labels"], "--labels True -> False"),
        (["--ema-half-life", "99"], "--ema-half-life 10000 -> 99"),
        (["--preset", "small"], "--preset digits, got small"),
        (["--size", "16", "16"], "was trained on other images"),
    ],
    ids=" ".join,
)
def test_what_would_make_it_another_run_is_refused(finished, capsys, flags, named):
    before = snapshot(finished)
    assert cli("train", "digits", "--run", finished, "--images", 9999, *flags) == 2
    error = plain(capsys.readouterr().err)
    assert named in error
    assert "choose another --run" in error or "--run NEW" in error
    assert snapshot(finished) == before


def test_other_images_are_refused(finished, tmp_path, capsys):
    np.save(tmp_path / "other.npy", np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8))
    before = snapshot(finished)
    assert train(finished, "--flip", "yes", steps=4, source=tmp_path / "other.npy") == 2
    error = capsys.readouterr().err
    assert "was trained on other images (digits, 1,797) than" in error
    assert "other.npy" in error
    assert snapshot(finished) == before


def test_what_only_watches_may_change(finished):
    flags = words("--keep 1 --log-seconds 9 --previews 0 --checkpoint-minutes 3 --sampler heun --steps 2 --device cpu")
    assert cli("train", "digits", "--run", finished, "--images", 3 * STEP, *flags) == 0
    assert [path.name for path in checkpoints(finished)] == ["step-00000003"]


# Damage


def flip_a_byte(checkpoint):
    path = checkpoint / "ema.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def truncate(checkpoint):
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


DAMAGE = {
    "a byte flipped": flip_a_byte,
    "truncated": truncate,
    "a file missing": lambda checkpoint: (checkpoint / "optimizer.safetensors").unlink(),
    "state.json empty": lambda checkpoint: (checkpoint / "state.json").write_text(""),
    "state.json of another kind": lambda checkpoint: (checkpoint / "state.json").write_text("{}"),
    "state.json missing": lambda checkpoint: (checkpoint / "state.json").unlink(),
}


@pytest.fixture
def three_checkpoints(tmp_path):
    """A run with checkpoints of steps 1, 2 and 3."""
    run = tmp_path / "run"
    assert train(run, *RICH, "--checkpoint-minutes", 0, steps=3) == 0
    assert [path.name for path in checkpoints(run)] == ["step-00000001", "step-00000002", "step-00000003"]
    return run


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_checkpoint_is_said_and_the_one_before_it_taken(three_checkpoints, watch, capsys, damage):
    newest = checkpoints(three_checkpoints)[-1]
    whole = tensors(newest)
    damage(newest)
    assert train(three_checkpoints, *RICH, "--checkpoint-minutes", 0, steps=3) == 0
    said = capsys.readouterr()
    assert "warning" in said.err
    assert newest.name in said.err
    assert "looking for an older one" in said.err
    assert "resuming at 64 images" in said.out
    assert [step for step, _, _ in watch.take()] == [2]
    again = tensors(newest)
    assert all(torch.equal(again[name], whole[name]) for name in whole)


def test_with_every_checkpoint_damaged_nothing_is_thrown_away(three_checkpoints, watch, capsys):
    for checkpoint in checkpoints(three_checkpoints):
        flip_a_byte(checkpoint)
    before = snapshot(three_checkpoints)
    assert train(three_checkpoints, *RICH, steps=5) == 2
    error = capsys.readouterr().err
    assert "step-00000001" in error
    assert "damaged" in error
    assert "none of the 3 checkpoints in" in error
    assert watch.take() == []
    assert snapshot(three_checkpoints) == before


def test_a_damaged_checkpoint_does_not_push_out_a_whole_one(three_checkpoints):
    newest = checkpoints(three_checkpoints)[-1]
    flip_a_byte(newest)
    newest.rename(newest.with_name("step-00000009"))  # as when the time between checkpoints falls otherwise
    assert train(three_checkpoints, *RICH, "--keep", 1, "--checkpoint-minutes", 0, steps=3) == 0
    assert "step-00000003" in [path.name for path in checkpoints(three_checkpoints)]


def test_what_a_killed_process_left_behind_is_no_checkpoint(three_checkpoints):
    partial = three_checkpoints / "checkpoints" / ".tmp-step-00000004-1"
    partial.mkdir()
    (partial / "model.safetensors").write_bytes(b"half")
    assert train(three_checkpoints, *RICH, steps=4) == 0
    assert checkpoints(three_checkpoints)[-1].name == "step-00000004"


def test_the_log_goes_on_from_the_checkpoint(three_checkpoints):
    """A killed process may have logged steps that it did not save, the last of them by half."""
    saved = log_of(three_checkpoints)
    with open(three_checkpoints / "log.jsonl", "a") as file:
        file.write('{"step": 4, "loss": 7.0}\n{"step": 5, "lo')
    assert train(three_checkpoints, *RICH, steps=5) == 0
    lines = log_of(three_checkpoints)
    assert lines[:3] == saved
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    assert lines[3]["loss"] != 7


def test_the_log_begins_again_when_nothing_was_saved(three_checkpoints):
    shutil.rmtree(three_checkpoints / "checkpoints")
    assert train(three_checkpoints, *RICH, steps=3) == 0
    assert [line["step"] for line in log_of(three_checkpoints)] == [1, 2, 3]


def test_a_log_line_of_another_kind_does_not_end_the_run(three_checkpoints):
    with open(three_checkpoints / "log.jsonl", "a") as file:
        file.write('{"nonfinite": {}}\n')  # as runs of the first days have them
    assert train(three_checkpoints, *RICH, steps=4) == 0


# Signals, to a process of their own


@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param(signal.SIGTERM, 143, id="sigterm"),
        pytest.param(signal.SIGINT, 130, id="ctrl-c", marks=pytest.mark.slow),
    ],
)
def test_a_signal_saves_first(tmp_path, number, code):
    run = tmp_path / "run"
    flags = [*TINY, *RICH, "--lr-decay", "none", "--images", str(10**8), "--run", str(run)]
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, "-m", "bytepixels", "train", "digits", *flags]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=os.environ | threads)
    try:
        deadline = time.monotonic() + 600
        while not (run / "log.jsonl").exists():  # the first step is done
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
        error = process.communicate(timeout=600)[1].decode()
    finally:
        process.kill()
    assert process.returncode == code
    (checkpoint,) = checkpoints(run)
    state = read_json(checkpoint / "state.json")
    assert f"stopped at {state['images']:,} images; saved. Repeat the command to resume." in error
    assert "Traceback" not in error
    straight = tmp_path / "straight"
    assert train(straight, *RICH, "--lr-decay", "none", steps=state["step"]) == 0
    assert same_bits(checkpoint, checkpoints(straight)[-1]) == []


def test_a_second_signal_ends_at_once():
    with stop_on_signals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.signal == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("ignored", [False, True], ids=["the terminal closes", "nohup"])
def test_the_terminal_closes(tmp_path, watch, capsys, ignored):
    run = tmp_path / "run"
    watch.signal, watch.stops = signal.SIGHUP, {1}
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        code = train(run, steps=4)
        assert signal.getsignal(signal.SIGHUP) == (signal.SIG_IGN if ignored else signal.SIG_DFL)
    finally:
        signal.signal(signal.SIGHUP, previous)
    assert code == (0 if ignored else 129)
    assert checkpoints(run)[-1].name == ("step-00000004" if ignored else "step-00000002")


def test_the_handlers_are_given_back(tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    assert train(tmp_path / "run", steps=1) == 0
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
