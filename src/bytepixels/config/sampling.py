"""The sampling settings of a run."""

import math
from dataclasses import dataclass
from typing import Literal

from tyro.conf import FlagConversionOff

from ..choices import MAX_CHURN, OWN_SPACING, SPACINGS
from ..errors import InputError, check_choice, check_range
from ..registries import SAMPLERS, sampler_facts, takers

MAX_GUIDANCE = 1000.0


MOST_STEPS = 10_000  # where a process has no timesteps to be the limit


@dataclass(frozen=True)
class SampleConfig:
    """Sampling: how sample and the previews draw images by default."""

    sampler: str = "ddim"
    """Sampler: {SAMPLERS}; auto: the best measured for that many steps. ddpm is that of DDPM's paper and needs
    hundreds of steps, the others 10 to 50."""
    steps: int = 50
    """Sampling steps, 1 to --timesteps: more is better and slower. heun evaluates the network twice per step, others
    once. Usual: 10 to 50, ddpm up to 1000."""
    spacing: str = "auto"
    """Where the steps lie among the noise levels: {SPACINGS}; own: where they suit the trained model
    best, which is measured once. auto: what suits the sampler."""
    eta: float = 0.0
    """Fresh noise in each step of ddim: 0 (none, deterministic) to 1 (as much as ddpm)."""
    churn: float = 0.0
    """Fresh noise in euler, ddim and heun: edm's S_churn, which each step divides by --steps. 0 is none."""
    renoise: float = 0.0
    """Share of the noise that each step of ddim draws afresh, of a run with --objective flow_map: 0 (none) to 1 (all,
    as consistency models do)."""
    reverse_variance: Literal["auto", "small", "large", "learned"] = "auto"
    """Variance of ddpm's steps. auto: learned where the run learned it, else large with all timesteps and small with
    fewer steps."""
    guidance: float = 1.0
    """Classifier-free guidance: how strongly images follow the label or caption. 1: no guidance; usual: 1.5 to 4."""
    guidance_interval: tuple[float, float] | None = None
    """Guide only at noise levels with sigma / alpha between LOW and HIGH. Default: at all levels."""
    guidance_rescale: float = 0.0
    """Guidance rescale (Lin et al. 2024), which undoes contrast that guidance adds: 0 (off) to 1. Usual: 0 or 0.7."""
    guidance_parallel: float = 1.0
    """How much is kept of the part of guidance that only makes images stronger, their contrast and colours: 1 (all) to
    0 (none), as APG has it."""
    clip: FlagConversionOff[bool] = True
    """Clip each estimate of the clean image to the pixel range during sampling."""

    def __post_init__(self) -> None:
        check_choice("--sampler", self.sampler, ("auto", *SAMPLERS))
        check_choice("--spacing", self.spacing, ("auto", OWN_SPACING, *SPACINGS))
        check_choice("--reverse-variance", self.reverse_variance, ("auto", "small", "large", "learned"))
        check_range("--steps", self.steps, 1)
        variance = self.reverse_variance != "auto"
        check_range("--eta", self.eta, 0, 1)
        check_range("--renoise", self.renoise, 0, 1)
        check_range("--guidance", self.guidance, 0)
        check_range("--guidance", self.guidance, 0, MAX_GUIDANCE)
        check_range("--guidance-rescale", self.guidance_rescale, 0, 1)
        check_range("--guidance-parallel", self.guidance_parallel, 0, 1)
        low, high = self.guidance_interval or (0.0, 0.0)
        if not 0 <= low <= high:
            raise InputError(f"--guidance-interval must be two numbers, 0 <= LOW <= HIGH, got {low:g} {high:g}")
        check_range("--guidance-interval HIGH", high, 0)
        for name, given in (
            ("churn", self.churn > 0),
            ("eta", self.eta > 0),
            ("renoise", self.renoise > 0),
            ("reverse_variance", variance),
        ):
            if given and name not in (sampler_facts(self.sampler).options if self.sampler in SAMPLERS else ()):
                flag, value = f"--{name.replace('_', '-')}", getattr(self, name)
                raise InputError(f"{flag} {value} needs --sampler {takers(name)}, got {self.sampler}")
        if not 0 <= self.churn <= MAX_CHURN * self.steps:
            limit = math.floor(1000 * MAX_CHURN * self.steps) / 1000
            each = f"{MAX_CHURN:.3f} for each of {self.steps} steps"
            raise InputError(f"--churn must be in 0..{limit} ({each}), got {self.churn:g}")
