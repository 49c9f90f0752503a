"""The contents of a report as plain values: text, images as data URIs, and charts to be drawn.

The words around them are those of template.html, which knows these values by their names.
"""

import base64
import shlex
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

from ..config.presets import own_command
from ..evaluation.summary import NAMES, copies_sentence, drift_sentence, how_far, number
from ..metrics.features import title
from ..requests.evaluate import Report
from ..runs.checkpoints import list_checkpoints
from ..runs.overview import RECENT, read_lines, read_log, recent_loss
from ..runs.run_directory import Run
from ..sampling.load_weights import read_checkpoint
from .charts import compare_charts, drift_charts, ladder_chart, noise_level_chart, training_charts
from .denoising_strip import denoising_strip

ASKED = ("seed", "sampler", "steps", "checkpoint")  # settings of evaluate, by the names of their flags
SHEETS = ("samples", "neighbours", "reconstructions")  # that evaluate writes
FIDELITY = {
    "psnr": "PSNR, dB",
    "ssim": "SSIM",
    "kl": "nats per number of a latent",
    "codes_used": "codes in use",
    "perplexity": "perplexity of the codes",
    "frechet_distance": "Frechet distance",
}
Record = dict[str, Any]


def collect(run: Run, name: str, request: Report) -> dict[str, Any]:
    """Collect the contents of a run's report, by the names in template.html; draws the denoising strip."""
    evaluations, log = list(read_lines(run.path / "eval.jsonl")), list(read_log(run.path))
    latest = {str(one.get("kind")): one for one in evaluations}  # the last of each kind
    quality, compare, loss = (latest.get(kind) for kind in ("quality", "compare", "loss"))
    trained, draws = bool(list_checkpoints(run.checkpoints)), run.config.autoencoder is None
    images = read_checkpoint(run, None, lambda path, state: state["images"])[1] if trained else 0
    strip = denoising_strip(run, request.strip, request.device) if request.strip and trained and draws else b""
    sheets = {sheet: data_uri(run.path / "evaluate" / f"{sheet}.png") for sheet in SHEETS}
    return sheets | {
        "name": name,
        "path": str(run.path),
        "quoted_path": shlex.quote(str(run.path)),
        "draws": draws,
        "images": images,
        "log": log,
        "facts": facts(run, images),
        "grids": [(data_uri(path), _images_seen(path)) for path in sorted(run.samples.glob("images-*.png"))],
        "strip": data_uri(strip) if strip else "",
        "fidelity": fidelity([one for one in evaluations if one.get("kind") == "reconstruction"]),
        "quality": quality,
        "findings": findings(quality) if quality else {},
        "compare": compare,
        "steps_needed": steps_needed(compare) if compare else {},
        "may_measure_loss": draws and not loss and "first_stage" not in run.data,
        "curves": [*([noise_level_chart(loss)] if loss else []), *training_charts({"this run": log})],
        "commands": commands(run, quality, compare),
        "settings": settings(run),
    }


def data_uri(content: bytes | Path, kind: str = "image/png") -> str:
    """Encode a file as a data URI; "" if it cannot be read."""
    try:
        data = content.read_bytes() if isinstance(content, Path) else content
    except OSError:
        return ""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _images_seen(grid: Path) -> str:
    images = grid.stem.removeprefix("images-")
    return f"{int(images):,} images seen" if images.isdecimal() else grid.stem


def facts(run: Run, images: int) -> list[tuple[str, str]]:
    """The facts of the run, by name."""
    data, (channels, height, width) = run.data, run.shape
    classes = f", {len(run.classes)} classes" if run.classes else ""
    if (own := run.config.autoencoder) is not None:
        kind, what = "autoencoder", f"{own.kind}, latents of 1/{own.factor} of the side, channels {own.latent_channels}"
    else:
        kind, what = "process", f"{run.config.process.diffusion}, predicts {run.config.process.prediction}"
    if (first := data.get("first_stage")) is not None:
        deep, high, wide = run.x0_shape
        what += f", on latents of {high} x {wide}, channels {deep}, of {first['source']}"
    size = f"{height} x {width}, channels {channels}{classes}"
    if imported := data.get("imported"):
        seen = [("imported", f"from {imported['folder']}, a {imported['kind']}"), ("images", size)]
    else:
        epochs = f"{images / data['count']:.1f} epochs"
        seen = [
            ("images", f"{data['count']:,} of {data['source']}, {size}"),
            ("seen", f"{images:,} of {run.config.train.images:,} images ({epochs})"),
        ]
    return [
        *seen,
        (kind, what),
        ("begun", f"{run.made_by[0].get('time', '?')}, commit {str(run.made_by[0].get('git_commit'))[:12]}"),
    ]


