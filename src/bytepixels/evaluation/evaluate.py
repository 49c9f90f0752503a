"""evaluate RUN: of a model how good its samples are, of an autoencoder what it makes of images."""

from typing import Any

from ..requests.evaluate import Quality
from ..runs.run_directory import open_run
from .reconstruction import evaluate_reconstruction
from .sample_quality import evaluate_quality


def evaluate(request: Quality) -> dict[str, Any]:
    """Measure a run, say the card and return its record, which is kept in RUN/eval.jsonl."""
    run = open_run(request.run)
    return evaluate_quality(request) if run.config.autoencoder is None else evaluate_reconstruction(run, request)
