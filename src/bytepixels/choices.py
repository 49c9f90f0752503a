"""Names that settings choose from and that no code of one's own can add to, and limits: torch is not needed here."""

import math

SPACINGS = ("trailing", "leading", "linspace", "quadratic", "log_snr", "karras")
OWN_SPACING = "own"  # measured on a model itself, which a process knows nothing of
PREDICTIONS = ("eps", "x0", "v")
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
