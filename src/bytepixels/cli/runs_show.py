"""The verb runs show: describe one run in full, as lines of text."""

import math
import shlex
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from ..api import overview
from ..config.presets import own_command
from ..wording import bytes_of, many, time_of

if TYPE_CHECKING:
    from ..api import Directory, Overview

BARS = "▁▂▃▄▅▆▇█"
CURVE = 48  # columns of the loss curve


def show_run(path: Path) -> Iterator[str]:
    """Describe one run in full, line by line. InputError if its config.json cannot be read."""
    one = overview(path)
    run = one.run
    assert run is not None
    state = f"training now: {one.holder}" if one.in_use else one.state
    yield f"{run.path}: {state}, {bytes_of(one.size)}, last change {time_of(one.changed)}"
    first = run.made_by[0]
    imported = run.data.get("imported")
    yield f"{'imported' if imported else 'begun'} {first['time']} with bytepixels {first['bytepixels']}; id {run.id}"
    if imported:
        yield f"imported from {imported['folder']}, a {imported['kind']}"
    else:
        yield f"train another like it: {own_command(run.config, run.data['source'], run.data.get('asked'))}"
    yield from _data(run)
    if not imported:
        yield f"images seen: {one.images:,} of {run.config.train.images:,}"
    yield "checkpoints:" if one.saved else "checkpoints: none yet"
    for saved in one.saved:
        note = saved.damage or ("whole, without its optimizer" if saved.pruned else "whole")
        images = "" if saved.images is None else f"{saved.images:,} images, "
        yield f"  {saved.path.name}  {images}{bytes_of(saved.size)}: {note}"
    yield from _log(one)
    yield from _made(one, run)
    yield f"go on:  {_go_on(one, run)}"
    yield _then(run)


def _then(run: "Directory") -> str:
    """Suggest the next commands for the run."""
    path = shlex.quote(str(run.path))
    if run.config.autoencoder is None:
        return f"sample: bytepixels sample {path}"
    return f"train on its latents: bytepixels train {shlex.quote(run.data['source'])} --autoencoder {path}"


def _go_on(one: "Overview", run: "Directory") -> str:
    if run.data.get("imported"):
        return f"bytepixels train SOURCE --from {shlex.quote(str(run.path))}"
    whole = [saved for saved in one.saved if not saved.damage]
    if whole and whole[-1].pruned:
        return "not possible, its optimizer was pruned"
    verb = "train" if run.config.autoencoder is None else "train autoencoder"
    command = f"bytepixels {verb} {shlex.quote(run.data['source'])} --run {shlex.quote(str(run.path))}"
    return command + (" --images N, N above its budget" if one.finished else "")


def _data(run: "Directory") -> Iterator[str]:
    channels, height, width = run.shape
    classes = f"{len(run.data['classes'])} classes" if run.data["classes"] else "unconditional"
    size = f"{height} x {width}, channels {channels}, {classes}"
    if not run.data["count"]:
        yield f"images: {size}"
    else:
        yield f"data: {run.data['source']}, {run.data['count']:,} images, {size}"
    if run.data["classes"]:
        shown = run.data["classes"][:20]
        more = len(run.data["classes"]) - len(shown)
        yield f"classes: {', '.join(shown)}{f' and {more} more' if more else ''}"


def _log(one: "Overview") -> Iterator[str]:
    """Summarise the log in a few lines."""
    lines, loss = one.log, one.loss
    if not lines or loss is None:
        yield "log: empty"
        return
    losses, last, mean = [line["loss"] for line in lines], lines[-1], f"mean of the last {len(one.recent)}"
    yield f"log: {many(len(lines), 'line')}; loss {loss:.4f} ({mean}), {losses[0]:.4f} first, {min(losses):.4f} least"
    yield f"  {curve(losses)}"
    names = {"grad_norm": "gradient", "lr": "learning rate", "images_per_second": "images/s"}
    facts = [f"{word} {last[name]:.4g}" for name, word in names.items() if isinstance(last.get(name), int | float)]
    yield f"  at last: {', '.join(facts)}"
    if one.skipped:
        yield f"  {many(one.skipped, 'step')} left out: the loss or its gradient was not finite"


def curve(values: Sequence[float], width: int = CURVE) -> str:
    """Draw a curve of at most `width` characters: means of equal parts, on a logarithmic scale."""
    columns = min(width, len(values))
    cuts = [len(values) * k // columns for k in range(columns + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(cuts)]
    logs = [math.log(max(mean, 1e-12)) for mean in means]
    low, high = min(logs), max(logs)
    bars = BARS if "utf" in (sys.stdout.encoding or "").lower() else "12345678"
    return "".join(bars[round((len(bars) - 1) * (one - low) / (high - low))] if high > low else bars[0] for one in logs)


def _made(one: "Overview", run: "Directory") -> Iterator[str]:
    """List what was drawn from the run and measured on it."""
    previews = len(list(run.samples.glob("images-*.png")))
    folders = sorted(path.parent.name for path in run.samples.glob("*/manifest.json"))
    yield f"samples: {many(previews, 'grid')} along the way" + (f"; {', '.join(folders)}" if folders else "")
    yield from _evaluations(one)


def _evaluations(one: "Overview") -> Iterator[str]:
    """List the numbers of each line of eval.jsonl."""
    for record in one.evaluations:
        numbers = {name: value for name, value in record.items() if isinstance(value, float)}
        if isinstance(bits := record.get("bits_per_dimension"), dict):
            numbers |= {f"{name} bits/dim": row["total"] for name, row in bits.items() if "total" in row}
        if record.get("kind") == "compare":
            numbers |= {f"{one['sampler']} {one['steps']}": one["frechet"]["value"] for one in record.get("rows", ())}
        found = ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        yield f"evaluated: {record.get('kind')} of {record.get('checkpoint')}, {record.get('weights')}: {found}"
