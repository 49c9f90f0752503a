"""The curves of a report, from log.jsonl and eval.jsonl: of one run, or of several over one another."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from ..metrics.sample_metrics import NOISES
from .html import figure
from .svg import Series, line_chart

POINTS = 240  # of a curve: means of equal parts of the log
Record = Mapping[str, Any]


def thinned(values: Sequence[float], points: int = POINTS) -> list[float]:
    """Means of at most `points` equal parts."""
    count = min(points, len(values))
    cuts = [len(values) * k // count for k in range(count + 1)] if count else []
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(cuts)]


def training_charts(logs: Mapping[str, Sequence[Record]]) -> list[str]:
    """Loss, gradient norm, learning rate and rate of every run against the images that it has seen."""
    kinds = {
        "loss": ("loss", True, "Training loss, as logged."),
        "grad_norm": ("norm of the gradient", True, "Norm of the gradient, before it is clipped."),
        "lr": ("learning rate", False, "Learning rate."),
        "images_per_second": ("images a second", False, "Training speed."),
    }
    found = []
    for key, (label, log_y, caption) in kinds.items():
        series = []
        for k, (name, lines) in enumerate(logs.items()):
            known = [line for line in lines if isinstance(line.get(key), int | float)]
            x, y = (thinned([float(line[part]) for line in known]) for part in ("images", key))
            series.append(Series(name, x, y, colour=k))
        found.append(figure(line_chart(caption, series, "images seen", label, log_y=log_y), caption))
    return [one for one in found if one]


def noise_level_chart(record: Record) -> str:
    """Loss per noise level with its floor: what evaluate --loss found."""
    errors = record["errors"]
    trivial = [mean for mean, _ in errors["trivial"]]
    names = {"training": "this run, training images", "held_out": "this run, held-out images"}
    series = [
        Series(name, record["log_snr"], _shares(errors[key], trivial), colour=k)
        for k, (key, name) in enumerate(names.items())
        if key in errors
    ]
    floor = Series("floor: the ideal of the training set", record["log_snr"], _shares(errors["ideal"], trivial))
    series.append(Series(floor.name, floor.x, floor.y, colour=5, dashed=True))
    caption = (
        "Error at every noise level, as a share of a trivial guess's (1): between that and the floor lies all there is."
    )
    return figure(line_chart(caption, series, "log SNR, noisy to clean", "share of the trivial error"), caption)


def _shares(errors: Sequence[Sequence[float]], trivial: Sequence[float]) -> list[float]:
    """Errors as shares of the trivial guess's, NaN (not drawn) where that makes no error, as on equal images."""
    pairs = zip(errors, trivial, strict=True)
    return [min(mean / least, 3.0) if least > 0 else math.nan for (mean, _), least in pairs]


def compare_charts(record: Record, name: str) -> list[str]:
    """Distance against evaluations, and against seconds: what compare found."""
    floor, found = record["floor"], []
    units = {
        "evaluations": ("network evaluations an image", f"{name} against evaluations, with 95% intervals."),
        "seconds_per_picture": ("seconds an image", f"{name} against time."),
    }
    for key, (label, caption) in units.items():
        series = []
        for k, sampler in enumerate(dict.fromkeys(row["sampler"] for row in record["rows"])):
            rows = [row for row in record["rows"] if row["sampler"] == sampler]
            values, halves = ([row["frechet"][part] or 0.0 for row in rows] for part in ("value", "interval"))
            series.append(Series(sampler, [row[key] for row in rows], values, halves, colour=k, points=True))
        ends = [min(row[key] for row in record["rows"]), max(row[key] for row in record["rows"])]
        value, half = floor["frechet"]["value"], floor["frechet"]["interval"]
        series.append(Series(f"floor: {floor['of']}", ends, [value] * 2, [half] * 2, colour=5, dashed=True))
        found.append(figure(line_chart(caption, series, label, name, log_x=True, log_y=True), caption))
    return found


def ladder_chart(record: Record, name: str) -> str:
    """The scale: held-out images with more and more noise, the samples as a level line."""
    rungs = record["ladder"]
    ends, own, floor = [NOISES[0], NOISES[-1]], record["measures"]["frechet"], record["floor"]
    best = floor["measures"]["frechet"]
    series = [
        Series("held-out images with noise", NOISES, [rungs[f"noise {noise}"] for noise in NOISES], points=True),
        Series("samples", ends, [own["value"]] * 2, [own["interval"]] * 2, colour=1),
        Series(f"floor: {floor['of']}", ends, [best["value"]] * 2, [best["interval"]] * 2, colour=5, dashed=True),
    ]
    caption = f"{name}: where the samples lie among images with known damage."
    return figure(line_chart(caption, series, "noise, grey levels", name, log_x=True, log_y=True), caption)


def drift_charts(record: Record) -> list[str]:
    """Brightness and power spectrum of samples and data, with the interval that data spans."""
    ways: dict[str, tuple[str, Callable[[int], float], str]] = {
        "brightness": ("share of pixels", lambda k: 8 * k + 4, "grey level"),
        "power spectrum, dB": ("power, dB", lambda k: k + 1, "waves across the shorter side"),
    }
    found = []
    for one in record["drift"]:
        if one["name"] in ways:
            label, place, across = ways[one["name"]]
            x = [place(k) for k in range(len(one["data"]))]
            series = [
                Series("data", x, one["data"], one["half"], colour=0),
                Series("samples", x, one["samples"], colour=1),
            ]
            caption = f"{one['name'][0].upper()}{one['name'][1:]}: the band is what as many images of the data span."
            found.append(figure(line_chart(caption, series, across, label), caption))
    return found
