"""report RUN [RUN2 ...]: one HTML file that needs no network, with all there is to see of a run."""

import shlex
from collections.abc import Iterator
from html import escape
from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor

from .. import events
from ..files import write_whole
from ..images import grid, to_pil
from ..requests.evaluate import Report
from ..runs.checkpoints import list_checkpoints
from ..runs.overview import read_lines, read_log
from ..runs.run_directory import Run, make_folder, open_run
from ..sampling.load_weights import read_checkpoint
from ..sampling.trained_model import TrainedModel
from .charts import training_charts
from .html import folded, page
from .sections import Story, compared, sections

STATES = 10  # columns of the denoising strip
NOISE_STD = 0.6  # the most that is shown, where pixels are -1..1: so that what is in the noise can be seen


def report(request: Report) -> Path:
    """Write the file and return its path. InputError where a run cannot be read."""
    stories: list[Story] = []
    for path in request.runs:
        run = open_run(path)
        name = path.absolute().name
        if any(name == one.name for one in stories):
            name = str(path)
        stories.append(tell(run, name, request))
    out = request.out or stories[0].run.path / "report.html"
    make_folder(out.parent, "--out")
    write_whole(out, page(" and ".join(one.name for one in stories), body(stories)))
    events.say(out)
    return out


def tell(run: Run, name: str, request: Report) -> Story:
    """All that is known of a run; draws the strip."""
    begun = bool(list_checkpoints(run.checkpoints))
    images = read_checkpoint(run, None, lambda path, state: state["images"])[1] if begun else 0
    strip = request.strip if run.config.autoencoder is None else 0
    drawn = way_out_of_noise(run, strip, request.device) if strip and begun else None
    log, evaluations = list(read_log(run.path)), list(read_lines(run.path / "eval.jsonl"))
    return Story(run, name, log, evaluations, images, None if drawn is None else png(drawn))


def body(stories: list[Story]) -> Iterator[str]:
    """The page, piece by piece."""
    title = " and ".join(one.name for one in stories)
    yield f"<header><h1>{escape(title)}</h1></header>"
    if len(stories) > 1:
        links = "".join(f'<li><a href="#run-{k}">{escape(one.name)}</a></li>' for k, one in enumerate(stories))
        yield f'<nav aria-label="runs"><ul>{links}</ul></nav><section><h2>Side by side</h2>{compared(stories)}'
        yield f'<div class="tiles">{"".join(training_charts({one.name: one.log for one in stories}))}</div></section>'
    for k, story in enumerate(stories):
        heading = f"<h2>{escape(story.name)}</h2>" if len(stories) > 1 else ""
        yield f'<section class="run" id="run-{k}">{heading}{"".join(sections(story))}</section>'
    command = shlex.join(["bytepixels", "report", *(str(one.run.path) for one in stories)])
    yield folded(
        "About this file", f"<p>It holds everything it shows, and fetches nothing.</p><pre>{escape(command)}</pre>"
    )


def way_out_of_noise(run: Run, count: int, device_name: str) -> Tensor:
    """uint8 [C, H, W]: one row an image, from noise to the sample, at even steps of the run's own sampler."""
    model = TrainedModel.open(run, device=device_name)
    settings, codec = model.settings(), model.codec
    largest = NOISE_STD if run.x0_shape == run.shape else 1.0  # whitened latents are decoded as they are
    wanted = {round(k * settings.steps / (STATES - 1)) for k in range(STATES)}
    states: list[Tensor] = []

    def watch(step: int, x: Tensor) -> None:
        if step in wanted:
            scale = (x.flatten(1).std(1) / largest).clamp(min=1).view(-1, 1, 1, 1)
            states.append(codec.to_images(x / scale if step < settings.steps else x).cpu())

    model.draw(settings, range(count), watch=watch)
    return grid(torch.stack(states, 1).flatten(0, 1), len(states))


def png(image: Tensor) -> bytes:
    """uint8 [C, H, W] as the bytes of a PNG."""
    file = BytesIO()
    to_pil(image).save(file, "PNG", optimize=True)
    return file.getvalue()
