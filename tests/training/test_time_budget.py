"""Budgets: in images, passes and time; the learning rate ends with them, and a run that is done can be extended."""

import re
import time

import pytest

from bytepixels.config.presets import PRESETS, autoencoder_config
from bytepixels.config.units import images_in, images_of, length_of, seconds_of
from bytepixels.errors import InputError
from bytepixels.training import time_budget as budget
from bytepixels.training import trainer
from bytepixels.training.time_budget import TimeBudget, extended
from tests.tiny import TINY, cli, log_of, plain, read_json, train

COUNTS = {
    "5M": 5_000_000,
    "500k": 500_000,
    "1.5m": 1_500_000,
    "2_000_000": 2_000_000,
    "7": 7,
    "1e6": 10**6,
    "1G": 10**9,
}
TIMES = {"2h": 7200, "90m": 5400, "1h30m": 5400, "45s": 45, "1d2h": 93_600, "0.5h": 1800, "2H": 7200}


@pytest.mark.parametrize("text", COUNTS)
def test_numbers_of_images(text):
    assert images_of(text) == COUNTS[text]


@pytest.mark.parametrize("text", ["", "M", "3.5", "1.0001k", "many", "inf", "nan", "5 M x", "k5"])
def test_what_is_no_number_of_images(text):
    with pytest.raises(InputError, match="--images must be a whole number such as 2000000, 500k or 5M, got"):
        images_of(text)


@pytest.mark.parametrize("text", TIMES)
def test_times(text):
    assert seconds_of(text) == TIMES[text]


@pytest.mark.parametrize("text", ["", "2", "h", "2x", "2h 30", "-2h", "0s", "infh", "1e3s", "99999999999d"])
def test_what_is_no_time(text):
    with pytest.raises(InputError, match="--budget must be a time such as 2h, 90m or 1h30m"):
        seconds_of(text)


def simulated(monkeypatch, limit, rate, spent=0.0, seen=0, batch=32):
    """Train by an imaginary clock at rate(seconds) images per second: seconds of the session, images at the end."""
    clock = [100.0]
    monkeypatch.setattr(budget.time, "monotonic", lambda: clock[0])
    plan, total = TimeBudget(limit, spent, seen), 10**9
    while seen < total:
        clock[0] += batch / rate(clock[0] - 100)
        seen += batch
        total = plan.images(seen) or total
    return clock[0] - 100, seen


@pytest.mark.parametrize("limit", [2, 60, 7200, 200_000])
@pytest.mark.parametrize("rate", [20, 900])
def test_a_steady_rate_ends_in_time(monkeypatch, limit, rate):
    seconds, seen = simulated(monkeypatch, limit, lambda now: rate)
    assert seconds == pytest.approx(limit, rel=0.02, abs=32 / rate + 0.1)
    assert seen == pytest.approx(limit * rate, rel=0.02, abs=64)


