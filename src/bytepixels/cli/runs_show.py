"""runs show RUN: all there is to know of one run, as lines of text."""

import math
import shlex
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from ..config.presets import own_command
from ..runs.lock import holder
from ..runs.overview import RECENT, Overview, look_at, read_lines, read_log, recent_loss, size_of
from ..runs.run_directory import Run, open_run
from ..wording import many

BARS = "▁▂▃▄▅▆▇█"
CURVE = 48  # columns of the loss curve


def show_run(path: Path) -> Iterator[str]:
    """All there is to know of one run, line by line. InputError when its config.json cannot be read."""
    run = open_run(path)
    one = look_at(run.path, thorough=True)
    state = f"training now: {holder(run.path)}" if one.in_use else one.state
    yield f"{run.path}: {state}, {bytes_of(size_of(run.path))}, last change {time_of(one.changed)}"
    first = run.made_by[0]
    yield f"begun {first['time']} with bytepixels {first['bytepixels']}; id {run.id or 'none, of an early version'}"
    yield f"train another like it: {own_command(run.config, run.data['source'], run.data.get('asked'))}"
    yield from _data(run)
    yield f"images seen: {one.images:,} of {run.config.train.images:,}"
    yield "checkpoints:" if one.saved else "checkpoints: none yet"
    for saved in one.saved:
        note = saved.damage or ("whole, without its optimizer" if saved.pruned else "whole")
        images = "" if saved.images is None else f"{saved.images:,} images, "
        yield f"  {saved.path.name}  {images}{bytes_of(saved.size)}: {note}"
    yield from _log(run.path)
    yield from _made(run)
    yield f"go on:  {_go_on(one, run)}"
    yield _then(run)


def _then(run: Run) -> str:
    """What to do with it."""
    path = shlex.quote(str(run.path))
    if run.config.autoencoder is None:
        return f"sample: bytepixels sample {path}"
    return f"train on its latents: bytepixels train {shlex.quote(run.data['source'])} --autoencoder {path}"


def _go_on(one: Overview, run: Run) -> str:
    whole = [saved for saved in one.saved if not saved.damage]
    if whole and whole[-1].pruned:
        return "not possible, its optimizer was pruned"
    verb = "train" if run.config.autoencoder is None else "train autoencoder"
    command = f"bytepixels {verb} {shlex.quote(run.data['source'])} --run {shlex.quote(str(run.path))}"
    return command + (" --images N, N above its budget" if one.finished else "")


def _data(run: Run) -> Iterator[str]:
    channels, height, width = run.shape
    classes = f"{len(run.data['classes'])} classes" if run.data["classes"] else "unconditional"
    size = f"{run.data['count']:,} images, {height} x {width}, channels {channels}"
    yield f"data: {run.data['source']}, {size}, {classes}"
    if run.data["classes"]:
        shown = run.data["classes"][:20]
        more = len(run.data["classes"]) - len(shown)
        yield f"classes: {', '.join(shown)}{f' and {more} more' if more else ''}"


def _log(path: Path) -> Iterator[str]:
    """The log in a few lines."""
    lines, loss = list(read_log(path)), recent_loss(path)
    if not lines or loss is None:
        yield "log: empty"
        return
    losses, last, mean = [line["loss"] for line in lines], lines[-1], f"mean of the last {min(RECENT, len(lines))}"
    yield f"log: {many(len(lines), 'line')}; loss {loss:.4f} ({mean}), {losses[0]:.4f} first, {min(losses):.4f} least"
    yield f"  {curve(losses)}"
    names = {"grad_norm": "gradient", "lr": "learning rate", "images_per_second": "images/s"}
    facts = [f"{word} {last[name]:.4g}" for name, word in names.items() if isinstance(last.get(name), int | float)]
    yield f"  at last: {', '.join(facts)}"
    if skipped := sum(record.get("skipped", 0) for record in read_lines(path / "log.jsonl")):
        yield f"  {many(skipped, 'step')} left out: the loss or its gradient was not finite"


def curve(values: Sequence[float], width: int = CURVE) -> str:
    """A curve of at most `width` characters: means of equal parts, the logarithm from the least to the greatest."""
    columns = min(width, len(values))
    cuts = [len(values) * k // columns for k in range(columns + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(cuts)]
    logs = [math.log(max(mean, 1e-12)) for mean in means]
    low, high = min(logs), max(logs)
    bars = BARS if "utf" in (sys.stdout.encoding or "").lower() else "12345678"
    return "".join(bars[round((len(bars) - 1) * (one - low) / (high - low))] if high > low else bars[0] for one in logs)


def _made(run: Run) -> Iterator[str]:
    """What was drawn and measured."""
    previews = len(list(run.samples.glob("images-*.png")))
    folders = sorted(path.parent.name for path in run.samples.glob("*/manifest.json"))
    yield f"samples: {many(previews, 'grid')} along the way" + (f"; {', '.join(folders)}" if folders else "")
    yield from _evaluations(run.path)


def _evaluations(path: Path) -> Iterator[str]:
    """What evaluate found: the numbers of each line of eval.jsonl."""
    for record in read_lines(path / "eval.jsonl"):
        numbers = {name: value for name, value in record.items() if isinstance(value, float)}
        if isinstance(bits := record.get("bits_per_dimension"), dict):
            numbers |= {f"{name} bits/dim": row["total"] for name, row in bits.items() if "total" in row}
        if record.get("kind") == "compare":
            numbers |= {f"{one['sampler']} {one['steps']}": one["frechet"]["value"] for one in record.get("rows", ())}
        found = ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        yield f"evaluated: {record.get('kind')} of {record.get('checkpoint')}, {record.get('weights')}: {found}"


def bytes_of(count: int) -> str:
    """1234567 -> 1.2 MB."""
    power = min(4, int(math.log10(max(count, 1))) // 3)
    return f"{count} bytes" if power == 0 else f"{count / 1000**power:.1f} {' kMGT'[power]}B"


def time_of(seconds: float) -> str:
    """Seconds since 1970 as the local date and time; 0 is unknown."""
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M") if seconds else "-"
