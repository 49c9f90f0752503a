"""The names that settings choose from, and their limits: flags and configs need these, and not torch.

The functions behind the names are in the registries of the same names, which a test compares with these.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

SCHEDULES: dict[str, dict[str, float]] = {  # and the parameters that each has, as schedule:name=value sets them
    "linear": {"beta_start": 1e-4, "beta_end": 0.02},
    "cosine": {"s": 0.008},
    "scaled_linear": {"beta_start": 0.00085, "beta_end": 0.012},
    "sigmoid": {"start": -3.0, "end": 3.0, "tau": 1.0},
}
SPACINGS = ("trailing", "leading", "linspace", "quadratic", "log_snr", "karras")
OWN_SPACING = "own"  # measured on a model itself, which a process knows nothing of
PREDICTIONS = ("eps", "x0", "v")
OBJECTIVES = ("simple", "hybrid", "vlb")
WEIGHTINGS = ("eps", "min_snr", "p2", "edm", "velocity", "uniform", "sigmoid")


class Sampler(NamedTuple):
    """What is known of a sampler beside its step function."""

    order: int  # of its error in the width of a step, on grids even in log(alpha / sigma); of one that draws noise, of
    # the error of its variance
    stochastic: bool = False  # it draws noise on the way
    evaluations: int = 1  # of the denoiser a step, but for the last
    options: tuple[str, ...] = ()  # settings that it alone, or few, take


SAMPLERS = {
    "ddpm": Sampler(1, stochastic=True, options=("reverse_variance",)),
    "ddim": Sampler(1, options=("eta", "churn")),
    "euler": Sampler(1, options=("churn",)),
    "heun": Sampler(2, evaluations=2, options=("churn",)),
    "dpmpp_2s": Sampler(2),
    "dpmpp_2m": Sampler(2),
    "dpmpp_3m": Sampler(3),
    "dpmpp_sde_2m": Sampler(2, stochastic=True),
    "unipc_2": Sampler(3),  # of order 2, and its corrector adds one
    "unipc_3": Sampler(4),
    "ipndm": Sampler(2),  # 4 on grids even in sigma / alpha, which its weights are for
    "deis": Sampler(3),
    "exp_euler": Sampler(1),
    "exp_2m": Sampler(2),
    "exp_2c": Sampler(3),  # of order 2, and its corrector adds one
}


def expected_order(sampler: str) -> float:
    """The order of a sampler; NaN of one that nothing is known of."""
    return SAMPLERS[sampler].order if sampler in SAMPLERS else math.nan


def one_of(names: Iterable[str]) -> str:
    """ "ddim, euler or heun"."""
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


def takers(option: str) -> str:
    """The samplers that take an option: "ddim, euler or heun"."""
    return one_of(name for name, facts in SAMPLERS.items() if option in facts.options)


DEQUANTISATIONS = ("noise", "uniform")
SPLITS = ("train", "val", "test", "all")
MAX_CHURN = math.sqrt(2) - 1  # Karras et al. 2022, Algorithm 2
MAX_SEED = 2**32 - 1  # what torch's generator on the CPU tells apart
LEAST_SAMPLES = 16  # of a set that is measured: below that a distance says nothing
CACHED = {  # what the cache holds
    "packs": "images, decoded once, at one size",
    "latents": "what autoencoders made of them",
    "texts": "what text encoders made of captions",
    "features": "features of real images, for evaluate",
    "indexes": "what WebDataset shards hold",
    "downloads": "data sets known by name",
    "grids": "where the steps of models lie that cannot keep it themselves",
}
CACHE_LIMIT = "BYTEPIXELS_CACHE_LIMIT"  # an environment variable: 5GB, 500MB
