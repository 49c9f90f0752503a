"""The forward process of a run, what its network predicts, and the loss."""

from dataclasses import dataclass
from inspect import signature
from typing import Literal

from ..choices import PREDICTIONS
from ..errors import InputError, check_choice, check_range
from ..registries import OBJECTIVES, PROCESSES, SCHEDULES, WEIGHTINGS, ForwardProcess, Objective, facts


def schedule_of(text: str) -> tuple[str, dict[str, float]]:
    """Parse a schedule: "cosine:s=0.02" -> ("cosine", {"s": 0.02}). InputError for an unknown name or parameter."""
    name, _, given = text.partition(":")
    schedule = SCHEDULES[check_choice("--schedule", name, SCHEDULES)]
    if not given:
        return name, {}
    _, *known = signature(getattr(schedule, "target", schedule)).parameters
    found = {}
    for part in given.split(","):
        parameter, _, value = part.partition("=")
        check_choice(f"a parameter of --schedule {name}", parameter, known)
        try:
            found[parameter] = float(value)
        except ValueError:
            raise InputError(f"--schedule {text}: {parameter} must be a number, got {value!r}") from None
    return name, found


@dataclass(frozen=True)
class ProcessConfig:
    """Diffusion: how noise is added, and what the network learns to predict."""

    diffusion: str = "ddpm"
    """The process: {PROCESSES}. ddpm: T timesteps, variance-preserving (Ho et al. 2020); edm: noise of growing sigma is
    added (Karras et al. 2022); flow: straight lines from noise to image (rectified flow)."""
    timesteps: int = 1000
    """Noise levels T of ddpm. Usual: 1000."""
    schedule: str = "linear"
    """Noise schedule of ddpm: {SCHEDULES}. linear is that of DDPM's paper, cosine is better for
    small images. Its parameters follow a colon: linear:beta_end=0.015 or cosine:s=0.02."""
    zero_terminal_snr: bool = False
    """Rescale the schedule so that its last level is pure noise (needs --prediction v or x0)."""
    prediction: Literal["eps", "x0", "v"] = "eps"
    """What the network predicts: eps (the noise, as in DDPM's paper), x0 (the clean image), or v (a mix of both that
    is well scaled at every noise level)."""
    times: Literal["auto", "uniform", "log_normal", "logit_normal", "importance"] = "auto"
    """Distribution of training timesteps. ddpm: uniform, or importance (more where the loss is large);
    edm: log_normal; flow: uniform or logit_normal. auto takes the first of them."""
    weighting: str = "none"
    """Loss weighting over noise levels: {WEIGHTINGS}. none: plain squared error of the prediction."""
    objective: str = "simple"
    """The loss: {OBJECTIVES}. simple: squared error; vlb: the variational bound; hybrid: simple, with the bound for a
    learned variance (Nichol & Dhariwal 2021; both need ddpm); flow_map: simple at first, then steps of any length, for
    images in 1 to 8 steps (Luo et al. 2026)."""
    trained_guidance: float = 1.0
    """Guidance that flow_map trains into the network, so that one evaluation per step is guided; --guidance doubles it.
    1: none; usual: 1.5 to 4. Default with --from: the guidance of that run."""
    variance: Literal["fixed", "learned"] = "fixed"
    """Variance of ddpm's reverse steps: fixed, or learned by the network (needs --objective hybrid or vlb)."""

    def __post_init__(self) -> None:
        check_range("--timesteps", self.timesteps, 1, 100_000)
        schedule_of(self.schedule)
        check_choice("--prediction", self.prediction, PREDICTIONS)
        check_choice("--diffusion", self.diffusion, PROCESSES)
        check_choice("--objective", self.objective, OBJECTIVES)
        check_choice("--variance", self.variance, ("fixed", "learned"))
        check_choice("--weighting", self.weighting, ("none", *WEIGHTINGS))
        known = facts(PROCESSES, self.diffusion, ForwardProcess).times
        check_choice(f"--times with --diffusion {self.diffusion}", self.times, ("auto", *known))
        if self.zero_terminal_snr and self.diffusion != "ddpm":
            raise InputError(f"--zero-terminal-snr rescales the schedule of ddpm, {self.diffusion} has none")
        if self.prediction == "eps" and (self.zero_terminal_snr or self.diffusion == "flow"):
            flag = "--diffusion flow" if self.diffusion == "flow" else "--zero-terminal-snr"
            raise InputError(f"{flag} needs --prediction v or x0, got eps, which carries no information at pure noise")
        self._check_objective()

    def _check_objective(self) -> None:
        """Raise InputError for an objective that does not fit the process, variance or weighting."""
        kind = facts(OBJECTIVES, self.objective, Objective)
        check_range("--trained-guidance", self.trained_guidance, 1, 20)
        if self.trained_guidance != 1 and not kind.destinations:
            raise InputError(
                f"--trained-guidance {self.trained_guidance:g} needs --objective flow_map, got {self.objective}"
            )
        if kind.needs_chain and self.diffusion != "ddpm":
            raise InputError(f"--objective {self.objective} bounds a chain of T steps: it needs --diffusion ddpm")
        if self.variance == "learned" and kind.learns_variance is False:
            raise InputError(f"--variance learned needs --objective hybrid or vlb: {self.objective} never trains it")
        if self.variance == "fixed" and kind.learns_variance is True:
            raise InputError(f"--objective {self.objective} needs --variance learned: a fixed one is not trained")
        if self.weighting != "none" and not kind.weighted:
            raise InputError(
                f"--objective {self.objective} has the bound's own weights, got --weighting {self.weighting}"
            )
        if self.diffusion != "ddpm":
            return
        if self.weighting in ("uniform", "sigmoid") and (self.zero_terminal_snr or self.timesteps < 2):
            flag = "--zero-terminal-snr makes endless" if self.zero_terminal_snr else "--timesteps 1 has one value of"
            raise InputError(f"--weighting {self.weighting} is over log SNR, which {flag}")
