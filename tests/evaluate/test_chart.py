"""Charts: points lie where their values say, ticks are round, names are escaped, and nothing to show is nothing."""

import math
import re
from xml.etree import ElementTree

import pytest

from bytepixels.report.svg import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Axis, Series, line_chart


def svg(text):
    return ElementTree.fromstring(text[: text.index("</svg>") + 6])


def points(chart, kind="polyline"):
    """Pixels of the first line."""
    (first, *_) = chart.findall(kind)
    return [tuple(map(float, pair.split(","))) for pair in first.get("points").split()]


def test_points_lie_where_their_values_say():
    chart = svg(line_chart("t", [Series("a", [0, 5, 10], [1, 2, 3])], "x", "y"))
    (x0, y0), (x1, y1), (x2, y2) = points(chart)
    assert x1 == pytest.approx((x0 + x2) / 2, abs=0.1)
    assert y1 == pytest.approx((y0 + y2) / 2, abs=0.1)
    assert LEFT < x0 < x2 < WIDTH - RIGHT
    assert TOP < y2 < y0 < HEIGHT - BOTTOM  # up is more


def test_on_logarithmic_axes_equal_factors_are_equal_steps():
    chart = svg(line_chart("t", [Series("a", [1, 10, 100], [8, 4, 2])], "x", "y", log_x=True, log_y=True))
    (x0, y0), (x1, y1), (x2, y2) = points(chart)
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y1 - y0 == pytest.approx(y2 - y1, abs=0.2)


@pytest.mark.parametrize(
    ("axis", "expected"),
    [
        (Axis(0, 10, False, 0, 1), [0, 2, 4, 6, 8, 10]),
        (Axis(-20.8, 11, False, 0, 1), [-20, -10, 0, 10]),
        (Axis(0.9, 21, True, 0, 1), [1, 2, 5, 10, 20]),
        (Axis(1e-4, 1e2, True, 0, 1), [1e-4, 1e-3, 1e-2, 1e-1, 1, 10, 100]),
    ],
)
def test_ticks_are_round(axis, expected):
    assert axis.ticks == pytest.approx(expected)


def test_what_cannot_be_shown_is_left_out():
    values = [math.nan, 1, math.inf, 0, 2]
    chart = svg(line_chart("t", [Series("a", range(5), values)], "x", "y", log_y=True))
    assert len(points(chart)) == 2
    assert line_chart("t", [Series("a", [1, 2], [math.nan, math.nan])], "x", "y") == ""
    assert line_chart("t", [], "x", "y") == ""
    assert "nan" not in line_chart("t", [Series("a", [1], [3], [math.nan], points=True)], "x", "y")


def test_intervals_are_bands_or_bars_within_the_frame():
    band = svg(line_chart("t", [Series("a", [1, 2], [3, 4], [5, 1])], "x", "y", log_y=True))
    corners = points(band, "polygon")
    assert len(corners) == 4
    assert all(TOP <= y <= HEIGHT - BOTTOM for _, y in corners)
    bars = svg(line_chart("t", [Series("a", [1, 2], [3, 4], [1, 1], points=True)], "x", "y"))
    assert len(bars.findall("circle")) == 2
    assert len([line for line in bars.findall("line") if line.get("class") == "line"]) == 2


def test_names_are_escaped_and_the_chart_says_what_it_is():
    text = line_chart(
        '<script>"', [Series("a<b", [1, 2], [1, 2]), Series("c", [1, 2], [2, 1], colour=1)], "x&y", "</svg>"
    )
    assert "<script" not in text
    assert "a&lt;b" in text
    chart = svg(text)
    assert chart.get("role") == "img"
    assert chart.find("title").text == '<script>"'
    assert chart.find("title").get("id") == chart.get("aria-labelledby")
    ids = re.findall(r'id="(chart-\d+)"', text + line_chart("t", [Series("a", [1, 2], [1, 2])], "x", "y"))
    assert len(set(ids)) == len(ids) == 2
