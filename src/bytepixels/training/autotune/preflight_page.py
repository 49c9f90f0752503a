"""What data doctor says of this machine: a step, memory, disk and a first trial, as labelled lines."""

from ...data.inspection.statistics import Numbers
from ...wording import many
from .preflight_lines import Lines


def numbered(sentences: list[str]) -> Lines:
    return [(str(k), sentence) for k, sentence in enumerate(sentences or ["No problems found."], 1)]


def time_lines(report: Numbers) -> Lines:
    """What was reckoned of a step, and what was measured."""
    measured, reckoned = report["measured"], report["reckoned"]
    memory = f"about {_bytes(reckoned['bytes'])} for {many(reckoned['at_a_time'], 'image')} at a time, reckoned"
    free = f"{_bytes(reckoned['free_bytes'])} are free"
    lines = [("network", f"{report['network']['weights']:,} weights")]
    if measured is None:
        return [*lines, ("memory", f"{memory}; {free}")]
    peak = measured["peak_memory_bytes"]
    most = "not known here" if peak is None else _bytes(peak)
    return [
        *lines,
        ("a step", f"{_step(measured)}: {measured['images_per_second']:,.3g} images/s"),
        ("the budget", measured["forecast"]),
        ("memory", f"{memory}; measured: {most} at the most, with {measured['micro_batch']}; {free}"),
    ]


def _step(measured: Numbers) -> str:
    """Seconds, their spread, and what they were measured on."""
    least, greatest = measured["seconds_per_step_least"], measured["seconds_per_step_greatest"]
    pictures = f"{measured['batch']} images"
    if measured["measured_batch"] < measured["batch"]:
        pictures = f"{measured['measured_batch']} images, scaled to {measured['batch']}"
    threads = f"{measured['precision']}, {many(measured['threads'], 'thread')}"
    load = "" if measured["load"] is None else f", load {measured['load']:.1f} on {measured['cores']} cores"
    spread = f"{least:.3g} to {greatest:.3g} in {many(measured['steps'], 'step')} of {pictures}"
    return f"{measured['seconds_per_step']:.3g} s ({spread}; {threads}{load})"


def disk_lines(disk: Numbers) -> Lines:
    run = f"a checkpoint {_bytes(disk['checkpoint_bytes'])}, of which {disk['kept']} are kept"
    return [("disk", f"packed set {_bytes(disk['packed_bytes'])}; {run}; {_bytes(disk['free_bytes'])} are free")]


def overfit_lines(check: Numbers | None) -> Lines:
    """How far the loss of one batch fell, and whether that is as it should be."""
    if check is None:
        return [("", "Not tried: a step does not fit in memory, or takes too long.")]
    share, good = check["loss_share"], f"{100 * check['good_share']:.0f}%"
    fell = "is not finite" if share is None else f"is {100 * share:.0f}% of the loss of predicting nothing"
    batch, after = many(check["pictures"], "image"), many(check["steps"], "step")
    verdict = {
        True: f"as it should be, at most {good}",
        False: f"NOT as it should be, at most {good}",
        None: "too few steps to tell on this machine",
    }[check["learns"]]
    limit = f"the limit was {check['limit_seconds']:g} s or {check['most_steps']} steps"
    return [("", f"One batch of {batch}, over and over: after {after} its loss {fell} ({verdict}; {limit}).")]


def _bytes(number: float) -> str:
    """Decimal units, as disks are sold."""
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:,.1f} GB"
