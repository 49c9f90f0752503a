"""Bits per dimension of images, by the chain's bound and by the ODE; their table and their curve."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.denoiser import Denoiser
from ..core.levels import Level, Process
from ..core.likelihood import Bound, Estimate, Measured, bound_terms, ode_bits, prior_term
from ..randomness import SeededNoise
from .averages import joined, mean_and_error, parts, rows_of


@dataclass(frozen=True)
class BitsPlan:
    """Settings of a measurement of bits per dimension."""

    process: Process
    levels: Sequence[Level]  # the chain's; () measures no chain
    variances: tuple[str, ...]
    ode_steps: int  # 0 measures no ODE
    probes: int
    dequantisation: str
    batch: int
    clip: bool  # the chain's estimates of x0, to the range of pixels

    @property
    def evaluations(self) -> int:
        """Evaluations of the network for one image; the ODE's also run `probes` passes back each."""
        ode = 4 * self.ode_steps + (self.dequantisation == "noise") if self.ode_steps else 0
        return max(len(self.levels) - 1, 0) + ode


@dataclass(frozen=True)
class Bits:
    """Bits per dimension of n images."""

    bounds: dict[str, Bound]  # for each variance: prior [n], terms [steps, n]
    ode: Measured | None  # [n]


def measure_bits(
    denoiser: Denoiser,
    plan: BitsPlan,
    x0: Tensor,
    label: Tensor | None,
    seeds: Sequence[int],
    count: Callable[[int], None] = lambda images: None,
) -> Bits:
    """Bits of x0 [n, C, H, W] (256 grey levels in -1..1), each with its label. Image k's noise depends on seeds[k].

    count: called with the number of images at every evaluation of the network.
    """
    chains, odes = [], []
    for part in parts(len(x0), plan.batch):
        own = replace(denoiser, label=rows_of(label, part))
        if plan.levels:
            estimate = _counted(own, count, plan.clip)
            terms = bound_terms(x0[part], plan.levels, estimate, SeededNoise(seeds[part]), plan.variances)
            chains.append(torch.stack(list(terms), dim=1))  # [variances, steps, B]
        if plan.ode_steps:
            estimate = _counted(own, count, clip=False)
            denoise = lambda x, level, estimate=estimate: estimate(x, level)[0]  # noqa: E731
            options = (plan.ode_steps, plan.probes, SeededNoise(seeds[part]), plan.dequantisation)
            odes.append(ode_bits(x0[part], plan.process, denoise, *options))
    ode = Measured(*(joined(list(field)) for field in zip(*odes, strict=True))) if odes else None
    if not chains:
        return Bits({}, ode)
    prior = prior_term(x0, plan.levels[0], plan.process.sigma_data).cpu().double()
    by_variance = zip(plan.variances, joined(chains), strict=True)
    return Bits({variance: Bound(prior, terms) for variance, terms in by_variance}, ode)


def _counted(denoiser: Denoiser, count: Callable[[int], None], clip: bool) -> Estimate:
    def estimate(x: Tensor, level: Level) -> tuple[Tensor, Tensor | None]:
        count(len(x))
        x0, fraction = denoiser.estimate(x, level)
        return x0.clamp(-1, 1) if clip else x0, fraction

    return estimate


def gathered(bits: Bits, gather: Callable[[Tensor], Tensor]) -> Bits:
    """The bits of all images, gathered from every rank: `gather` concatenates [..., share]."""
    bounds = {variance: Bound(*map(gather, bound)) for variance, bound in bits.bounds.items()}
    return Bits(bounds, None if bits.ode is None else Measured(*map(gather, bits.ode)))


def numbers(bits: Bits) -> dict[str, Any]:
    """The means over the images and their standard errors, as a record of eval.jsonl."""
    found: dict[str, Any] = {}
    for variance, bound in bits.bounds.items():
        total, error = mean_and_error(bound.total)
        found[variance] = {
            "L_T": bound.prior.mean().item(),
            "L_t": bound.terms[:-1].sum(0).mean().item(),
            "L_0": bound.terms[-1].mean().item(),
            "total": total,
            "standard_error": error,
        }
    if bits.ode is not None:
        total, error = mean_and_error(bits.ode.value)
        probes = bits.ode.standard_error.square().mean().sqrt().item() / len(bits.ode.value) ** 0.5
        known = None if math.isnan(probes) else probes  # a single probe does not tell
        found["ode"] = {"total": total, "standard_error": error, "of_it_probes": known}
    return found


def table(found: dict[str, Any]) -> Iterator[str]:
    """Format the numbers as lines of text."""
    yield f"{'bits/dim':<18}{'L_T':>9}{'sum L_t':>10}{'L_0':>9}{'total':>10}  standard error"
    for name, row in found.items():
        if name == "ode":
            probes = row["of_it_probes"]
            share = "" if probes is None else f" ({probes:.4f} of it from the probes)"
            yield f"{'ODE':<18}{'':>28}{row['total']:>10.4f}  {row['standard_error']:.4f}{share}"
        else:
            terms = f"{row['L_T']:>9.4f}{row['L_t']:>10.4f}{row['L_0']:>9.4f}"
            yield f"{'chain, ' + name:<18}{terms}{row['total']:>10.4f}  {row['standard_error']:.4f}"


def plot_terms(bits: Bits, levels: Sequence[Level], title: str, path: Path) -> None:
    """Plot each term of the bound against its timestep, on logarithmic axes, for each variance."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes, t = figure.subplots(), [level.t + 1 for level in levels[:-1]]
    for variance, bound in bits.bounds.items():
        axes.plot(t, bound.terms.mean(1), marker="." if len(t) < 60 else None, label=f"variance {variance}")
    axes.set(xscale="log", yscale="log", xlabel="t + 1", ylabel="bits/dim of the step from t", title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