def fidelity(records: Sequence[Record]) -> dict[str, Any]:
    """The reconstruction quality of an autoencoder, a row per evaluation; {} if there was none."""
    used = [key for key in FIDELITY if any(key in one for one in records)]
    rows = []
    for one in records:
        seen = f"{one['images']:,}" if "images" in one else str(one["checkpoint"])
        of = one["of"] if one["of"][0].isdigit() else f"{one['n']:,} {one['of']}"
        rows.append((seen, *(f"{one[key]:.4g}" if key in one else "-" for key in used), of))
    return {"head": ["images seen", *(FIDELITY[key] for key in used), "of"], "rows": rows} if rows else {}


def findings(record: Record) -> dict[str, Any]:
    """Distances, copies and drift of the last evaluation."""
    own, floor, name = record["measures"], record["floor"]["measures"], title(record["features"]["name"])
    levels = [one for one in record["drift"] if "channel" in one["name"]]
    names = {"frechet": name} | NAMES
    return {
        "how_far": how_far(record),
        "distances": [(names[key], number(own[key]), number(floor[key])) for key in names if key in own],
        "charts": [ladder_chart(record, name), *drift_charts(record)],
        "copies": [(copies_sentence(by, sets), sets["more_than_held_out"]) for by, sets in record["copies"].items()],
        "drift": [(drift_sentence(one), one) for one in record["drift"] if one["outside"]],
        "grey_levels": [
            (f"{one['name']} {k}", f"{sample:.2f}", f"{data:.2f} ± {half:.2f}")
            for one in levels
            for k, sample, data, half in zip(count(1), one["samples"], one["data"], one["half"], strict=False)
        ],
    }


def steps_needed(record: Record) -> dict[str, Any]:
    """Costs and distances of each sampler and number of steps in the last comparison."""
    name = title(record["features"]["name"])
    rows = []
    for row in record["rows"]:
        costs = row["evaluations"], f"{row['seconds_per_picture']:.3g}"
        rows.append((f"{row['sampler']}, {row['steps']} steps", *costs, number(row["frechet"]), number(row["kernel"])))
    head = ["", "evaluations", "seconds each", name, "kernel distance"]
    return {"charts": compare_charts(record, name), "head": head, "rows": rows}


def commands(run: Run, quality: Record | None, compare: Record | None) -> list[str]:
    """The commands that reproduce this run and its measurements."""
    path = shlex.quote(str(run.path))
    lines = [own_command(run.config, run.data["source"], run.data.get("asked")) + f" --run {path}"]
    if run.config.autoencoder is None:
        lines.append(f"bytepixels sample {path} -n 64")
    if quality is not None:
        keys = {"-n": "n", "--features": "asked_features"} | {f"--{key}": key for key in ASKED}
        asked = ((flag, quality.get(key)) for flag, key in keys.items())
        flags = (f"{flag} {shlex.quote(str(value))}" for flag, value in asked if value is not None)
        lines.append(f"bytepixels evaluate {path} {' '.join(flags)}")
    if compare is not None:
        lines.append(f"bytepixels compare {path} -n {compare['n']} --checkpoint {compare['checkpoint']}")
    return lines


def settings(run: Run) -> list[tuple[str, Any]]:
    """The whole config, setting by setting."""
    return [
        (f"{part}.{name}" if name else part, value)
        for part, inner in run.config.to_dict().items()
        for name, value in (inner.items() if isinstance(inner, dict) else [("", inner)])
    ]


def side_by_side(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Several runs, each as collect returns it, in one column each, with their training in one chart."""
    losses = [recent_loss(Path(run["path"])) for run in runs]
    found = [run["quality"] for run in runs]
    rows = [
        ["images seen", *(f"{run['images']:,}" for run in runs)],
        [f"loss, mean of the log's last {RECENT} lines", *("-" if x is None else f"{x:.4f}" for x in losses)],
    ]
    for key, words in ({"frechet": "Frechet distance"} | NAMES).items():
        cells = [number(one["measures"][key]) if one and key in one["measures"] else "-" for one in found]
        rows += [[words, *cells]] if set(cells) != {"-"} else []
    rows.append(["features", *(f"{one['features']['name']}, n = {one['n']:,}" if one else "-" for one in found)])
    ways = {(one["features"]["sha256"], one["reference"]["sha256"], one["n"]) for one in found if one}
    charts = training_charts({run["name"]: run["log"] for run in runs})
    return {"head": ["", *(run["name"] for run in runs)], "rows": rows, "comparable": len(ways) < 2, "charts": charts}
