"""Report the errors of a run: as numbers, as a curve, and in words."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..core.levels import Level
from .averages import mean_and_error
from .loss_analysis import COPY_PERPLEXITY, Errors, Verdict

MAX_ERROR = 0.05  # a standard error of the share above which nothing is concluded from it


def numbers(levels: Sequence[Level], training: Errors, held_out: Errors | None, verdict: Verdict) -> dict[str, Any]:
    """The curves and fractions, as a record of eval.jsonl."""
    curves = {"training": training.run, "trivial": training.trivial, "ideal": training.ideal}
    if held_out is not None:
        curves |= {"held_out": held_out.run, "held_out_trivial": held_out.trivial}
    shares = ("copied", "learnt", "learnt_held_out", "memorised")
    return {
        **{name: getattr(verdict, name) for name in shares},
        "log_snr": [2 * level.half_log_snr for level in levels],
        "perplexity": verdict.perplexity,
        "errors": {name: list(map(mean_and_error, rows)) for name, rows in curves.items() if rows is not None},
    }


def plot_errors(found: dict[str, Any], title: str, path: Path) -> None:
    """Plot errors relative to the trivial guess against log SNR; shaded where the optimum identifies the image.

    found: what `numbers` returns. What is above 3 is outside of the frame.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes, x = figure.subplots(), found["log_snr"]
    errors = {name: torch.tensor([mean for mean, _ in rows]) for name, rows in found["errors"].items()}
    axes.axhline(1, color="grey", linestyle="--", label="trivial: linear, number by number")
    axes.plot(x, errors["training"] / errors["trivial"], "o-", markersize=3, label="run")
    if "held_out" in errors:
        axes.plot(x, errors["held_out"] / errors["held_out_trivial"], "s:", markersize=3, label="run, held-out images")
    axes.plot(x, errors["ideal"] / errors["trivial"], color="black", label="ideal of the training set")
    if copies := [at for at, perplexity in zip(x, found["perplexity"], strict=True) if perplexity < COPY_PERPLEXITY]:
        axes.axvspan(copies[0], x[-1], color="tab:red", alpha=0.1, label="the ideal knows the image here")
    axes.set(xlabel="log SNR (noisy to clean)", ylabel="squared error / the trivial guess's", title=title)
    axes.set_ylim(-0.02, min(3, max(1.1, axes.get_ylim()[1])))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


def sentences(levels: Sequence[Level], verdict: Verdict, held_out: bool) -> list[str]:
    """Describe the verdict in words."""
    copies = sum(perplexity < COPY_PERPLEXITY for perplexity in verdict.perplexity)
    if verdict.learnt is None:
        why = "the images are so much alike that the trivial guess is as good as the best denoiser"
        if copies == len(levels):
            why = "at every noise level the best denoiser knows which image it was"
        said = [f"Nothing can be learnt without copying: {why}."]
    elif verdict.learnt[0] < 0:
        said = ["Learnt nothing yet: its error is above that of the trivial guess (linear, pixel by pixel)."]
    else:
        other = verdict.learnt_held_out
        more = f"; the same on held-out images: {_percent(other)}" if other else ""
        free = f"what can be learnt without copying ({len(levels) - copies} levels)"
        said = [f"Learnt {_percent(verdict.learnt)} of {free}{more}."]
    if verdict.copied is not None:
        first = next(k for k, perplexity in enumerate(verdict.perplexity) if perplexity < COPY_PERPLEXITY)
        low = f"at low noise ({copies} levels, log SNR from {_log_snr(levels, first)}) the model is"
        way = f"{_percent(verdict.copied)} of the way from a general answer to" if verdict.copied[0] > 0 else "far from"
        said.append(f"Memorisation: {low} {way} copying its training images.")
    if verdict.memorised is not None:
        why = "no sign of memorising" if verdict.memorised[1] < MAX_ERROR else "too few images to tell"
        if verdict.memorises:
            why = "it has memorised some of its training set, or the two sets differ"
        said.append(f"That is {_percent(verdict.memorised)} further than on held-out images: {why}.")
    if not held_out:
        said.append("Whether it memorises cannot be told: there are no held-out images.")
    elif verdict.lower_on_training:
        said.append(f"Its error is lower on training images at log SNR {_log_snr(levels, *verdict.lower_on_training)}.")
    else:
        said.append("At no level is its error on training images below that on held-out ones.")
    if verdict.worse_than_trivial:
        said.append(f"Worse than the trivial guess at log SNR {_log_snr(levels, *verdict.worse_than_trivial)}.")
    return said


def _percent(share: tuple[float, float]) -> str:
    return f"{100 * share[0]:.1f}% ± {100 * share[1]:.1f}%"


def _log_snr(levels: Sequence[Level], *chosen: int) -> str:
    return ", ".join(f"{2 * levels[k].half_log_snr:.1f}" for k in chosen)
