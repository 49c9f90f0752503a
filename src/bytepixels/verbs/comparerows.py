"""What compare found: a row for every pair of sampler and steps, as a table, in words and as a plot."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..evaluate.moments import jackknife_interval
from ..runs.config import SampleConfig
from .quality import evaluations


@dataclass(frozen=True)
class Row:
    """One sampler with one number of steps."""

    settings: SampleConfig
    frechet: float
    without: list[float]  # the same with one tenth of the seeds left out
    kernel: tuple[float, float]
    seconds: float  # a picture

    @property
    def interval(self) -> float:
        return jackknife_interval(self.without)

    def record(self) -> dict[str, Any]:
        """As eval.jsonl holds it."""
        names = ("sampler", "spacing", "steps")
        return {
            **{name: getattr(self.settings, name) for name in names},
            "evaluations": evaluations(self.settings),
            "frechet": {"value": self.frechet, "interval": self.interval},
            "kernel": dict(zip(("value", "interval"), self.kernel, strict=True)),
            "seconds_per_picture": self.seconds,
        }


def table(rows: list[Row], floor: Row, what: str, name: str) -> Iterator[str]:
    """One line for each pair, and how few evaluations are as good as the best."""
    yield f"{'sampler':<14}{'steps':>6}{'evaluations':>13}{'seconds each':>14}{name:>36}{'kernel distance':>26}"
    for row in rows:
        one = row.settings
        distance, kernel = f"{row.frechet:.4g} ± {row.interval:.2g}", f"{row.kernel[0]:.3g} ± {row.kernel[1]:.2g}"
        times = f"{evaluations(one):>13}{row.seconds:>14.3f}"
        yield f"{one.sampler:<14}{one.steps:>6}{times}{distance:>36}{kernel:>26}"
    yield f"{what}: {floor.frechet:.4g} ± {floor.interval:.2g}"
    best = min(rows, key=lambda row: row.frechet)
    few = min((row for row in rows if as_good(row, best)), key=lambda row: evaluations(row.settings))
    fewer = max(evaluations(row.settings) for row in rows) / evaluations(few.settings)
    less = f", {fewer:.3g} times fewer than the most here" if fewer > 1 else ""
    parts = f"{len(best.without)} parts of the same seeds"
    yield f"Best: {_named(best)}. As good, as far as {parts} tell: {_named(few)}{less}."


def as_good(row: Row, best: Row) -> bool:
    """Whether the difference of two distances is within its 95% interval, seed by seed."""
    apart = jackknife_interval([a - b for a, b in zip(row.without, best.without, strict=True)])
    return row.frechet - best.frechet <= apart


def _named(row: Row) -> str:
    return f"{row.settings.sampler} with {evaluations(row.settings)} evaluations"


def plot(rows: list[Row], floor: Row, what: str, name: str, subject: str, path: Path) -> None:
    """Distance against evaluations, and against seconds."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained", sharey=True)
    marks = "osD^v<>pXP*h"
    for k, sampler in enumerate(dict.fromkeys(row.settings.sampler for row in rows)):
        chosen = [row for row in rows if row.settings.sampler == sampler]
        y, e = [row.frechet for row in chosen], [row.interval for row in chosen]
        for axis, x in zip(
            axes, ([evaluations(row.settings) for row in chosen], [row.seconds for row in chosen]), strict=True
        ):
            axis.errorbar(x, y, yerr=e, label=sampler, marker=marks[k % len(marks)], markersize=5, capsize=3)
    for axis, unit in zip(axes, ("network evaluations a picture", "seconds a picture"), strict=True):
        axis.axhspan(
            floor.frechet - floor.interval, floor.frechet + floor.interval, color="grey", alpha=0.25, label=what
        )
        axis.set(xscale="log", yscale="log", xlabel=unit)
        axis.grid(alpha=0.3)
    axes[0].set(ylabel=name)
    axes[0].legend()
    figure.suptitle(subject)
    figure.savefig(path, dpi=120)
    plt.close(figure)
