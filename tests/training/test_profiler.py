"""train --profile: the shares of a step, the trace, and that nothing else changes."""

import json
import re

import pytest

from bytepixels.training.loop import PHASES
from tests.tiny import checkpoints, log_of, same_bits, train


def shares(said: str) -> dict[str, float]:
    """Percent by row of the printed table."""
    return {name: float(share) for name, share in re.findall(r"(?m)^  ([a-z ]+?) +[\d.-]+ ms +([\d.-]+)%$", said)}


def test_profiled_steps_are_steps_like_any_other_and_their_shares_are_the_whole(tmp_path, capsys):
    assert train(tmp_path / "plain", steps=8) == 0
    capsys.readouterr()
    assert train(tmp_path / "profiled", "--profile", 4, steps=8) == 0
    said = capsys.readouterr().out
    found = shares(said)
    assert list(found) == [*PHASES, "logging", "the rest"]
    assert sum(found.values()) == pytest.approx(100, abs=0.4)
    assert min(found.values()) >= 0
    assert found["backward"] > found["data"]
    limit = re.search(r"forward and backward: ([\d,]+) GFLOP/s, (\d+)% of the ([\d,]+) GFLOP/s", said)
    rate, share, most = (float(number.replace(",", "")) for number in limit.groups())
    assert share == pytest.approx(100 * rate / most, abs=60 / most + 1)
    assert 0 < rate < most
    assert same_bits(checkpoints(tmp_path / "plain")[-1], checkpoints(tmp_path / "profiled")[-1]) == []
    assert [line["step"] for line in log_of(tmp_path / "profiled")] == [7, 8]  # the profiled ones in one line


def test_the_trace_holds_every_phase_of_every_profiled_step(tmp_path, capsys):
    assert train(tmp_path / "run", "--profile", 3, steps=7) == 0
    events = json.loads((tmp_path / "run" / "trace.json").read_text())["traceEvents"]
    counts = {phase: sum(e.get("name") == phase and e.get("ph") == "X" for e in events) for phase in PHASES}
    assert counts == dict.fromkeys(PHASES, 3)


@pytest.mark.parametrize(
    ("steps", "sentence"), [(6, "takes 9 steps with its warm-up, and 8 are left"), (-1, "1..1000")]
)
def test_more_steps_than_the_budget_has_are_refused_before_the_run_begins(tmp_path, capsys, steps, sentence):
    assert train(tmp_path / "run", "--profile", steps, steps=8) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
