"""The charts of a report, from log.jsonl and eval.jsonl, of one run or of several overlaid."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..metrics.sample_metrics import NOISES
from .line_chart import LineChart, Series

POINTS = 240  # of a curve: means of equal parts of the log
Record = Mapping[str, Any]


def bin_means(values: Sequence[float], points: int = POINTS) -> list[float]:
    """Average a series in at most `points` parts of (nearly) equal length, in order; values: at least one."""
    return [float(part.mean()) for part in np.array_split(values, min(points, len(values)))]


def training_charts(logs: Mapping[str, Sequence[Record]]) -> list[LineChart]:
    """Plot loss, gradient norm, learning rate and speed of each run against the images seen, as far as logged."""
    kinds = {
        "loss": ("loss", True, "Training loss, as logged."),
        "grad_norm": ("norm of the gradient", True, "Norm of the gradient, before it is clipped."),
        "lr": ("learning rate", False, "Learning rate."),
        "images_per_second": ("images a second", False, "Training speed."),
    }
    charts = []
    for key, (label, log_y, caption) in kinds.items():
        known = {name: [line for line in log if isinstance(line.get(key), int | float)] for name, log in logs.items()}
        series = [
            Series(name, bin_means([line["images"] for line in lines]), bin_means([line[key] for line in lines]))
            for name, lines in known.items()
            if lines
        ]
        charts += [LineChart(caption, "images seen", label, series, log_y=log_y)] if series else []
    return charts


def noise_level_chart(record: Record) -> LineChart:
    """Plot the loss per noise level with its floor, as evaluate --loss measured it."""
    names = {
        "training": "this run, training images",
        "held_out": "this run, held-out images",
        "ideal": "floor: the ideal of the training set",
    }
    errors, x = record["errors"], record["log_snr"]
    series = [
        Series(name, x, _shares(errors[key], errors["trivial"]), floor=key == "ideal")
        for key, name in names.items()
        if key in errors
    ]
    caption = (
        "Error at every noise level, as a share of a trivial guess's (1): between that and the floor lies all there is."
    )
    return LineChart(caption, "log SNR, noisy to clean", "share of the trivial error", series)


def _shares(errors: Sequence[Sequence[float]], trivial: Sequence[Sequence[float]]) -> list[float]:
    """Errors relative to the trivial guess's; NaN (not drawn) where that is 0, as on equal images."""
    pairs = zip(errors, trivial, strict=True)
    return [min(mean / least, 3.0) if least > 0 else math.nan for (mean, _), (least, _) in pairs]


def _level(name: str, ends: Sequence[float], measure: Record, floor: bool = False) -> Series:
    """Draw one measured value as a horizontal line, with its interval."""
    return Series(name, ends, [measure["value"]] * 2, [measure["interval"]] * 2, floor=floor)


def compare_charts(record: Record, name: str) -> list[LineChart]:
    """Plot distance against evaluations and against seconds, as compare measured them."""
    rows, floor, charts = record["rows"], record["floor"], []
    units = {
        "evaluations": ("network evaluations an image", f"{name} against evaluations, with 95% intervals."),
        "seconds_per_picture": ("seconds an image", f"{name} against time."),
    }
    for key, (label, caption) in units.items():
        series = []
        for sampler in dict.fromkeys(row["sampler"] for row in rows):
            own = [row for row in rows if row["sampler"] == sampler]
            values, halves = ([row["frechet"][part] for row in own] for part in ("value", "interval"))
            series.append(Series(sampler, [row[key] for row in own], values, halves, marked=True))
        ends = [limit(row[key] for row in rows) for limit in (min, max)]
        series.append(_level(f"floor: {floor['of']}", ends, floor["frechet"], floor=True))
        charts.append(LineChart(caption, label, name, series, log_x=True, log_y=True))
    return charts


def ladder_chart(record: Record, name: str) -> LineChart:
    """Plot the scale: held-out images with increasing noise, the samples as a horizontal line."""
    ends, floor = (NOISES[0], NOISES[-1]), record["floor"]
    noisy = [record["ladder"][f"noise {noise}"] for noise in NOISES]
    series = [
        Series("held-out images with noise", NOISES, noisy, marked=True),
        _level("samples", ends, record["measures"]["frechet"]),
        _level(f"floor: {floor['of']}", ends, floor["measures"]["frechet"], floor=True),
    ]
    caption = f"{name}: where the samples lie among images with known damage."
    return LineChart(caption, "noise, grey levels", name, series, log_x=True, log_y=True)


def drift_charts(record: Record) -> list[LineChart]:
    """Plot brightness and power spectrum of samples and data, with the data's interval."""
    kinds = {  # axes, and the x of the first and the second value
        "brightness": ("grey level", "share of pixels", 4, 12),
        "power spectrum, dB": ("waves across the shorter side", "power, dB", 1, 2),
    }
    charts = []
    for one in (one for one in record["drift"] if one["name"] in kinds):
        across, up, first, second = kinds[one["name"]]
        x = [first + k * (second - first) for k in range(len(one["data"]))]
        series = [Series("data", x, one["data"], one["half"]), Series("samples", x, one["samples"])]
        caption = f"{one['name'][0].upper()}{one['name'][1:]}: the band is what as many images of the data span."
        charts.append(LineChart(caption, across, up, series))
    return charts
