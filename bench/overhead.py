"""What a sampler's step costs beside its network: ours, the bare tensor operations it needs, diffusers' scheduler.step.

    python -m bench.overhead --clock cpu

Whole chains of STEPS steps with a network that does nothing (it returns what it was given, as the noise in it), so that
what is measured is the bookkeeping; in turn, medians of the rounds' ratios. Bare are the fewest elementwise operations
in which the method's formulas can be written with their coefficients known: what reads x0 out of the network and clips
it, what combines x and the estimates, and the noise drawn.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bytepixels import SAMPLERS, Denoiser, GaussianDiffusion, clipped, trajectory
from bytepixels.runs.run_directory import provenance

from .machine import machine, seconds
from .steps import spread

STEPS = 25


class Operations(NamedTuple):
    """Of one step, on whole images."""

    clips: int
    products: int
    sums: int
    draws: int = 0


BARE = {  # an estimate of x0 takes 2 products and a sum; each term of a combination a product
    "ddim": Operations(1, 4, 2),
    "ddpm": Operations(1, 5, 3, draws=1),
    "dpmpp_2m": Operations(1, 5, 4),
    "heun": Operations(2, 10, 6),
    "unipc_2": Operations(1, 9, 6),  # the corrector has four terms, the predictor three
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--json", type=Path, default=Path("bench/overhead.json"))
    options = parser.parse_args()
    rows = [measure(method, batch, options.rounds, options.clock) for method in BARE for batch in (1, 16)]
    print("| method | batch | ours, µs a step | ours / bare | diffusers / ours |\n|---|---|---|---|---|")
    for row in rows:
        ratios = ("{1:.2f} ({0:.2f}, {2:.2f})".format(*row[key]) for key in ("times_bare", "diffusers_times_ours"))
        print(f"| {row['method']} | {row['batch']} | {row['microseconds'][1]:.0f} | {' | '.join(ratios)} |")
    found = {"made_by": provenance(), "machine": machine(torch.device("cpu")), "clock": options.clock, "rows": rows}
    options.json.write_text(json.dumps(found, indent=1) + "\n")


def measure(method: str, batch: int, rounds: int, clock: str) -> dict[str, Any]:
    """One row: our step, and the ratios round by round."""
    x = torch.randn(batch, 3, 32, 32)
    chains = ours(method, x), bare(method, x), theirs(method, x)
    times = [[seconds(make(), clock) for make in chains] for _ in range(rounds + 1)][1:]  # the first is to warm up
    return {
        "method": method,
        "batch": batch,
        "microseconds": spread([own / STEPS * 1e6 for own, _, _ in times]),
        "times_bare": spread([own / least for own, least, _ in times]),
        "diffusers_times_ours": spread([other / own for own, _, other in times]),
    }


Chain = Callable[[], Callable[[], object]]  # makes ready, and gives what is timed


def ours(method: str, x: Tensor) -> Chain:
    """Our steps, as `sample` goes through them."""
    levels = GaussianDiffusion().levels(STEPS, "log_snr" if method == "heun" else "trailing")
    denoise = clipped(Denoiser(lambda x, t: x))
    return lambda: lambda: [None for _ in trajectory(x, levels, denoise, SAMPLERS[method])]


def bare(method: str, x: Tensor) -> Chain:
    """As many operations as the method's formulas have."""
    clips, products, sums, draws = BARE[method]

    @torch.no_grad()
    def chain() -> None:
        for _ in range(STEPS):
            for _ in range(clips):
                x.clamp(-1.0, 1.0)
            for _ in range(products):
                x * 0.5
            for _ in range(sums):
                x + x
            for _ in range(draws):
                torch.randn_like(x)

    return lambda: chain


def theirs(method: str, x: Tensor) -> Chain:
    """diffusers' steps. Its Heun is called twice for each of ours, and does half of one in each call."""
    import diffusers

    made: dict[str, Any] = {
        "ddim": diffusers.DDIMScheduler(),
        "ddpm": diffusers.DDPMScheduler(),
        "dpmpp_2m": diffusers.DPMSolverMultistepScheduler(),
        "heun": diffusers.HeunDiscreteScheduler(),
        "unipc_2": diffusers.UniPCMultistepScheduler(),
    }
    scheduler = made[method]

    @torch.no_grad()
    def chain() -> None:
        state = x
        for t in scheduler.timesteps:
            state = scheduler.step(scheduler.scale_model_input(state, t), t, state).prev_sample

    def ready() -> Callable[[], object]:
        scheduler.set_timesteps(STEPS)
        return chain

    return ready


if __name__ == "__main__":
    main()
