"""verify: the core against exact laws on this machine, as a table and a plot."""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .. import events
from ..runs.run_directory import make_folder
from .all_checks import Check, Curve, sections
from .orders import STEPS, TOLERANCE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = f"{'measured':>10} {'expected':>10} {'tolerance':>10}"


def verify(out: Path) -> bool:
    """Run and print every check, write out / verify.png; whether all of them passed. InputError for a bad `out`."""
    make_folder(out, "--out")
    started = time.monotonic()
    rows: list[Check] = []
    curves: list[Curve] = []
    for title, run in sections(curves).items():
        events.say(f"{title}\n  {'':<50} {COLUMNS}")
        part = checked(title, run)
        events.say(*map(line, part), "")
        rows += part
    if curves:  # else measuring them broke, and has said so
        plot(curves, out / "verify.png")
    failed = [row.name for row in rows if not row.ok]
    result = f"{len(failed)} FAILED ({'; '.join(failed)})" if failed else "all passed"
    plotted = f"; the plot: {out / 'verify.png'}" if curves else ""
    events.say(f"{len(rows)} checks, {result} in {time.monotonic() - started:.0f} s{plotted}")
    return not failed


def checked(title: str, run: Callable[[], list[Check]]) -> list[Check]:
    """The rows of one section; what breaks on the way is a row that failed, and the other sections still run."""
    try:
        return run()
    except Exception as error:
        return [Check(title.split(" (")[0], math.nan, note=f"{type(error).__name__}: {error}")]


def line(row: Check) -> str:
    """One row, in columns."""
    numbers = f"{_short(row.measured):>10} {_short(row.expected):>10} {_short(row.tolerance):>10}"
    return f"  {row.name:<50} {numbers}  {'ok  ' if row.ok else 'FAIL'}  {row.note}".rstrip()


def _short(number: float) -> str:
    """Five digits, or the size of a residual."""
    return f"{number:.1e}" if 0 < abs(number) < 1e-3 else f"{number:.5g}"


def plot(curves: Sequence[Curve], path: Path) -> None:
    """Error against the number of steps on the VP path, and the order on every path beside the one expected."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(14, 6), layout="constrained", width_ratios=(1.2, 1))
    names = list(dict.fromkeys(map(_label, curves)))
    colours = {name: f"C{i}" if i < 10 else "black" for i, name in enumerate(names)}
    _plot_errors(left, [curve for curve in curves if curve.path == "VP"], colours)
    _plot_orders(right, curves, names, colours)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _label(curve: Curve) -> str:
    return rf"{curve.sampler}, even $\sigma/\alpha$" if curve.even else curve.sampler


def _plot_errors(axes: "Axes", curves: Sequence[Curve], colours: dict[str, str]) -> None:
    """log-log; the dotted lines show what each order would be."""
    first, last = STEPS[0], STEPS[-1]
    for order in range(1, 5):
        end = (first / last) ** order
        axes.plot((first, last), (1, end), color="0.7", linestyle=":", zorder=0)
        axes.annotate(f"$N^{{-{order}}}$", (last, end), (6, -4), textcoords="offset points", color="0.4")
    for i, curve in enumerate(curves):
        name, look = _label(curve), "os^vDP*X<>h"[i % 11] + ("-" if i % 2 == 0 else "--")
        axes.plot(STEPS, [curve.errors[steps] for steps in STEPS], look, color=colours[name], label=name)
    axes.set(xscale="log", yscale="log", xlim=(first / 1.2, last * 1.6), xlabel="steps N", ylabel="mean error of x")
    axes.set_title("Error against the exact probability flow (VP)")
    axes.set_xticks(STEPS, labels=map(str, STEPS))
    axes.minorticks_off()
    axes.grid(alpha=0.2)
    axes.legend(fontsize=9, loc="lower left")


def _plot_orders(axes: "Axes", curves: Sequence[Curve], names: Sequence[str], colours: dict[str, str]) -> None:
    """One row for each sampler: a band for what passes, a mark for what each path gave."""
    marks = dict(zip(dict.fromkeys(curve.path for curve in curves), "o+x", strict=False))
    rows = {name: len(names) - 1 - i for i, name in enumerate(names)}
    for curve in curves:
        row, name = rows[_label(curve)], _label(curve)
        axes.barh(row, 2 * TOLERANCE, left=curve.expected - TOLERANCE, height=0.6, color="0.88", zorder=0)
        colour = colours[name] if marks[curve.path] == "o" else "0.1"
        axes.plot(curve.order, row, marks[curve.path], color=colour, label=None if row else curve.path, markersize=8)
    axes.set_yticks(list(rows.values()), labels=list(rows))
    axes.set(xlabel="order", title="Order: measured, and the band that passes", xlim=(0, 5))
    axes.grid(alpha=0.2, axis="x")
    axes.legend(loc="lower left")
