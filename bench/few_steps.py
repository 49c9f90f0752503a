"""Few evaluations: samplers on a model's own grid beside today's choice, by distance to the converged answer.

    python -m bench.few_steps cifar10 -n 48 --out few-steps/cifar10

The converged answer is the same noise in 200 steps of unipc_3 on log_snr. Distance: root mean square over an image's
pixels in grey levels of 255, mean over seeds with its 95% interval. The run's own guidance; the network in float32.
Writes JSON, and a table (Markdown); --reference keeps the converged answer, so that a second call need not solve it.
"""

import argparse
import json
import time
from collections import deque
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from bytepixels.console import Console
from bytepixels.core.levels import Level
from bytepixels.core.samplers import trajectory
from bytepixels.events import Work, listening
from bytepixels.randomness import SeededNoise
from bytepixels.runs.run_directory import provenance
from bytepixels.sampling.conditioning import labels_of, text_of
from bytepixels.sampling.trained_model import TrainedModel, in_precision

EVALUATIONS = (5, 6, 8, 10)
PAIRS = [("unipc_3", "trailing"), ("exp_2m", "trailing"), ("exp_2c", "trailing")]
PAIRS += [(name, "own") for name in ("ddim", "dpmpp_2m", "unipc_3", "ipndm", "exp_euler", "exp_2m", "exp_2c")]
PART = 16  # seeds at a time


def solved(model: TrainedModel, sampler: str, levels: list[Level], seeds: range) -> Tensor:
    """x0 of these seeds, classes and captions in turn."""
    settings = replace(model.settings(guidance=model.run.config.sample.guidance), sampler=sampler, eta=0.0, churn=0.0)
    labels = labels_of(model.run, seeds, None)
    given = None if labels is None else torch.tensor(labels, device=model.device)
    denoise, step = model.sampling(settings, given, text_of(model.run, seeds, None, model.device))
    x = model.pure_noise(SeededNoise(seeds), levels[0])
    (last,) = deque(trajectory(x, levels, denoise, step), maxlen=1)
    return last


def measure(model: TrainedModel, n: int, reference: Path | None) -> tuple[list[dict], float]:
    """One record for every pair and number of evaluations, and the seconds that measuring the own grid took."""
    parts = [range(start, min(start + PART, n)) for start in range(0, n, PART)]
    if reference is not None and reference.is_file():
        exact = torch.load(reference)[:n]
    else:
        fine = model.process.levels(200, "log_snr")
        exact = torch.cat([solved(model, "unipc_3", fine, part) for part in parts])
        if reference is not None:
            torch.save(exact, reference)
    own, began = replace(model.settings(), spacing="own"), time.monotonic()
    model.levels(own)
    seconds, records = time.monotonic() - began, []
    with Work("solve", len(PAIRS) * sum(EVALUATIONS), "steps") as work:
        done = 0
        for budget in EVALUATIONS:
            for sampler, spacing in PAIRS:
                levels = model.levels(replace(own, steps=budget, spacing=spacing))
                x = torch.cat([solved(model, sampler, levels, part) for part in parts])
                far = 127.5 * (x.clamp(-1, 1) - exact.clamp(-1, 1)).square().mean(dim=(1, 2, 3)).sqrt()
                spread = {"distance": far.mean().item(), "interval": 1.96 * far.std().item() / n**0.5}
                records.append({"sampler": sampler, "spacing": spacing, "evaluations": budget, **spread})
                done += budget
                work.update(done)
    return records, seconds


def table(records: list[dict]) -> str:
    """Markdown: a row for every pair, the nearest of each column in bold."""
    best = {n: min(r["distance"] for r in records if r["evaluations"] == n) for n in EVALUATIONS}
    lines = ["| sampler, grid | " + " | ".join(map(str, EVALUATIONS)) + " |", "|---" * (len(EVALUATIONS) + 1) + "|"]
    for sampler, spacing in PAIRS:
        row = [r for r in records if (r["sampler"], r["spacing"]) == (sampler, spacing)]
        cells = [f"{r['distance']:.2f} ± {r['interval']:.2f}" for r in row]
        bold = [f"**{c}**" if r["distance"] == best[r["evaluations"]] else c for c, r in zip(cells, row, strict=True)]
        lines.append(f"| {sampler}, {spacing} | " + " | ".join(bold) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("-n", type=int, default=32)
    parser.add_argument("--reference", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path("few-steps"))
    options = parser.parse_args()
    with listening(Console()), torch.no_grad():
        model = TrainedModel.open(options.run, device=options.device)
        model = replace(model, run=in_precision(model.run, "float32"))
        records, seconds = measure(model, options.n, options.reference)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    result = {"run": options.run.name, "n": options.n, "own_grid_seconds": seconds, "made_by": provenance()}
    options.out.with_suffix(".json").write_text(json.dumps(result | {"records": records}, indent=1))
    options.out.with_suffix(".md").write_text(table(records))
    print(table(records), f"\nmeasuring the own grid took {seconds:.0f} s")


if __name__ == "__main__":
    main()
