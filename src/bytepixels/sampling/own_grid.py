"""--spacing own: the grid that suits one model (core/own_grid.py), measured on it once, then kept beside its weights.

What is kept is the cost of every step between fine levels, so that a grid of any number of steps follows at once, and
the coefficient of core/own_grid.py that led nearest to the ends of the fine paths, which is another for every model. It
lies in RUN/grids, or in the cache where the run's folder cannot be written, under a name that the weights decide.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import events
from ..config.sampling import SampleConfig
from ..core.levels import Level, Process
from ..core.own_grid import COEFFICIENT, cheapest_levels, step_costs
from ..data import default_cache
from ..events import Work
from ..files import read_sealed, reason, write_sealed
from ..runs.run_directory import Run, provenance

FORMAT, FOLDER = 1, "grids"
STEPS, SPACING, SAMPLER = 60, "log_snr", "dpmpp_2m"  # of the fine solution
COEFFICIENTS = (1.0, 1.05, 1.1, 1.15, 1.25)  # of which one is chosen by trial
TRIAL: dict[str, Any] = {"sampler": "exp_2m", "steps": 6}
VALUES = 1 << 16  # of x0, in all seeds together: 21 seeds of 3 x 32 x 32, which 64 do not better
LEAST_SEEDS, MOST_SEEDS = 8, 128
PART = 1 << 16  # of x0, at a time: a path of 60 levels holds 121 times as many
FIRST_SEED = 3_000_000_000  # far from those that people draw
DIGITS = 6  # of a cost
Solve = Callable[[SampleConfig, Sequence[int], list[Level]], tuple[list[Tensor], list[Tensor]]]


@dataclass(frozen=True)
class StepCosts:
    """What every step between the fine levels costs on one model."""

    times: list[float]  # t of the fine levels, noisiest first, without the clean end
    costs: Tensor  # float64 [L + 1, L + 1], as step_costs has them
    coefficient: float = COEFFICIENT

    def levels(self, process: Process, steps: int) -> list[Level]:
        """`steps` levels, noisiest first, then CLEAN; more than there are fine ones lie as those do."""
        if steps > len(self.times):
            return process.levels(steps, SPACING)
        return process.levels(times=[self.times[i] for i in cheapest_levels(self.costs, steps, self.coefficient)])

    def record(self) -> dict[str, Any]:
        """As a file holds it."""
        rows = [[float(f"{cost:.{DIGITS}g}") for cost in row[i + 1 :].tolist()] for i, row in enumerate(self.costs)]
        return {"times": self.times, "costs": rows, "coefficient": self.coefficient}

    @classmethod
    def read(cls, record: dict[str, Any]) -> "StepCosts":
        """The inverse of `record`; KeyError, TypeError or ValueError for what is none."""
        times, rows = [float(t) for t in record["times"]], record["costs"]
        if [len(row) for row in rows] != list(range(len(times), -1, -1)):
            raise ValueError("it does not have a cost for every step")
        costs = torch.tensor([[math.inf] * (len(times) + 1 - len(row)) + row for row in rows], dtype=torch.float64)
        return cls(times, costs, float(record["coefficient"]))


def own_levels(run: Run, network: nn.Module, process: Process, settings: SampleConfig, solve: Solve) -> list[Level]:
    """The grid of settings.steps steps that suits the network, clipped as the settings say.

    solve(settings, seeds, levels): the path of these seeds, x at every level and the estimates of x0 at all but the
    last. It is taken without guidance, with which it bends at the same levels, for twice the evaluations (RESULTS.md).
    What is not kept yet is measured, and said.
    """
    fine = SampleConfig(SAMPLER, min(STEPS, getattr(process, "T", STEPS)), SPACING, clip=settings.clip)
    pixels = math.prod(run.x0_shape)
    count = min(max(VALUES // pixels, LEAST_SEEDS), MOST_SEEDS)
    key = {"format": FORMAT, "weights": hash_of(network), "steps": fine.steps, "seeds": count, "clip": fine.clip}
    name = f"{hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]}.json"
    places = [run.path / FOLDER / name, default_cache() / FOLDER / name]
    known = next(_kept(places, key), None)
    if known is None:
        known = _measured(process, fine, range(FIRST_SEED, FIRST_SEED + count), max(PART // pixels, 1), solve)
        _keep(places, {"key": key, **known.record(), "made_by": provenance()})
    return known.levels(process, settings.steps)


def hash_of(network: nn.Module) -> str:
    """sha256 of all weights, under their names; the same of a network that is compiled."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(f"{name.removeprefix('_orig_mod.')} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _measured(process: Process, fine: SampleConfig, seeds: range, size: int, solve: Solve) -> StepCosts:
    """Solve the path of the seeds finely, `size` of them at a time, and try every step on it."""
    levels = process.levels(fine.steps, fine.spacing)
    events.note(f"--spacing own: measuring once where this model's path bends, with {len(seeds)} seeds")
    parts = [seeds[start : start + size] for start in range(0, len(seeds), size)]
    total, ends = torch.zeros(len(levels), len(levels), dtype=torch.float64), list[Tensor]()
    with Work("measure", (1 + len(COEFFICIENTS)) * len(parts), "paths") as work:
        for part in parts:
            path, estimates = solve(fine, part, levels)
            total += len(part) * step_costs(path, estimates, levels, process.sigma_data)
            ends.append(path[-1])
            work.update(len(ends))
        found = [StepCosts([level.t for level in levels[:-1]], total / len(seeds), one) for one in COEFFICIENTS]
        if len(levels) - 1 <= TRIAL["steps"]:  # one grid whatever the coefficient
            return found[0]
        missed = []
        for one in found:
            grid, trial = one.levels(process, TRIAL["steps"]), replace(fine, **TRIAL)
            last = torch.cat([solve(trial, part, grid)[0][-1] for part in parts])
            missed.append(float((last - torch.cat(ends)).square().mean(dim=(1, 2, 3)).sqrt().mean()))
            work.update((1 + len(missed)) * len(parts))
    return found[missed.index(min(missed))]


def _kept(places: Sequence[Path], key: dict[str, Any]) -> Iterator[StepCosts]:
    """What was measured before. A damaged file is said, and passed over."""
    for path in places:
        try:
            record = read_sealed(path)
            if record["key"] == key:
                yield StepCosts.read(record)
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError) as error:
            events.note(f"warning: {path} cannot be read ({reason(error)}); it is measured again")


def _keep(places: Sequence[Path], record: dict[str, Any]) -> None:
    """Write the record to the first place that can be written; where none can, it is measured again next time."""
    for path in places:
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_sealed(path, record)
            return events.note(f"kept in {path}")
