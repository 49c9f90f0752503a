"""How near each deterministic sampler and grid comes to the converged answer, against network evaluations.

    python -m bench.distances runs/cifar10-small -n 16 --out distances/cifar10

The converged answer is the same noise along the probability-flow ODE in 1000 steps of unipc_3. Distance: root mean
square over an image's pixels in grey levels of 255, then the mean over seeds with its 95% interval (1.96 standard
errors). The network computes in float32 and estimates are clipped, as `sample` does. Writes a table (Markdown), a plot
and JSON.
"""

import argparse
import json
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from bytepixels.build import build_process
from bytepixels.config.sampling import SampleConfig
from bytepixels.console import Console
from bytepixels.core.gaussian_diffusion import SPACINGS, Level
from bytepixels.core.losses import pure_noise
from bytepixels.core.samplers import trajectory
from bytepixels.events import Work, listening
from bytepixels.hardware import best_device
from bytepixels.randomness import SeededNoise
from bytepixels.registries import SAMPLERS, sampler_facts
from bytepixels.runs.run_directory import Run, open_run, provenance
from bytepixels.sampling.conditioning import labels_of
from bytepixels.sampling.settings import build_sampling
from bytepixels.sampling.trained_model import TrainedModel

EVALUATIONS = (5, 6, 8, 10, 15, 20, 50, 100)
NAMES = [name for name in SAMPLERS if not sampler_facts(name).stochastic and name != "euler"]  # euler is ddim
CONVERGED = 1000


class Solver:
    """One run, one batch of seeds: images from any sampler and grid."""

    def __init__(self, run: Run, seeds: Sequence[int], device: torch.device):
        self.run = replace(run, config=replace(run.config, train=replace(run.config.train, precision="float32")))
        self.network = TrainedModel.open(run, device=device).network
        self.process = build_process(run.config)
        labels = labels_of(run, seeds, None)
        self.label = None if labels is None else torch.tensor(labels, device=device)
        first = self.process.levels(1)[0]
        self.x = pure_noise(
            torch.empty(len(seeds), *run.shape, device=device), first, SeededNoise(seeds), self.process.sigma_data
        )

    def solve(self, sampler: str, levels: Sequence[Level]) -> Tensor:
        settings = SampleConfig(sampler)
        denoise, step = build_sampling(self.network, self.run.config, settings, self.process, self.label)
        (x,) = deque(trajectory(self.x, levels, denoise, step), maxlen=1)
        return x.clamp(-1, 1)

    def fine(self, steps: int) -> list[Level]:
        """Levels even in t, from the noisiest to the cleanest."""
        return self.process.levels(steps, "linspace")


def distance(x: Tensor, exact: Tensor) -> Tensor:
    """[B] in grey levels."""
    return 127.5 * (x - exact).square().mean(dim=(1, 2, 3)).sqrt()


def measure(solver: Solver) -> tuple[dict, list[dict]]:
    """The converged answer's own uncertainty, and one record for every sampler, grid and number of evaluations."""
    exact = solver.solve("unipc_3", solver.fine(CONVERGED))
    others = {"half the steps": ("unipc_3", CONVERGED // 2), "dpmpp_3m": ("dpmpp_3m", CONVERGED)}
    apart = {
        name: distance(solver.solve(how, solver.fine(n)), exact).mean().item() for name, (how, n) in others.items()
    }
    records = []
    plan = [(name, spacing, n) for name in NAMES for spacing in SPACINGS for n in EVALUATIONS]
    with listening(Console()), Work("solve", sum(n for *_, n in plan), "evaluations") as progress:
        done = 0
        for name, spacing, n in plan:
            steps = (n + 1) // 2 if sampler_facts(name).evaluations == 2 else n
            evaluations = 2 * steps - 1 if sampler_facts(name).evaluations == 2 else steps
            far = distance(solver.solve(name, solver.process.levels(steps, spacing)), exact)
            interval = 1.96 * far.std().item() / len(far) ** 0.5
            record = {"sampler": name, "spacing": spacing, "steps": steps, "evaluations": evaluations}
            records.append(record | {"budget": n, "distance": far.mean().item(), "interval": interval})
            done += n
            progress.update(done, f"{name} {spacing} {n}: {far.mean():.2f}")
    return apart, records


def table(records: list[dict]) -> str:
    """Markdown: each sampler on its best grid for each budget, the best of all in bold."""
    best = {n: min((r for r in records if r["budget"] == n), key=lambda r: r["distance"]) for n in EVALUATIONS}
    lines = ["| sampler | " + " | ".join(map(str, EVALUATIONS)) + " |", "|---" * (len(EVALUATIONS) + 1) + "|"]
    for name in NAMES:
        cells = []
        for n in EVALUATIONS:
            r = min((r for r in records if (r["sampler"], r["budget"]) == (name, n)), key=lambda r: r["distance"])
            text = f"{r['distance']:.2f} ± {r['interval']:.2f} {r['spacing']}"
            cells.append(f"**{text}**" if r is best[n] else text)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot(records: list[dict], path: Path) -> None:
    """A panel for every grid: distance against evaluations."""
    from matplotlib.figure import Figure

    figure = Figure((13, 7.5), layout="constrained")
    axes = figure.subplots(2, 3, sharex=True, sharey=True)
    for axis, spacing in zip(axes.flat, SPACINGS, strict=True):
        for name in NAMES:
            chosen = [r for r in records if (r["sampler"], r["spacing"]) == (name, spacing)]
            x, y, e = ([r[key] for r in chosen] for key in ("evaluations", "distance", "interval"))
            axis.errorbar(x, y, yerr=e, label=name, marker="o", markersize=3, linewidth=1, capsize=2)
        axis.set(xscale="log", yscale="log", title=spacing)
        axis.set_xticks(EVALUATIONS, [str(n) for n in EVALUATIONS], minor=False)
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    figure.supxlabel("network evaluations")
    figure.supylabel("distance to the converged answer, grey levels (RMS)")
    axes[0, 0].legend(fontsize=8, ncols=2)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("-n", type=int, default=16)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path("distances"))
    options = parser.parse_args()
    run = open_run(options.run)
    apart, records = measure(Solver(run, range(options.n), best_device(options.device)))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    result = {"run": str(options.run), "n": options.n, "converged_apart": apart, "made_by": provenance()}
    options.out.with_suffix(".json").write_text(json.dumps(result | {"records": records}, indent=1))
    options.out.with_suffix(".md").write_text(table(records))
    plot(records, options.out.with_suffix(".png"))
    print(table(records))
    print("the converged answer differs from:", ", ".join(f"{name} {far:.3g}" for name, far in apart.items()))


if __name__ == "__main__":
    main()
