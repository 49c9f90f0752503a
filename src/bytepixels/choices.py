"""The names that settings choose from, and their limits: flags and configs need these, and not torch.

The functions behind the names are in the registries of the same names, which a test compares with these.
"""

import math

SCHEDULES = ("linear", "cosine", "scaled_linear", "sigmoid")
SPACINGS = ("trailing", "leading", "linspace", "quadratic", "log_snr", "karras")
PREDICTIONS = ("eps", "x0", "v")
OBJECTIVES = ("simple", "hybrid", "vlb")
WEIGHTINGS = ("eps", "min_snr", "p2", "edm", "velocity", "uniform", "sigmoid")
SAMPLERS = (
    "ddpm",
    "ddim",
    "euler",
    "heun",
    "dpmpp_2s",
    "dpmpp_2m",
    "dpmpp_3m",
    "dpmpp_sde_2m",
    "unipc_2",
    "unipc_3",
    "ipndm",
    "deis",
)
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
}
