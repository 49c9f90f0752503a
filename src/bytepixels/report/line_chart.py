"""One line chart of a report, drawn by matplotlib as an SVG file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#2460a7", "#b3541e", "#2d7d46", "#8a4f9e", "#8a7a1f")
FLOOR = "#7a7a7a"
STYLE = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "grid.alpha": 0.25,
    "grid.color": FLOOR,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "bytepixels",  # the same ids, and so the same bytes, every time
    "text.parse_math": False,  # a $ is a $
}
Values = Sequence[float | None]  # None and NaN are gaps


@dataclass(frozen=True)
class Series:
    """A line through points (x, y). half: half the interval of each y, a bar where points are marked, else a band."""

    name: str
    x: Values
    y: Values
    half: Values | None = None
    marked: bool = False
    floor: bool = False
    """True for what the others are held against: grey and dashed."""


@dataclass(frozen=True)
class LineChart:
    """A line chart: title, axes and series. The page draws the legend, where names of any length have room."""

    caption: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    log_x: bool = False
    log_y: bool = False

    def coloured(self) -> Iterator[tuple[Series, str]]:
        """Pair each series with its colour."""
        for k, one in enumerate(self.series):
            yield one, FLOOR if one.floor else COLOURS[k % len(COLOURS)]

    def svg(self) -> bytes:
        """The chart as an SVG file: the same bytes for the same values, whatever the user's matplotlibrc says."""
        from matplotlib import style

        file, nothing = BytesIO(), dict.fromkeys(("Creator", "Date", "Format", "Type"))
        with style.context(STYLE, after_reset=True):
            self.draw().savefig(file, format="svg", transparent=True, metadata=nothing)
        return file.getvalue()

    def draw(self) -> Figure:
        """Draw the chart with matplotlib."""
        from matplotlib.figure import Figure
        from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

        figure = Figure((5.6, 3.5), layout="constrained")
        axes = figure.subplots()
        axes.set(xlabel=self.x_label, ylabel=self.y_label)
        axes.set(xscale="log" if self.log_x else "linear", yscale="log" if self.log_y else "linear")
        for one, colour in self.coloured():
            x, y, half = (np.array(values, dtype=float) for values in (one.x, one.y, one.half or [0] * len(one.y)))
            dashes = "--" if one.floor else "-"
            if one.marked:
                axes.errorbar(x, y, half, color=colour, linestyle=dashes, marker="o", capsize=3)
            else:
                alone = np.isfinite(y).sum() == 1  # a line through one point is nothing
                axes.plot(x, y, color=colour, linestyle=dashes, marker="o" if alone else None)
                axes.fill_between(x, y - half, y + half, color=colour, alpha=0.18, linewidth=0)
        for axis, log in ((axes.xaxis, self.log_x), (axes.yaxis, self.log_y)):
            axis.set_major_formatter(FuncFormatter(lambda value, position: axis_number(value)))
            if log:
                low, high = axis.get_view_interval()
                powers = LogLocator(subs=(1, 2, 5) if high < 1000 * low else (1,))
                even = MaxNLocator(6, steps=(1, 2, 5, 10))  # on a short axis there may be one power or none
                axis.set_major_locator(even if high < 10 * low else powers)
                axis.set_minor_locator(NullLocator())
        return figure


def axis_number(value: float) -> str:
    """Format a number for an axis: 20000 as 20k, 1e-05 unchanged."""
    size, letter = (1e6, "M") if abs(value) >= 1e6 else (1e3, "k") if abs(value) >= 1e3 else (1, "")
    return f"{value / size:.4g}{letter}"
