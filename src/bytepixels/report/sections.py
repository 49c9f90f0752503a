"""What a report says of one run, section by section, and what it says of several side by side."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config.presets import own_command
from ..evaluation.summary import NAMES, copies_sentence, drift_sentence, how_far, number
from ..metrics.features import title
from ..runs.overview import RECENT, recent_loss
from ..runs.run_directory import Run
from .charts import compare_charts, drift_charts, ladder_chart, noise_level_chart, training_charts
from .html import figure, folded, image, table, text

if TYPE_CHECKING:
    from ..runs.run_directory import Run


def sections(story: Story) -> Iterator[str]:
    """All of one run."""
    yield facts(story)
    yield reconstructions(story) if story.run.config.autoencoder else pictures(story)
    yield quality(story)
    yield curves(story)
    yield settings(story)


def facts(story: Story) -> str:
    """What it is, in a table."""
    run, (channels, height, width) = story.run, story.run.shape
    classes = f", {len(run.classes)} classes" if run.classes else ""
    budget = run.config.train.images
    rows = [
        (
            "images",
            f"{run.data['count']:,} of {run.data['source']}, {height} x {width}, channels {channels}{classes}",
        ),
        ("seen", f"{story.images:,} of {budget:,} images ({story.images / run.data['count']:.1f} epochs)"),
        _what(run),
        ("begun", f"{run.made_by[0].get('time', '?')}, commit {str(run.made_by[0].get('git_commit'))[:12]}"),
    ]
    lines = "".join(f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>' for name, value in rows)
    return f'<div class="scroll"><table><tbody>{lines}</tbody></table></div>'


def _what(run: Run) -> tuple[str, str]:
    """What is trained, as a row."""
    if (own := run.config.autoencoder) is not None:
        return "autoencoder", f"{own.kind}, latents of 1/{own.factor} of the side, channels {own.latent_channels}"
    first, process = run.data.get("first_stage"), run.config.process
    channels, height, width = run.x0_shape
    latents = "" if first is None else f", on latents of {height} x {width}, channels {channels}, of {first['source']}"
    return "process", f"{process.diffusion}, predicts {process.prediction}{latents}"


def reconstructions(story: Story) -> str:
    """Images beside what their latents keep of them, and that in numbers."""
    run, parts = story.run, ["<h3>Reconstructions</h3>"]
    grids = sorted(run.samples.glob("images-*.png"))
    said = "Images on the left, what the average makes of their latents on the right; {}."
    shown = [figure(image(one, "reconstructions"), said.format(_seen(one).split(":")[0])) for one in grids]
    parts += [f'<div class="strip" tabindex="0">{"".join(shown)}</div>'] if shown else []
    if measured := image(run.path / "evaluate" / "reconstructions.png", "images above their reconstructions"):
        seen = figure(measured, "What evaluate saw: images above, reconstructed below.")
        parts.append(f'<div class="scroll">{seen}</div>')
    records = [one for one in story.evaluations if one.get("kind") == "reconstruction"]
    names = {"psnr": "PSNR, dB", "ssim": "SSIM", "kl": "nats per number of a latent", "codes_used": "codes in use"}
    names |= {"perplexity": "perplexity of the codes", "frechet_distance": "Frechet distance"}
    rows = []
    for one in records:
        seen = f"{one['images']:,}" if "images" in one else str(one["checkpoint"])
        values = [f"{one[name]:.4g}" if name in one else "-" for name in names]
        of = one["of"] if one["of"][0].isdigit() else f"{one['n']:,} {one['of']}"
        rows.append([seen, *values, of])
    if not rows:
        return "".join([*parts, text(f"Not measured yet: bytepixels evaluate {shlex.quote(str(run.path))}", "soft")])
    used = [k for k, name in enumerate(names, 1) if any(row[k] != "-" for row in rows)]
    kept = [[row[0], *(row[k] for k in used), row[-1]] for row in rows]
    heads = [list(names.values())[k - 1] for k in used]
    return "".join([*parts, table(["images seen", *heads, "of"], kept)])


def pictures(story: Story) -> str:
    """Samples, their neighbours, the grids on the way, and the way out of the noise."""
    run, parts = story.run, ["<h3>Samples</h3>"]
    grids = sorted(run.samples.glob("images-*.png"))
    samples = image(run.path / "evaluate" / "samples.png", "a grid of samples")
    if samples:
        parts.append(figure(samples, "What evaluate drew."))
    elif grids:
        parts.append(
            figure(image(grids[-1], "a grid of samples"), "Drawn in training: raw weights left, average right.")
        )
    neighbours = image(run.path / "evaluate" / "neighbours.png", "samples above their nearest training images")
    if neighbours:
        said = (
            "Top: the samples nearest to the training images. Below each: its nearest one by pixels, and by features."
        )
        parts += ["<h3>Nearest training images</h3>", f'<div class="scroll">{figure(neighbours, said)}</div>']
    else:
        parts.append(text(f"Not measured yet: bytepixels evaluate {shlex.quote(str(run.path))}", "soft"))
    if story.strip is not None:
        strip = figure(image(story.strip, "states from noise to image"), "From pure noise, left, to a sample, right.")
        parts += ["<h3>Out of the noise</h3>", strip]
    if grids:
        shown = "".join(figure(image(one, "samples in training"), _seen(one)) for one in grids)
        parts += ["<h3>Over time</h3>", f'<div class="strip" tabindex="0">{shown}</div>']
    return "".join(parts)


def _seen(grid: Path) -> str:
    number = grid.stem.removeprefix("images-")
    return f"{int(number):,} images seen: raw weights left, average right" if number.isdecimal() else grid.stem


def quality(story: Story) -> str:
    """Distances, copies, drift, and how many steps it needs."""
    parts, record, compare = [], story.latest("quality"), story.latest("compare")
    if record is not None:
        name = title(record["features"]["name"])
        parts += ["<h3>How good</h3>", _distances(record, name), '<div class="tiles">']
        parts += [ladder_chart(record, name), *drift_charts(record), "</div>", *_verdicts(record)]
    if compare is not None:
        parts += [
            "<h3>How many steps</h3>",
            '<div class="tiles">',
            *compare_charts(compare, title(compare["features"]["name"])),
        ]
        parts += ["</div>", _steps(compare)]
    return "".join(parts)


def _distances(record: dict[str, Any], name: str) -> str:
    own, floor = record["measures"], record["floor"]["measures"]
    known = [(key, words) for key, words in ({"frechet": name} | NAMES).items() if key in own]
    rows = [(words, number(own[key]), number(floor[key])) for key, words in known]
    reference, features = record["reference"], record["features"]
    caption = (
        f"{record['n']:,} samples of {record['checkpoint']} ({record['sampler']}, {record['steps']} steps) against "
        f"{reference['n']:,} images of split {reference['split']}; features {features['name']} "
        f"{features['sha256'][:12]}; floor: {record['floor']['of']}"
    )
    warning = text(record["warning"], "warning") if record.get("warning") else ""
    return text(how_far(record)) + warning + table(["", "samples", "floor"], rows, caption)


def _verdicts(record: dict[str, Any]) -> Iterator[str]:
    """Copies and drift, in sentences."""
    for by, sets in record["copies"].items():
        yield text(copies_sentence(by, sets), "warning" if sets["more_than_held_out"] else "")
    for one in record["drift"]:
        if one["outside"]:
            more = f" ({len(one['outside'])} of {len(one['data'])} numbers are outside)" if len(one["data"]) > 4 else ""
            yield text(f"Unlike the data: {drift_sentence(one)}{more}", "warning")
    channels = [one for one in record["drift"] if "channel" in one["name"]]
    rows = [
        (f"{one['name']} {k + 1}", f"{sample:.2f}", f"{data:.2f} ± {half:.2f}")
        for one in channels
        for k, (sample, data, half) in enumerate(zip(one["samples"], one["data"], one["half"], strict=True))
    ]
    yield table(["grey levels", "samples", "data"], rows)


def _steps(record: dict[str, Any]) -> str:
    rows = []
    for row in record["rows"]:
        costs = f"{row['evaluations']}", f"{row['seconds_per_picture']:.3g}"
        rows.append((f"{row['sampler']}, {row['steps']} steps", *costs, number(row["frechet"]), number(row["kernel"])))
    head = ["", "evaluations", "seconds each", title(record["features"]["name"]), "kernel distance"]
    return table(head, rows, f"{record['n']:,} samples each, of the same seeds; {record['checkpoint']}")


def curves(story: Story) -> str:
    """Training, and the loss at every noise level."""
    loss = story.latest("loss")
    charts = ([noise_level_chart(loss)] if loss else []) + training_charts({"this run": story.log})
    own = story.run.config.autoencoder is None and "first_stage" not in story.run.data
    hint = f"Loss per noise level: bytepixels evaluate {shlex.quote(str(story.run.path))} --loss"
    said = text(hint, "soft") if own and not loss else ""
    return f'<h3>Curves</h3><div class="tiles">{"".join(charts)}</div>' + said


def settings(story: Story) -> str:
    """The config, and the commands that repeat what is here."""
    run, path = story.run, shlex.quote(str(story.run.path))
    commands = [own_command(run.config, run.data["source"], run.data.get("asked")) + f" --run {path}"]
    if run.config.autoencoder is not None:
        return _to_repeat(run, commands)
    commands.append(f"bytepixels sample {path} -n 64")
    record, compare = story.latest("quality"), story.latest("compare")
    if record is not None:
        names = {
            "-n": "n",
            "--features": "asked_features",
            "--seed": "seed",
            "--sampler": "sampler",
            "--steps": "steps",
        }
        asked = {flag: record.get(name) for flag, name in (names | {"--checkpoint": "checkpoint"}).items()}
        flags = (f"{flag} {shlex.quote(str(value))}" for flag, value in asked.items() if value is not None)
        commands.append(f"bytepixels evaluate {path} {' '.join(flags)}")
    if compare is not None:
        commands.append(f"bytepixels compare {path} -n {compare['n']} --checkpoint {compare['checkpoint']}")
    return _to_repeat(run, commands)


def _to_repeat(run: Run, commands: list[str]) -> str:
    rows = [
        (f"{part}.{name}" if part else name, str(value))
        for part, inner in run.config.to_dict().items()
        for name, value in (inner.items() if isinstance(inner, dict) else [(part, inner)])
    ]
    return (
        "<h3>To repeat it</h3><pre>"
        + escape("\n".join(commands))
        + "</pre>"
        + folded("All settings", table(["setting", "value"], rows))
    )


def compared(stories: Sequence[Story]) -> str:
    """One column a run."""
    rows: list[list[str]] = [["images seen", *(f"{one.images:,}" for one in stories)]]
    losses = [recent_loss(one.run.path) for one in stories]
    rows.append([f"loss, mean of the log's last {RECENT} lines", *("-" if x is None else f"{x:.4f}" for x in losses)])
    found = [one.latest("quality") for one in stories]
    for key, words in ({"frechet": "Frechet distance"} | NAMES).items():
        cells = [number(one["measures"][key]) if one and key in one["measures"] else "-" for one in found]
        if any(cell != "-" for cell in cells):
            rows.append([words, *cells])
    rows.append(["features", *(f"{one['features']['name']}, n = {one['n']:,}" if one else "-" for one in found)])
    ways = {(one["features"]["sha256"], one["reference"]["sha256"], one["n"]) for one in found if one}
    warned = "These distances are not comparable: features, reference or n differ."
    return table(["", *(one.name for one in stories)], rows) + (text(warned, "warning") if len(ways) > 1 else "")


@dataclass(frozen=True)
class Story:
    """One run and all that is known of it."""

    run: Run
    name: str
    log: list[dict[str, Any]]
    evaluations: list[dict[str, Any]]
    images: int  # seen by its newest checkpoint
    strip: bytes | None  # a PNG of the way out of the noise

    def latest(self, kind: str) -> dict[str, Any] | None:
        """What evaluate or compare found last, None where they never ran."""
        return next((one for one in reversed(self.evaluations) if one.get("kind") == kind), None)
