"""Networks: torch modules `network(x, t, label=None) -> like x` that know nothing of noise schedules."""

from .autoencoder import Autoencoder
from .base import Network
from .dit import DiT
from .embedding import ddpm_timestep_embedding, timestep_embedding
from .unet import UNet

__all__ = ["Autoencoder", "DiT", "Network", "UNet", "ddpm_timestep_embedding", "timestep_embedding"]
