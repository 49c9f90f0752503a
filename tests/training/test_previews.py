"""Sample grids along the way: as many as a twentieth of the time has room for, the first early, the last at the end."""

import pytest

from bytepixels.training.previews import MAX_GRIDS, TIME_SHARE, Preview, Previews


def drawn(previews, seconds, rate, per_pass, steps=1000):
    """Train by an imaginary clock: (share of the budget, preview, its seconds) of every grid."""
    found = []
    for step in range(1, steps + 1):
        preview = previews.due((step - 1) / steps, step / steps, seconds, rate)
        if preview is not None:
            cost = preview.images * preview.steps * previews.passes * per_pass
            previews.note(preview, step / steps, cost)
            found.append((step / steps, preview, cost))
    return found


def fresh(asked=None, images=16, steps=50, done=0.0):
    return Previews(asked, images, steps, passes=2, done=done)


@pytest.mark.parametrize("seconds", [20, 60, 180, 600, 3600, 36_000])
@pytest.mark.parametrize("rate", [3, 40, 700])
@pytest.mark.parametrize("guess", [0.5, 1, 1.2])  # how long a pass takes, in times what is reckoned
def test_they_take_a_twentieth_of_the_time_at_most(seconds, rate, guess):
    found = drawn(fresh(), seconds, rate, guess / (3 * rate))
    first = found[0][2] * (1 - 1 / guess) if found else 0  # by what the first costs more than was reckoned
    assert sum(cost for *_, cost in found) <= TIME_SHARE * seconds + max(0, first)
    assert len(found) <= MAX_GRIDS
    if found:
        assert found[-1][0] == 1


def test_a_long_training_has_ten_full_ones_evenly():
    found = drawn(fresh(), seconds=500, rate=700, per_pass=1 / 2100)
    assert [preview for _, preview, _ in found] == [Preview(16, 50)] * 10
    assert [share for share, *_ in found] == pytest.approx([k / 10 for k in range(1, 11)], abs=0.003)


def test_the_first_comes_within_a_minute():
    shares = [share for share, *_ in drawn(fresh(), seconds=36_000, rate=40, per_pass=1 / 120, steps=10_000)]
    assert 36_000 * shares[0] == pytest.approx(60, abs=4)
    assert len(shares) == 10
    assert shares[-1] == 1


def test_three_minutes_have_three_cheap_ones():
    found = drawn(fresh(), seconds=180, rate=40, per_pass=1 / 120)  # `small` on a laptop
    assert {preview for _, preview, _ in found} == {Preview(16, 10)}
    assert [share for share, *_ in found] == pytest.approx([0.1, 0.55, 1], abs=0.01)


def test_where_there_is_no_time_for_one_there_is_none():
    assert drawn(fresh(), seconds=10, rate=1, per_pass=1 / 3) == []


def test_a_number_that_was_asked_for_is_kept():
    found = drawn(fresh(asked=4), seconds=1, rate=1, per_pass=1)
    assert [(share, preview) for share, preview, _ in found] == [(k / 4, Preview(16, 50)) for k in (1, 2, 3, 4)]
    assert drawn(fresh(asked=0), seconds=1e9, rate=1e9, per_pass=1e-9) == []


def test_more_than_there_are_steps():
    assert [share for share, *_ in drawn(fresh(asked=10), 1, 1, 1, steps=2)] == [0.5, 1]


def test_what_is_still_to_come_is_known():
    previews = fresh()
    expected = previews.rest(0, 180, 40)
    found = drawn(previews, seconds=180, rate=40, per_pass=1 / 120)
    assert expected == pytest.approx(sum(cost for *_, cost in found))
    assert fresh(asked=4).rest(0.6, 180, 40) == pytest.approx(2 * 16 * 50 * 2 / 120)


def test_a_session_that_goes_on_spreads_them_over_what_is_left():
    shares = [share for share, *_ in drawn(fresh(done=0.5), seconds=180, rate=40, per_pass=1 / 120)]
    assert min(shares) > 0.55
    assert shares[-1] == 1
