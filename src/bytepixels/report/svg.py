"""Line charts as inline SVG: no script, no request; colours are the page's, so that they follow light and dark."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import count

WIDTH, HEIGHT = 480, 300
LEFT, RIGHT, TOP, BOTTOM = 74, 12, 12, 44
COLOURS = 6  # --c0 .. --c5 of the page

_ids = count()


@dataclass(frozen=True)
class Series:
    """One line: points (x, y), and half the interval of each where there is one."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    half: Sequence[float] | None = None
    colour: int = 0
    dashed: bool = False
    points: bool = False

    def known(self, log_x: bool, log_y: bool) -> list[tuple[float, float, float]]:
        """(x, y, half) of the points that the axes can show."""
        halves = self.half or [0.0] * len(self.x)
        points = zip(self.x, self.y, halves, strict=True)
        return [
            (x, y, e if math.isfinite(e) else 0.0)
            for x, y, e in points
            if math.isfinite(x) and math.isfinite(y) and (x > 0 or not log_x) and (y > 0 or not log_y)
        ]


@dataclass(frozen=True)
class Axis:
    """From values to pixels."""

    low: float
    high: float
    log: bool
    start: float
    end: float

    def __call__(self, value: float) -> float:
        low, high = self._scaled(self.low), self._scaled(self.high)
        share = (self._scaled(min(max(value, self.low), self.high)) - low) / (high - low)
        return round(self.start + share * (self.end - self.start), 1)

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self.log else value

    @property
    def ticks(self) -> list[float]:
        """Round values between the ends, about five."""
        if self.log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            wide = math.log10(self.high / self.low) > 3
            every = max(1, len(decades) // 6)
            values = [m * 10.0**d for d in decades[::every] for m in ((1,) if wide else (1, 2, 5))]
        else:
            rough = (self.high - self.low) / 5
            power = 10.0 ** math.floor(math.log10(rough))
            step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
            first = math.ceil(self.low / step)
            values = [k * step for k in range(first, first + 12)]
        return [v for v in values if self.low * (1 - 1e-9) <= v <= self.high * (1 + 1e-9) or v == 0 == self.low]


def _axis(values: list[float], log: bool, start: float, end: float) -> Axis:
    low, high = min(values), max(values)
    if log:
        return Axis(low / 1.08, high * 1.08, True, start, end)
    margin = 0.04 * (high - low) or abs(high) * 0.1 or 1.0
    return Axis(low - margin, high + margin, False, start, end)


def line_chart(
    title: str, series: Sequence[Series], x_label: str, y_label: str, log_x: bool = False, log_y: bool = False
) -> str:
    """A chart as SVG text; "" where there is nothing to show. Everything that it is given is escaped."""
    shown = [(one, points) for one in series if (points := one.known(log_x, log_y))]
    if not shown:
        return ""
    xs = [x for _, points in shown for x, _, _ in points]
    ys = [v for _, points in shown for _, y, e in points for v in (y, y + e, y - e) if v > 0 or not log_y]
    across, up = _axis(xs, log_x, LEFT, WIDTH - RIGHT), _axis(ys, log_y, HEIGHT - BOTTOM, TOP)
    name = f"chart-{next(_ids)}"
    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="{name}">']
    parts += [f'<title id="{name}">{escape(title)}</title>', *_frame(across, up, x_label, y_label)]
    for one, points in shown:
        parts += _line(one, points, across, up)
    return "".join([*parts, "</svg>", legend([one for one, _ in shown])])


def legend(series: Sequence[Series]) -> str:
    """Which colour is which, where there is more than one."""
    if len(series) < 2:
        return ""
    keys = [
        f'<li><span class="key{" dashed" if one.dashed else ""}" style="--c:var(--c{one.colour % COLOURS})"></span>'
        f"{escape(one.name)}</li>"
        for one in series
    ]
    return f'<ul class="legend">{"".join(keys)}</ul>'


def _frame(across: Axis, up: Axis, x_label: str, y_label: str) -> list[str]:
    parts = []
    for value in across.ticks:
        x = across(value)
        parts.append(f'<line class="rule" x1="{x}" x2="{x}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text x="{x}" y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">{plain(value)}</text>')
    for value in up.ticks:
        y = up(value)
        parts.append(f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{plain(value)}</text>')
    middle = (TOP + HEIGHT - BOTTOM) // 2
    parts.append(f'<text x="{(LEFT + WIDTH) // 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>')
    turned = f'transform="rotate(-90 14 {middle})"'
    parts.append(f'<text x="14" y="{middle}" {turned} text-anchor="middle">{escape(y_label)}</text>')
    return parts


def _line(one: Series, points: list[tuple[float, float, float]], across: Axis, up: Axis) -> list[str]:
    colour = f'style="--c:var(--c{one.colour % COLOURS})"'
    path = " ".join(f"{across(x)},{up(y)}" for x, y, _ in points)
    parts = []
    if one.half is not None and not one.points:
        edges = [(across(x), up(y + e), up(y - e) if y - e > 0 or not up.log else up(up.low)) for x, y, e in points]
        band = " ".join([*(f"{x},{high}" for x, high, _ in edges), *(f"{x},{low}" for x, _, low in reversed(edges))])
        parts.append(f'<polygon class="band" {colour} points="{band}"/>')
    parts.append(f'<polyline class="line{" dashed" if one.dashed else ""}" {colour} points="{path}"/>')
    if one.points:
        for x, y, e in points:
            low = y - e if y - e > 0 or not up.log else up.low
            parts.append(
                f'<line class="line" {colour} x1="{across(x)}" x2="{across(x)}" y1="{up(y + e)}" y2="{up(low)}"/>'
            )
            parts.append(f'<circle class="dot" {colour} cx="{across(x)}" cy="{up(y)}" r="4"/>')
    return parts


def plain(value: float) -> str:
    """A number on an axis: 20000 -> 20k, 1e-05 as it is."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"
