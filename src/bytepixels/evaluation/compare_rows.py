"""The results of compare: a row for every sampler and number of steps, as a table, in words and as a plot."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..choices import OWN_SPACING
from ..config.sampling import SampleConfig
from ..metrics.frechet import jackknife_interval
from ..wording import many
from .sample_quality import evaluations

CLOSE = 0.1  # of the best distance: as good for all purposes


@dataclass(frozen=True)
class Row:
    """One sampler with one number of steps."""

    settings: SampleConfig
    frechet: float
    without: list[float]  # the same with one tenth of the seeds left out
    kernel: tuple[float, float]
    seconds: float  # an image

    @property
    def name(self) -> str:
        """The sampler, and that its grid is the model's own."""
        return self.settings.sampler + (f", {OWN_SPACING} grid" if self.settings.spacing == OWN_SPACING else "")

    @property
    def interval(self) -> float:
        return jackknife_interval(self.without)

    def record(self) -> dict[str, Any]:
        """The row as a record of eval.jsonl."""
        names = ("sampler", "spacing", "steps")
        return {
            **{name: getattr(self.settings, name) for name in names},
            "evaluations": evaluations(self.settings),
            "frechet": {"value": self.frechet, "interval": self.interval},
            "kernel": dict(zip(("value", "interval"), self.kernel, strict=True)),
            "seconds_per_picture": self.seconds,
        }


def table(rows: list[Row], floor: Row, what: str, name: str, n: int) -> Iterator[str]:
    """Format one line for each sampler and number of steps, drawn with n seeds, and the recommendation."""
    wide = max(14, *(len(row.name) + 2 for row in rows))
    yield f"{'sampler':<{wide}}{'steps':>6}{'evaluations':>13}{'seconds each':>14}{name:>36}{'kernel distance':>26}"
    for row in rows:
        one = row.settings
        distance, kernel = f"{row.frechet:.4g} ± {row.interval:.2g}", _spread(*row.kernel)
        times = f"{evaluations(one):>13}{row.seconds:>14.3f}"
        yield f"{row.name:<{wide}}{one.steps:>6}{times}{distance:>36}{kernel:>26}"
    yield f"{what}: {floor.frechet:.4g} ± {floor.interval:.2g}"
    yield from verdict(rows, n)


def verdict(rows: list[Row], n: int) -> Iterator[str]:
    """Recommend the nearest row, or one with fewer evaluations that n seeds show to be as good; and say what n seeds
    are too few to decide."""
    best = min(rows, key=lambda row: row.frechet)
    few = min((row for row in rows if as_good(row, best)), key=lambda row: evaluations(row.settings))
    gap, sure = few.frechet - best.frechet, _apart(few, best)
    if few is best:
        yield f"Best: {_named(best)}. None with fewer evaluations is as near."
    elif gap + sure <= CLOSE * best.frechet:
        fewer = evaluations(best.settings) / evaluations(few.settings)
        less = f"{fewer:.3g} times fewer evaluations"
        yield f"Best: {_named(few)}: as near as {_named(best)} within {CLOSE:.0%}, with {less}."
    else:
        yield f"Nearest: {_named(best)}."
        told = f"{n:,} samples are too few to tell {_named(few)} ({few.frechet:.3g}) from it ({best.frechet:.3g})"
        yield f"{told}; try -n {_enough(n, sure, max(gap, CLOSE * best.frechet)):,}"


def as_good(row: Row, best: Row) -> bool:
    """Whether the difference of two distances is within its 95% interval, seed by seed."""
    return row.frechet - best.frechet <= _apart(row, best)


def _apart(row: Row, best: Row) -> float:
    """Half the 95% interval of the difference of two distances on the same seeds."""
    return jackknife_interval([a - b for a, b in zip(row.without, best.without, strict=True)])


def _enough(n: int, interval: float, wanted: float) -> int:
    """The number of samples that halves the interval `interval` of n samples to the one wanted: 1, 2 or 5 and zeros."""
    needed = max(2.0 * n, n * (2 * interval / max(wanted, 1e-12)) ** 2)
    power = 10 ** int(math.log10(needed))
    return next(power * first for first in (1, 2, 5, 10) if power * first >= needed)


def _spread(value: float, interval: float) -> str:
    """Format a number with its interval, if it has one: very few images have none."""
    return f"{value:.3g}" + (f" ± {interval:.2g}" if math.isfinite(interval) else "")


def _named(row: Row) -> str:
    return f"{row.name} with {many(evaluations(row.settings), 'evaluation')}"


def plot(rows: list[Row], floor: Row, what: str, name: str, subject: str, path: Path) -> None:
    """Plot distance against evaluations, and against seconds."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = Figure((11, 4.5), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    marks = "osD^v<>pXP*h"
    for k, sampler in enumerate(dict.fromkeys(row.name for row in rows)):
        chosen = [row for row in rows if row.name == sampler]
        y, e = [row.frechet for row in chosen], [row.interval for row in chosen]
        for axis, x in zip(
            axes, ([evaluations(row.settings) for row in chosen], [row.seconds for row in chosen]), strict=True
        ):
            axis.errorbar(x, y, yerr=e, label=sampler, marker=marks[k % len(marks)], markersize=5, capsize=3)
    for axis, unit in zip(axes, ("network evaluations an image", "seconds an image"), strict=True):
        axis.axhspan(
            floor.frechet - floor.interval, floor.frechet + floor.interval, color="grey", alpha=0.25, label=what
        )
        axis.set(xscale="log", yscale="log", xlabel=unit)
        for one in (axis.xaxis, axis.yaxis):
            one.set_major_locator(LogLocator(subs=(1, 2, 5)))
            one.set_major_formatter(lambda value, position: f"{value:g}")  # 6, not 6 x 10^0
            one.set_minor_formatter(NullFormatter())
        axis.grid(alpha=0.3)
    axes[0].set(ylabel=name)
    axes[0].legend()
    figure.suptitle(subject)
    figure.savefig(path, dpi=120)
