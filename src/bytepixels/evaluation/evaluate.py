"""The verb evaluate: sample quality of a model, reconstruction quality of an autoencoder."""

from typing import Any

from ..requests.evaluate import Quality
from ..runs.run_directory import open_run
from .reconstruction import evaluate_reconstruction
from .sample_quality import evaluate_quality


def evaluate(request: Quality) -> dict[str, Any]:
    """Measure a run, print the card, append the record to RUN/eval.jsonl, and return it."""
    run = open_run(request.run)
    return evaluate_quality(request) if run.config.autoencoder is None else evaluate_reconstruction(run, request)