@pytest.mark.parametrize("late", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("factor", [0.25, 4])
def test_a_rate_that_changes_ends_in_time(monkeypatch, late, factor):
    seconds, _ = simulated(monkeypatch, 7200, lambda now: 50 * (factor if now > late * 7200 else 1))
    assert seconds == pytest.approx(7200, rel=0.05)


def test_a_slow_first_step_is_soon_forgotten(monkeypatch):
    seconds, _ = simulated(monkeypatch, 600, lambda now: 100 if now > 1 else 1)  # it takes half a minute
    assert seconds == pytest.approx(600, rel=0.02)


def test_only_the_rest_of_the_budget_is_used(monkeypatch):
    seconds, seen = simulated(monkeypatch, 7200, lambda now: 50, spent=7000, seen=350_000)
    assert seconds == pytest.approx(200, rel=0.05)
    assert seen == pytest.approx(360_000, rel=0.01)


def test_what_previews_took_and_still_take_is_no_training(monkeypatch):
    """After 100 s, 20 of them a preview's, of 1,000: 800 images are a rate of 10, for 900 s less what is kept back."""
    now = [0.0]
    monkeypatch.setattr(budget.time, "monotonic", lambda: now[0])
    found = []
    for aside, reserved in ((0.0, 0.0), (20.0, 0.0), (20.0, 100.0)):
        now[0] = 0.0
        plan = TimeBudget(1000, 0.0, 0)
        now[0], plan.aside = 100.0, aside
        found.append(plan.images(800, reserved))
    assert found == [800 + 8 * 897, 800 + 10 * 897, 800 + 10 * 797]


def test_an_extension_goes_by_the_rate_that_was():
    assert extended(200, spent=100, seen=1000, rate=10) == 2000
    assert extended(200, spent=100, seen=1000, rate=0) == 1001  # it will soon be known
    assert extended(100, spent=99.5, seen=1000, rate=10) == 0
    assert extended(50, spent=100, seen=1000, rate=10) == 0


@pytest.fixture
def clock(monkeypatch):
    """A step takes a twentieth of a second, and nothing else takes time: whatever the machine does."""
    now, steps = [1000.0], trainer.train_steps

    def timed(*arguments):
        for result in steps(*arguments):
            now[0] += 0.05
            yield result

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(trainer, "train_steps", timed)


def test_a_budget_of_time(tmp_path, capsys, clock):
    run = tmp_path / "run"
    line = ("train", "digits", *TINY, "--run", run)
    capsys.readouterr()
    assert cli(*line, "--budget", "4s") == 0
    said = capsys.readouterr()
    assert "of 0:00:04" in said.err.splitlines()[-1]  # the total is the time
    config, log = read_json(run / "config.json")["config"]["train"], log_of(run)
    assert 3.6 < log[-1]["seconds"] < 4.2
    assert config["budget"] == "4s"
    assert config["images"] <= log[-1]["images"] < config["images"] + 32
    assert log[-1]["lr"] < 0.1 * max(one["lr"] for one in log)  # it fell to the end
    assert cli(*line) == 0
    assert "is finished" in capsys.readouterr().out
    assert cli(*line, "--budget", "8s") == 0
    assert 7.6 < log_of(run)[-1]["seconds"] < 8.2
    assert log_of(run)[-1]["images"] > log[-1]["images"]
    seen = log_of(run)[-1]["images"]
    assert cli(*line, "--images", seen + 32) == 0  # any other budget takes its place
    assert log_of(run)[-1]["images"] == seen + 32
    assert read_json(run / "config.json")["config"]["train"]["budget"] is None


def test_a_budget_that_packing_uses_up_says_so_and_keeps_the_pack(tmp_path, capsys):
    run = tmp_path / "run"
    assert cli("train", "digits", *TINY, "--run", run, "--budget", "0.001s") == 2
    said = capsys.readouterr().err
    assert "--budget 0.001s was over before training began" in said
    assert "what was done is kept" in said
    assert not run.exists()


def test_a_budget_of_few_steps_says_what_would_do(tmp_path, capsys, clock):
    line = ("train", "digits", *TINY, "--batch", 16, "--run", tmp_path / "run", "--budget", "3s")
    assert cli(*line) == 0
    said = capsys.readouterr().err
    assert re.search(r"note: --budget 3s is time for [\d,]+ steps? of 16 images here, too few to learn from", said)
    assert re.search(r"about 1,000 show shapes, so \d+:\d\d:\d\d", said)


@pytest.mark.parametrize(
    ("text", "length"), [("5%", 0.05), ("0.05", 0.05), ("20k", 20_000), ("5000", 5000), ("0", 0), ("0%", 0), ("1", 1)]
)
def test_lengths_are_shares_or_images(text, length):
    assert length_of(text) == length


@pytest.mark.parametrize("text", ["", "1.5", "100%", "120%", "nan", "inf", "long", "%"])
def test_what_is_no_length(text):
    with pytest.raises(InputError, match="a length is a share of the budget such as 5%, or images such as 20k; got"):
        length_of(text)


def test_a_length_in_images():
    assert images_in(0.05, 1000) == 50
    assert images_in(300, 1000) == 300
    assert images_in(0, 1000) == 0


def test_the_learning_rate_reaches_its_peak_in_any_budget(tmp_path):
    flags = ("--warmup", "10%", "--lr-decay", "cosine", "--ema-half-life", "5%")
    assert train(tmp_path / "run", *flags, steps=20) == 0
    rates = [line["lr"] for line in log_of(tmp_path / "run")]
    assert max(rates) > 0.95 * 0.002
    assert read_json(tmp_path / "run" / "config.json")["config"]["train"]["warmup"] == 0.1


def test_every_preset_has_its_lengths_in_shares():
    for make in [*PRESETS.values(), autoencoder_config]:
        train = make().train
        assert 0 < train.warmup < 0.2
        assert 0 < train.ema_half_life < 0.2
        assert train.previews is None
        assert train.checkpoint_minutes is None


def test_a_budget_in_passes(tmp_path):
    run = tmp_path / "run"
    line = ("train", "digits", *TINY, "--batch", 512, "--run", run)
    assert cli(*line, "--epochs", 0.5) == 0
    assert read_json(run / "config.json")["config"]["train"]["images"] == 899  # of 1,797
    assert log_of(run)[-1]["step"] == 2
    assert cli(*line, "--epochs", 1) == 0
    assert log_of(run)[-1]["step"] == 4


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--images", "3k", "--budget=5m"), "--images and --budget say the same thing in different units; give one"),
        (("--epochs", 2, "--budget", "5m"), "--epochs and --budget say the same thing in different units"),
        (("--epochs", 0), "--epochs must be above 0 and finite, got 0.0"),
        (("--budget", "soon"), "--budget must be a time such as 2h, 90m or 1h30m (units d, h, m, s), got 'soon'"),
        (("--images", "2e13"), "--images must be in 1..1000000000000, got 20000000000000"),
        (("--images", "half"), "--images must be a whole number such as 2000000, 500k or 5M, got 'half'"),
    ],
)
def test_budgets_that_are_refused(tmp_path, capsys, flags, said):
    assert cli("train", "digits", *TINY, "--run", tmp_path / "run", *flags) == 2
    assert said in plain(capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


def test_images_may_be_written_short(tmp_path):
    assert cli("train", "digits", *TINY, "--batch", 500, "--run", tmp_path / "run", "--images", "1k") == 0
    assert log_of(tmp_path / "run")[-1]["images"] == 1000


def test_a_resumed_budget_of_time_counts_what_was_spent(tmp_path, clock):
    run = tmp_path / "run"
    assert train(run, "--budget", "3s", steps=1) == 2  # --images comes from the helper: two budgets
    assert cli("train", "digits", *TINY, "--run", run, "--budget", "3s") == 0
    spent = log_of(run)[-1]["seconds"]
    assert cli("train", "digits", *TINY, "--run", run, "--budget", "5s") == 0
    assert log_of(run)[-1]["seconds"] - spent == pytest.approx(5 - spent, abs=0.3)
