"""The processes against their definitions and themselves: every way to the same number, every way there and back."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..core.denoiser import Denoiser
from ..core.gaussian_diffusion import EDMProcess, GaussianDiffusion, RectifiedFlow
from ..core.levels import Level, Process
from ..core.prediction import PREDICTIONS, target
from ..core.schedules import SCHEDULES
from ..errors import InputError
from .common import Check, largest

STEPS = 40


def processes() -> dict[str, Process]:
    """Every process of the package; the discrete one with every schedule."""
    discrete: dict[str, Process] = {name: GaussianDiffusion(1000, schedule) for name, schedule in SCHEDULES.items()}
    return {**discrete, "EDM": EDMProcess(), "rectified flow": RectifiedFlow()}


def process_checks() -> list[Check]:
    """Five rows for every process."""
    rows = []
    for name, process in processes().items():
        levels = process.levels(STEPS)[:-1]
        rows += [
            Check(f"{name}: levels and add_noise agree", _disagreement(process, levels), 0, 1e-12),
            Check(f"{name}: level() finds its levels", _inversion(process, levels), 0, 1e-6),
            Check(f"{name}: eps, x0 and v give x0 back", _round_trip(process, levels), 0, 1e-9),
            Check(f"{name}: retime keeps its own grid", _apart(process.retime(levels), levels), 0, 1e-6),
            Check(f"{name}: retime refuses another's", float(_refuses(process, levels)), 1, 0),
        ]
    return rows


def _times(process: Process, levels: Sequence[Level]) -> Tensor:
    """t of every level, [len(levels)], as the process counts it."""
    return torch.tensor([level.t for level in levels], dtype=torch.int64 if process.whole_times else torch.float64)


def _pictures(levels: Sequence[Level]) -> tuple[Tensor, Tensor]:
    """x0 and noise for one image at each level, [len(levels), 1, 2, 2] float64."""
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, len(levels), 1, 2, 2, dtype=torch.float64, generator=generator)
    return x0, noise


def _disagreement(process: Process, levels: Sequence[Level]) -> float:
    """The grid, alpha_sigma(t) and add_noise against what t stands for by the process' definition."""
    t, (x0, noise) = _times(process, levels), _pictures(levels)
    alpha, sigma = torch.tensor(_defined(process, levels), dtype=torch.float64)[..., None, None, None]
    grid = torch.tensor([level[1:] for level in levels], dtype=torch.float64).T[..., None, None, None]
    x_t, _ = process.add_noise(x0, t, noise)
    parts = [(x_t - alpha * x0 - sigma * noise) / sigma]
    for one, other in (grid, process.alpha_sigma(t, torch.float64)):
        parts += [one - alpha, (other - sigma) / sigma]
    return largest(torch.cat([part.flatten() for part in parts]))


def _defined(process: Process, levels: Sequence[Level]) -> tuple[list[float], list[float]]:
    """alpha and sigma at every t: from the product of 1 - beta up to t, exp(4 t) for EDM, 1 - t and t for the flow."""
    if isinstance(process, GaussianDiffusion):
        kept = [math.prod(1 - beta for beta in process.betas[: int(level.t) + 1].tolist()) for level in levels]
        return [math.sqrt(part) for part in kept], [math.sqrt(1 - part) for part in kept]
    if isinstance(process, EDMProcess):
        return [1.0 for _ in levels], [math.exp(4 * level.t) for level in levels]
    return [1 - level.t for level in levels], [level.t for level in levels]


def _inversion(process: Process, levels: Sequence[Level]) -> float:
    """level() of a level's own half_log_snr: how far it is from that level. At pure noise there is no such number."""
    known = [level for level in levels if level.alpha > 0]
    return _apart([process.level(level.half_log_snr) for level in known], known)


def _apart(one: Sequence[Level], other: Sequence[Level]) -> float:
    """The largest difference of t, alpha and sigma, relative where they are above 1."""
    one_, other_ = (torch.tensor(levels, dtype=torch.float64) for levels in (one, other))
    return largest((one_ - other_) / other_.abs().clamp(min=1))


def _round_trip(process: Process, levels: Sequence[Level]) -> float:
    """x0 from a Denoiser whose network answers with the very target: every prediction, at every level."""
    worst = []
    t, (x0, noise) = _times(process, levels), _pictures(levels)
    alpha, sigma = process.alpha_sigma(t, torch.float64)
    x_t, _ = process.add_noise(x0, t, noise)
    for prediction in PREDICTIONS:
        answers = target(prediction, x0, noise, alpha, sigma, process.sigma_data)
        for i, level in enumerate(levels):
            if level.alpha == 0 and prediction == "eps":  # the noise says nothing about x0 there
                continue
            denoise = Denoiser(lambda x, t, answer=answers[i : i + 1]: answer, prediction, process.sigma_data)
            worst.append(largest(denoise(x_t[i : i + 1], level) - x0[i : i + 1]))
    return largest(torch.tensor(worst))


def _refuses(process: Process, levels: Sequence[Level]) -> bool:
    """The same signal-to-noise ratios, but smaller alpha and sigma: another process' levels."""
    try:
        process.retime([Level(level.t, 0.9 * level.alpha, 0.9 * level.sigma) for level in levels])
    except InputError:
        return True
    return False
