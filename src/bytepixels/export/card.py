"""The model card of a run: README.md for the hub, from the run's own records."""

from ..runs.overview import Overview
from ..runs.run_directory import Run
from .hand_over import without_paths


def model_card(one: Overview, run: Run, repository: str, license: str, data: str, samples: str) -> str:
    """Markdown, with the hub's front matter. data: what the training images are called. samples: an image beside it."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("bytepixels.export", "")
    engine = Environment(
        loader=loader, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined
    )
    channels, height, width = run.shape
    return engine.get_template("card.md").render(
        one=one,
        run=run,
        config=run.config,
        drawn=run.config.sample,
        repository=repository,
        name=repository.rpartition("/")[2],
        license=license,
        data=data,
        samples=samples,
        channels=channels,
        height=height,
        width=width,
        begun=without_paths(run.data.get("from")),
        imported=without_paths(run.data.get("imported")),
    )
