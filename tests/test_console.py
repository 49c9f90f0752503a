"""How events are drawn, on a stream that is no terminal and on one that is."""

import io
from contextlib import suppress

from bytepixels import console as module
from bytepixels import events
from bytepixels.console import Console, line_of
from bytepixels.events import Work, duration, listening


def test_durations_read_as_clocks():
    assert [duration(s) for s in (0, 59.6, 61, 3725)] == ["0:00:00", "0:01:00", "0:01:01", "1:02:05"]


def test_plain_lines_come_now_and_then_and_at_the_end(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    stream = io.StringIO()
    with listening(Console(stream)), Work("train", 100, "images") as work:
        for second in range(1, 26):
            clock[0] = float(second)
            work.update(4 * second, "loss 0.5")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3  # at 10 and 20 seconds, and when it was done
    assert lines[0] == "train  40/100 images 40%  4.0 images/s  ETA 0:00:15  loss 0.5"
    assert lines[-1] == "train  100/100 images 100%  4.0 images/s  loss 0.5"


def test_the_first_moment_is_no_measure_of_what_is_left(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    seen = []
    with listening(seen.append), Work("pack", 60_000) as work:
        for seconds, done in ((0.5, 1), (1.0, 50), (1.9, 900)):
            clock[0] = seconds
            work.update(done)
            assert seen[-1].eta is None
        clock[0] = 2.0
        work.update(1000)
        assert line_of(seen[-1]) == "pack  1,000/60,000 images 1%  500.0 images/s  ETA 0:01:58"


def test_a_pause_does_not_count_into_the_rate(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    with Work("train", 100) as work:
        clock[0] = 1.0
        work.update(10)
        clock[0] = 50.0  # something else took 49 seconds
        work.pause()
        clock[0] = 51.0
        work.update(20)
        assert work.rate == 10


def test_a_resumed_job_measures_its_own_rate(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    with Work("train", 100, start=50) as work:
        clock[0] = 10.0
        work.update(60)
        assert work.rate == 1.0


def test_work_that_has_a_time_goes_by_it(monkeypatch):
    clock = [10.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    stream = io.StringIO()
    with listening(Console(stream)), Work("train", 10**6, "images", limit=(0.0, 40.0)) as work:
        clock[0] = 20.0
        work.update(400, "loss 0.5")
        work.total = 800  # what fits is reckoned anew: the line's total stays
        clock[0] = 30.0
        work.update(800)
    assert stream.getvalue().splitlines() == [
        "train  0:00:20 of 0:00:40 50%  400 images  40.0 images/s  ETA 0:00:20  loss 0.5",
        "train  0:00:30 of 0:00:40 75%  800 images  40.0 images/s",
    ]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_on_a_terminal_the_line_is_live_and_what_is_said_stays(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with listening(Console(stream)), Work("train", 100) as work:
        work.update(50, "loss 0.25")
        events.note("a grid was written")
    assert "50/100 images 50%" in stream.getvalue()
    assert "a grid was written" in stream.getvalue()


def test_results_go_to_the_output_and_the_rest_beside_it(capsys):
    with listening(Console()):
        events.say("a number", 3)
        events.say()
        events.note("how it goes")
    assert capsys.readouterr() == ("a number\n3\n", "how it goes\n")


def test_a_second_work_has_a_line_of_its_own_and_an_error_ends_the_first(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with listening(Console(stream)):
        with suppress(ValueError), Work("one", 9) as work:
            work.update(3)
            raise ValueError
        with Work("two", 9) as work:
            work.update(4)
    assert "one  3/9" in stream.getvalue()
    assert "two  4/9" in stream.getvalue()
