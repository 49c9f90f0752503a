"""What settings choose from by name: schedules, samplers, weightings, objectives, processes and networks.

Each entry is the thing itself, with what is known of it, and is loaded when it is first called: flags, help and configs
need the names and not torch. One line here makes a name known to every command, the help, `compare` and `verify`. A
program adds entries of its own before it asks for them:

    bytepixels.SAMPLERS["midpoint"] = bytepixels.Sampler(midpoint_step, order=2, evaluations=2)
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property, partial
from importlib import import_module
from typing import Any, TypeVar

Kind = TypeVar("Kind", bound="Entry")


@dataclass(frozen=True)
class Entry:
    """A function or class by its place in the package, such as "core.schedules.linear_schedule", or one of your own."""

    place: str | Callable[..., Any]

    @cached_property
    def target(self) -> Callable[..., Any]:
        """The function or class itself."""
        if not isinstance(self.place, str):
            return self.place
        module, _, name = self.place.rpartition(".")
        return getattr(import_module(f".{module}", __package__), name)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self.target(*arguments, **options)


@dataclass(frozen=True)
class Sampler(Entry):
    """A step function of a sampler, and what is known of it."""

    order: float = math.nan  # of its error in the width of a step, on grids even in log(alpha / sigma); of one that
    # draws noise, of the error of its variance; NaN where it is not known
    stochastic: bool = False  # it draws noise on the way
    evaluations: int = 1  # of the denoiser a step, but for the last
    options: tuple[str, ...] = ()  # settings that it alone, or few, take
    sigma_data: bool = False  # it takes the standard deviation of the data; 1 unless told
    bound: dict[str, Any] = field(default_factory=dict)  # arguments that are its own

    @cached_property
    def target(self) -> Callable[..., Any]:
        """The step function, its own arguments bound."""
        function = Entry(self.place).target
        return partial(function, **self.bound) if self.bound else function


@dataclass(frozen=True)
class Objective(Entry):
    """A loss of each image, [B], from `core.objectives.Evaluation` and the name of a weighting, or None."""

    needs_chain: bool = False  # of T timesteps: ddpm
    learns_variance: bool | None = None  # whether the network gives it too; None: either way
    weighted: bool = True  # whether --weighting may be given
    destinations: bool = False  # the network is told where a step leads: it is called as flow_map_loss is


@dataclass(frozen=True)
class ForwardProcess(Entry):
    """A class of `core.levels.Process`, called with those of timesteps, schedule and times that it takes."""

    times: tuple[str, ...] = ("uniform",)  # how training may draw its noise levels, by default the first


@dataclass(frozen=True)
class Backbone(Entry):
    """A class of networks, called with those settings of config/network.py that its signature names."""

    settings: tuple[str, ...] = ()  # those that not every network has


SCHEDULES: dict[str, Callable[..., Any]] = {
    "linear": Entry("core.schedules.linear_schedule"),
    "cosine": Entry("core.schedules.cosine_schedule"),
    "scaled_linear": Entry("core.schedules.scaled_linear_schedule"),
    "sigmoid": Entry("core.schedules.sigmoid_schedule"),
}
SAMPLERS: dict[str, Callable[..., Any]] = {
    "ddpm": Sampler("core.samplers.ddpm_step", 1, stochastic=True, options=("reverse_variance",)),
    "ddim": Sampler("core.samplers.ddim_step", 1, options=("eta", "churn", "renoise")),
    "euler": Sampler("core.samplers.euler_step", 1, options=("churn",)),
    "heun": Sampler("core.samplers.heun_step", 2, evaluations=2, options=("churn",)),
    "dpmpp_2s": Sampler("core.multistep.dpmpp_2s_step", 2),
    "dpmpp_2m": Sampler("core.multistep.dpmpp_2m_step", 2),
    "dpmpp_3m": Sampler("core.multistep.dpmpp_3m_step", 3),
    "dpmpp_sde_2m": Sampler("core.multistep.dpmpp_sde_2m_step", 2, stochastic=True),
    "unipc_2": Sampler("core.multistep.unipc_step", 3, bound={"order": 2}),  # its corrector adds one to the order
    "unipc_3": Sampler("core.multistep.unipc_step", 4, bound={"order": 3}),
    "ipndm": Sampler("core.multistep.ipndm_step", 2),  # 4 on grids even in sigma / alpha, which its weights are for
    "deis": Sampler("core.multistep.deis_step", 3),
    "exp_euler": Sampler("core.exponential.exponential_step", 1, sigma_data=True),
    "exp_2m": Sampler("core.exponential.exponential_step", 2, sigma_data=True, bound={"order": 2}),
    "exp_2c": Sampler(  # its corrector adds one to the order
        "core.exponential.exponential_step", 3, sigma_data=True, bound={"order": 2, "correct": True}
    ),
}
WEIGHTINGS: dict[str, Callable[..., Any]] = {
    "eps": Entry("core.weighting.eps_weight"),
    "min_snr": Entry("core.weighting.min_snr_weight"),
    "p2": Entry("core.weighting.p2_weight"),
    "edm": Entry("core.weighting.edm_weight"),
    "velocity": Entry("core.weighting.velocity_weight"),
    "uniform": Entry("core.weighting.uniform_weight"),
    "sigmoid": Entry("core.weighting.sigmoid_weight"),
}
OBJECTIVES: dict[str, Callable[..., Any]] = {
    "simple": Objective("core.objectives.simple_loss", learns_variance=False),
    "hybrid": Objective("core.objectives.hybrid_loss", needs_chain=True, learns_variance=True),
    "vlb": Objective("core.objectives.bound_loss", needs_chain=True, weighted=False),
    "flow_map": Objective("core.flow_map_loss.flow_map_loss", learns_variance=False, destinations=True),
}
PROCESSES: dict[str, Callable[..., Any]] = {
    "ddpm": ForwardProcess("core.gaussian_diffusion.GaussianDiffusion", ("uniform", "importance")),
    "edm": ForwardProcess("core.continuous.EDMProcess", ("log_normal",)),
    "flow": ForwardProcess("core.continuous.RectifiedFlow", ("uniform", "logit_normal")),
}
NETWORKS: dict[str, Callable[..., Any]] = {
    "unet": Backbone("networks.unet.UNet", ("multipliers", "blocks", "attention", "stem")),
    "dit": Backbone("networks.dit.DiT", ("patch", "depth", "positions", "registers")),
    "unet2d": Backbone(
        "networks.unet2d.UNet2D",
        ("multipliers", "blocks", "attention", "head_dim", "groups", "norm_eps", "downsample_padding"),
    ),
}


def facts(registry: dict[str, Callable[..., Any]], name: str, kind: type[Kind]) -> Kind:
    """What is known of an entry: next to nothing where it is a plain function or class."""
    entry = registry[name]
    return entry if isinstance(entry, kind) else kind(entry)


def sampler_facts(name: str) -> Sampler:
    """What is known of a sampler."""
    return facts(SAMPLERS, name, Sampler)


def stochastic_samplers() -> list[str]:
    """The samplers that draw noise on the way; ddim does with eta above 0."""
    return [name for name in SAMPLERS if sampler_facts(name).stochastic]


def one_of(names: Iterable[str]) -> str:
    """ "ddim, euler or heun"."""
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


def takers(option: str) -> str:
    """The samplers that take an option: "ddim, euler or heun"."""
    return one_of(name for name in SAMPLERS if option in sampler_facts(name).options)
