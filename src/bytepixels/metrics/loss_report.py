"""What the errors of a run say: as numbers, as a curve, and in words."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..core.levels import Level
from .averages import mean_and_error
from .loss_analysis import COPY, Errors, Verdict

TELLING = 0.05  # a standard error of the share above which nothing is concluded from it


def numbers(levels: Sequence[Level], training: Errors, held_out: Errors | None, verdict: Verdict) -> dict[str, Any]:
    """The curves and the shares, as eval.jsonl holds them."""
    curves = {"training": training.run, "trivial": training.trivial, "ideal": training.ideal}
    curves |= {} if held_out is None else {"held_out": held_out.run, "held_out_trivial": held_out.trivial}
    named = {"learnt", "learnt_held_out", "copied", "memorised"}
    return {
        **{name: getattr(verdict, name) for name in sorted(named)},
        "log_snr": [2 * level.half_log_snr for level in levels],
        "perplexity": verdict.perplexity,
        "errors": {name: list(map(mean_and_error, rows)) for name, rows in curves.items() if rows is not None},
    }


def plot_errors(
    levels: Sequence[Level], training: Errors, held_out: Errors | None, verdict: Verdict, title: str, path: Path
) -> None:
    """The errors, as shares of the trivial guess's, against log SNR; shaded where the ideal knows the image."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    assert training.ideal is not None
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    x = torch.tensor([2 * level.half_log_snr for level in levels])
    axes.axhline(1, color="grey", linestyle="--", label="trivial: linear, number by number")
    axes.plot(x, (training.run / training.trivial.mean(1)[:, None]).mean(1), marker="o", markersize=3, label="run")
    if held_out is not None:
        share = (held_out.run / held_out.trivial.mean(1)[:, None]).mean(1)
        axes.plot(x, share, marker="s", markersize=3, linestyle=":", label="run, held-out images")
    axes.plot(x, training.ideal.mean(1) / training.trivial.mean(1), color="black", label="ideal of the training set")
    copies = torch.tensor(verdict.perplexity) < COPY
    if copies.any():
        edge = (x[copies][0] + x[~copies][-1]) / 2 if (~copies).any() else x[0]
        axes.axvspan(float(edge), float(x[-1]), color="tab:red", alpha=0.1, label="the ideal knows the image here")
    axes.set(xlabel="log SNR (noisy to clean)", ylabel="squared error / the trivial guess's", title=title)
    top = min(3, max(1.1, axes.get_ylim()[1]))
    for line in axes.get_lines()[1:]:  # what is higher is marked at the edge
        above = torch.as_tensor(line.get_ydata()) > top
        axes.plot(x[above], torch.full((int(above.sum()),), 0.97 * top), "^", color=line.get_color())
    axes.set_ylim(bottom=-0.02, top=top)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def sentences(levels: Sequence[Level], verdict: Verdict, held_out: bool) -> list[str]:
    """The verdict in words."""
    copies = sum(perplexity < COPY for perplexity in verdict.perplexity)
    said = []
    if verdict.learnt is None:
        known = "at every noise level the best denoiser knows which image it was"
        alike = "the images are so much alike that the trivial guess is as good as the best denoiser"
        said.append(f"Nothing can be learnt without copying: {known if copies == len(levels) else alike}.")
    elif verdict.learnt[0] < 0:
        said.append("Learnt nothing yet: its error is above that of the trivial guess (linear, pixel by pixel).")
    else:
        more = (
            ""
            if verdict.learnt_held_out is None
            else f"; the same on held-out images: {_percent(verdict.learnt_held_out)}"
        )
        free = len(levels) - copies
        said.append(f"Learnt {_percent(verdict.learnt)} of what can be learnt without copying ({free} levels){more}.")
    if verdict.copied is not None:
        first = next(k for k, perplexity in enumerate(verdict.perplexity) if perplexity < COPY)
        low = f"at low noise ({copies} levels, log SNR from {_log_snr(levels, first)}) the model is"
        way = f"{_percent(verdict.copied)} of the way from a general answer to" if verdict.copied[0] > 0 else "far from"
        said.append(f"Memorisation: {low} {way} copying its training images.")
    if verdict.memorised is not None:
        more = f"{_percent(verdict.memorised)} further than on held-out images"
        memorises = f"That is {more}: it has memorised some of its training set, or the two sets differ."
        plain = "no sign of memorising" if verdict.memorised[1] < TELLING else "too few images to tell"
        said.append(memorises if verdict.memorises else f"That is {more}: {plain}.")
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
