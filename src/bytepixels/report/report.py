"""The verb report: one HTML file about one or more runs that needs no network."""

import shlex
from pathlib import Path
from typing import Any

from .. import events
from ..errors import InputError
from ..files import write_whole
from ..requests.evaluate import Report
from ..runs.run_directory import make_folder, open_run
from .collect import collect, data_uri, side_by_side


def report(request: Report) -> Path:
    """Write the file and return its path. InputError where a run cannot be read."""
    runs: list[dict[str, Any]] = []
    for path in request.runs:
        run = open_run(path)
        name = path.absolute().name
        runs.append(collect(run, str(path) if any(name == one["name"] for one in runs) else name, request))
    out = request.out or Path(runs[0]["path"]) / "report.html"
    if out.is_dir():
        raise InputError(f"--out {out} is a folder, and the report is one file; try --out {out / 'report.html'}")
    make_folder(out.parent, "--out")
    write_whole(out, render(runs))
    events.say(out)
    return out


def render(runs: list[dict[str, Any]]) -> str:
    """Render the page of several runs, each as collect returns it; all names are escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("bytepixels.report", "")
    engine = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    engine.filters["svg_uri"] = lambda chart: data_uri(chart.svg(), "image/svg+xml")
    several = side_by_side(runs) if len(runs) > 1 else None
    command = shlex.join(["bytepixels", "report", *(run["path"] for run in runs)])
    return engine.get_template("template.html").render(runs=runs, side_by_side=several, command=command) + "\n"
