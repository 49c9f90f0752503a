"""Draw verify.png: error against steps for every deterministic sampler, and the measured orders."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .check import ORDER_TOLERANCE, Check
from .orders import STEPS

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_orders(checks: Sequence[Check], path: Path) -> None:
    """Plot error against steps on the VP process, and measured and expected order on every process.

    checks: those of `order_checks`, named "sampler, process"; at least one.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.2, 1))
    named = [(sampler, process, check) for check in checks for sampler, process in [check.name.split(", ")]]
    samplers = list(dict.fromkeys(sampler for sampler, _, _ in named))
    colours = {name: f"C{i}" if i < 10 else "black" for i, name in enumerate(samplers)}
    _plot_errors(left, {sampler: check for sampler, process, check in named if process == "VP"}, colours)
    _plot_orders(right, named, colours)
    figure.savefig(path, dpi=120)


def _plot_errors(axes: "Axes", checks: dict[str, Check], colours: dict[str, str]) -> None:
    """Plot errors on logarithmic axes; dotted lines show the slope of each order."""
    first, last = STEPS[0], STEPS[-1]
    for order in range(1, 5):
        end = (first / last) ** order
        axes.plot((first, last), (1, end), color="0.7", linestyle=":", zorder=0)
        axes.annotate(f"$N^{{-{order}}}$", (last, end), (6, -4), textcoords="offset points", color="0.4")
    for i, (name, check) in enumerate(checks.items()):
        look = "os^vDP*X<>h"[i % 11] + ("-" if i % 2 == 0 else "--")
        axes.plot(STEPS, [check.errors[steps] for steps in STEPS], look, color=colours[name], label=name)
    axes.set(xscale="log", yscale="log", xlim=(first / 1.2, last * 1.6), xlabel="steps N", ylabel="mean error of x")
    axes.set_title("Error against the exact probability flow (VP)")
    axes.set_xticks(STEPS, labels=map(str, STEPS))
    axes.minorticks_off()
    axes.grid(alpha=0.2)
    axes.legend(fontsize=9, loc="lower left")


def _plot_orders(axes: "Axes", named: Sequence[tuple[str, str, Check]], colours: dict[str, str]) -> None:
    """Plot one row per sampler: a band for the tolerance, a mark for each process."""
    rows = {name: len(colours) - 1 - i for i, name in enumerate(colours)}
    marks = dict(zip(dict.fromkeys(process for _, process, _ in named), "o+x", strict=False))
    for name, process, check in named:
        low, row = check.expected - ORDER_TOLERANCE, rows[name]
        axes.barh(row, 2 * ORDER_TOLERANCE, left=low, height=0.6, color="0.88", zorder=0)
        label, colour = None if row else process, colours[name] if marks[process] == "o" else "0.1"
        axes.plot(check.measured, row, marks[process], color=colour, label=label, markersize=8)
    axes.set_yticks(list(rows.values()), labels=list(rows))
    axes.set(xlabel="order", title="Order: measured, and the band that passes", xlim=(0, 5))
    axes.grid(alpha=0.2, axis="x")
    axes.legend(loc="lower left")
