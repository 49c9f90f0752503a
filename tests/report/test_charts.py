"""Charts: what is drawn is what was given, ticks are round, words stay words, and equal charts are equal bytes."""

import math
import warnings
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest

from bytepixels.report.charts import bin_means, training_charts
from bytepixels.report.line_chart import COLOURS, FLOOR, LineChart, Series, axis_number

SVG = "{http://www.w3.org/2000/svg}"


def chart(*series, **options):
    return LineChart("c", "x", "y", series, **options)


def drawn(*series, **options):
    """The axes of a chart."""
    return chart(*series, **options).draw().axes[0]


def labels(axis):
    """What is written at the ticks that lie within the view."""
    low, high = axis.get_view_interval()
    pairs = zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
    return [text.get_text() for tick, text in pairs if low <= tick <= high]


def parsed(one):
    return ElementTree.fromstring(one.svg())


@pytest.mark.parametrize("marked", [False, True])
def test_lines_go_through_their_points_in_the_colour_of_their_place(marked):
    axes = drawn(
        Series("a", [0, 5, 10], [1, 2, 3], marked=marked),
        Series("b", [0, 5], [4, 5], marked=marked),
        Series("floor", [0, 10], [0, 0], floor=True),
    )
    first, second, floor = [line for line in axes.get_lines() if line.get_linestyle() != "None"]
    assert first.get_xydata().tolist() == [[0, 1], [5, 2], [10, 3]]
    assert second.get_xydata().tolist() == [[0, 4], [5, 5]]
    assert [line.get_color() for line in (first, second, floor)] == [*COLOURS[:2], FLOOR]
    assert [line.get_linestyle() for line in (first, second, floor)] == ["-", "-", "--"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("x", "y")


def test_axes_are_logarithmic_where_they_are_asked_to_be():
    one = Series("a", [1, 10, 100], [8, 4, 2])
    for log_x in (False, True):
        axes = drawn(one, log_x=log_x, log_y=not log_x)
        assert (axes.get_xscale(), axes.get_yscale()) == (("log", "linear") if log_x else ("linear", "log"))


@pytest.mark.parametrize(
    ("ends", "log", "expected"),
    [
        ((0, 10), False, ["0", "2", "4", "6", "8", "10"]),
        ((0, 40_000), False, [f"{k}k" if k else "0" for k in range(0, 41, 5)]),
        ((1, 20), True, ["1", "2", "5", "10", "20"]),
        ((1e-4, 1e2), True, ["0.0001", "0.001", "0.01", "0.1", "1", "10", "100"]),
        ((0.29, 0.73), True, ["0.3", "0.4", "0.5", "0.6", "0.7"]),  # of 1, 2 and 5 only one is in it
        ((0.303, 0.329), True, ["0.305", "0.31", "0.315", "0.32", "0.325", "0.33"]),
    ],
)
def test_ticks_are_round(ends, log, expected):
    found = labels(drawn(Series("a", ends, [1, 1]), log_x=log).xaxis)
    assert found == expected


def test_numbers_on_axes_are_short():
    found = [axis_number(value) for value in (0, 250, -1500, 20_000, 3e6, 1e-5, 0.0025)]
    assert found == ["0", "250", "-1.5k", "20k", "3M", "1e-05", "0.0025"]


def test_what_cannot_be_shown_is_a_gap():
    gaps = Series("a", range(5), [math.nan, 1, math.inf, 0, None], [None, math.nan, 1, 1, 1], marked=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for one in (gaps, Series("a", gaps.x, gaps.y, gaps.half), Series("a", [1, 2], [None, None])):
            text = chart(one, log_x=True, log_y=True).svg().decode()
            assert "nan" not in text.lower()
            assert "inf" not in text.lower()


def test_a_point_alone_is_seen():
    chart = LineChart("", "x", "y", [Series("alone", [1.0, 2.0], [None, 3.0]), Series("line", [1.0, 2.0], [1.0, 2.0])])
    alone, line = chart.draw().axes[0].lines
    assert (alone.get_marker(), line.get_marker()) == ("o", "None")


def test_intervals_are_bands_or_bars():
    (band,) = drawn(Series("a", [1, 2], [3, 4], [0.5, 1])).collections
    assert {tuple(point) for point in band.get_paths()[0].vertices} == {(1, 2.5), (1, 3.5), (2, 3), (2, 5)}
    (bars,) = drawn(Series("a", [1, 2], [3, 4], [0.5, 1], marked=True)).collections
    assert np.array(bars.get_segments()).tolist() == [[[1, 2.5], [1, 3.5]], [[2, 3], [2, 5]]]
    below_zero = drawn(Series("a", [1, 2], [3, 4], [5, 1]), log_y=True)
    assert below_zero.get_ylim()[0] > 1  # the view is that of what can be shown


def test_words_stay_words():
    one = LineChart("c", "</svg>&<script>", "$x^2$ of $", [Series("_a", [1, 2], [1, 2])])
    texts = [text.text for text in parsed(one).iter(f"{SVG}text")]
    assert {"</svg>&<script>", "$x^2$ of $"} <= set(texts)
    assert "<script" not in one.svg().decode()


def test_a_chart_fetches_nothing_and_runs_nothing():
    tree = parsed(chart(Series("a", [1, 2], [3, 4], [1, 1]), Series("b", [1, 2], [3, 4], marked=True)))
    assert not {"script", "image", "a", "foreignObject"} & {node.tag.removeprefix(SVG) for node in tree.iter()}
    links = [value for node in tree.iter() for name, value in node.attrib.items() if name.endswith("href")]
    assert links
    assert all(link.startswith("#") for link in links)


def test_equal_charts_are_equal_bytes_whatever_matplotlibrc_says():
    one = chart(Series("a", [1, 2], [3, 4], [1, 1]), Series("b", [1, 2], [3, 4], marked=True), log_y=True)
    first = one.svg()
    with matplotlib.rc_context({"lines.linewidth": 9, "svg.fonttype": "path", "text.parse_math": True}):
        assert one.svg() == first
        assert matplotlib.rcParams["lines.linewidth"] == 9
    assert b"dc:date" not in first


def test_a_long_log_is_thinned_to_means():
    assert bin_means([1, 2, 3, 4, 5, 6], 3) == [1.5, 3.5, 5.5]
    assert bin_means([1, 2], 3) == [1, 2]
    assert len(bin_means(range(1000))) == 240


def test_of_logs_there_are_charts_of_what_they_hold():
    logs = {
        "one": [{"images": 32, "loss": 0.5, "lr": None}],
        "two": [{"images": 64, "loss": 0.25, "grad_norm": "x"}],
        "three": [],
    }
    (loss,) = training_charts(logs)
    assert loss.y_label == "loss"
    assert loss.log_y
    assert [(one.name, one.x, one.y) for one in loss.series] == [("one", [32], [0.5]), ("two", [64], [0.25])]
    assert training_charts({}) == []
