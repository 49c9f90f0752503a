"""Compare a run's loss at every noise level with two exact ones: the trivial guess's and the optimal denoiser's."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.levels import Level, Process
from ..core.likelihood import noise_range
from ..randomness import SeededNoise
from .averages import mean_and_error, parts, rows_of
from .optimal_denoiser import OptimalDenoiser, WienerDenoiser

Predict = Callable[[Tensor, Level, Tensor | None], Tensor]  # x_t [B, C, H, W], level, label [B] or None -> x0
ALIKE = 1e-6  # squared error, of -1..1: if the ideal gains less on the trivial guess, there is nothing to learn
COPY_PERPLEXITY = 2.0  # below this perplexity the ideal knows which image it was: its error is a copyist's


def levels_of(process: Process, count: int) -> list[Level]:
    """Up to `count` levels evenly spaced in log SNR, noisiest first; for integer times, the nearest distinct ones."""
    nodes = torch.linspace(*noise_range(process), count, dtype=torch.float64).tolist()
    if not process.whole_times:
        return [process.level(node) for node in nodes]
    known = process.levels()[:-1]
    return list(dict.fromkeys(min(known, key=lambda level: abs(level.half_log_snr - node)) for node in nodes))


class Errors(NamedTuple):
    """Squared errors of x0 per dimension, [levels, n] each, all on the same noisy images."""

    run: Tensor
    trivial: Tensor
    ideal: Tensor | None  # of the optimal denoiser; None for held-out images, which are not in its training set
    entropy: Tensor | None  # [levels, n] nats, of which training image it was


def measure_errors(
    run: Predict,
    trivial: WienerDenoiser,
    ideal: OptimalDenoiser | None,
    levels: Sequence[Level],
    x0: Tensor,
    label: Tensor | None,
    seeds: Sequence[int],
    batch: int,
    count: Callable[[int], None] = lambda images: None,
) -> Errors:
    """Measure the errors on x0 [n, C, H, W]; image k's noise, different at every level, depends on seeds[k].

    count: called with the number of images at every evaluation of the run.
    """
    noise, rows = SeededNoise(seeds), []
    for level in levels:
        x, guesses = level.alpha * x0 + level.sigma * noise(x0), []
        for part in parts(len(x0), batch):
            guesses.append(run(x[part], level, rows_of(label, part)))
            count(len(guesses[-1]))
        compared, entropy = [torch.cat(guesses), trivial(x, level)], []
        if ideal is not None:  # of all images at once: it goes through its whole set each time
            copy, nats = ideal.posterior(x, level, label)
            compared, entropy = [*compared, copy], [nats]
        errors = [(guess - x0).square().mean(dim=(1, 2, 3)) for guess in compared]
        rows.append(torch.stack([*errors, *entropy]).cpu().double())  # [2 or 4, n]
    every = list(torch.stack(rows, dim=1))  # [2 or 4, levels, n]
    return Errors(every[0], every[1], *(every[2:] or (None, None)))


def gathered(errors: Errors, gather: Callable[[Tensor], Tensor]) -> Errors:
    """The errors of all images, gathered from every rank: `gather` concatenates [..., share]."""
    return Errors(*(None if part is None else gather(part) for part in errors))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Verdict:
    """The errors as fractions of the way from the trivial guess (0) to the optimum (1), with standard errors.

    sum(trivial - run) / sum(trivial - ideal), summed over levels and images. The ideal of a finite set is better than
    anything that does not know the set: with few images, 1 is out of reach without memorising, already where it is no
    plain copy. On held-out images it has no error; the share of the trivial one's that it has on training images
    stands for it.
    """

    perplexity: list[float]  # exp(mean entropy) at every level: how many training images it may have been
    learnt: tuple[float, float] | None  # on training images, over the levels where the perplexity is 2 or more
    learnt_held_out: tuple[float, float] | None
    copied: tuple[float, float] | None  # on training images, over the other levels
    memorised: tuple[float, float] | None  # `copied`, less the same on held-out images
    lower_on_training: list[int]  # levels whose training error is below the held-out by over 2 standard errors
    worse_than_trivial: list[int]  # levels whose training error is above the trivial one by over 2 standard errors

    @property
    def memorises(self) -> bool:
        """True if it goes further towards the copies on training images, by over 2 standard errors."""
        return self.memorised is not None and self.memorised[0] > 2 * self.memorised[1]


def loss_verdict(training: Errors, held_out: Errors | None) -> Verdict:
    """Compare the errors on training images with those on held-out ones, where there are any."""
    assert training.ideal is not None
    assert training.entropy is not None
    perplexity = training.entropy.mean(1).exp()
    gap, copy = training.trivial - training.ideal, perplexity < COPY_PERPLEXITY
    learnt, copied = _share(training, gap, ~copy), _share(training, gap, copy)
    learnt_held_out = memorised = None
    if held_out is not None:
        gain = 1 - training.ideal.mean(1, keepdim=True) / training.trivial.mean(1, keepdim=True)  # [levels, 1]
        gap = gain * held_out.trivial
        learnt_held_out, copied_held_out = _share(held_out, gap, ~copy), _share(held_out, gap, copy)
        if copied is not None and copied_held_out is not None:
            memorised = copied[0] - copied_held_out[0], math.hypot(copied[1], copied_held_out[1])
    lower = [] if held_out is None else _above(held_out.run, training.run)
    worse = _above(training.run - training.trivial, torch.zeros_like(training.run))
    return Verdict(perplexity.tolist(), learnt, learnt_held_out, copied, memorised, lower, worse)


def _share(errors: Errors, gap: Tensor, chosen: Tensor) -> tuple[float, float] | None:
    """sum(trivial - run) / sum(gap) over the chosen levels, gap [levels, n]; None if there is nothing to gain."""
    ahead, between = (errors.trivial - errors.run)[chosen].sum(0), gap[chosen].sum(0)  # [n] each
    if not between.mean() > ALIKE:
        return None
    share = (ahead.mean() / between.mean()).item()
    return share, mean_and_error(ahead - share * between)[1] / between.mean().item()  # the error of a ratio


def _above(errors: Tensor, others: Tensor) -> list[int]:
    """The levels at which one set's mean exceeds another's by over 2 standard errors."""
    pairs = zip(map(mean_and_error, errors), map(mean_and_error, others), strict=True)
    return [k for k, ((a, da), (b, db)) in enumerate(pairs) if a - b > 2 * math.hypot(da, db)]
