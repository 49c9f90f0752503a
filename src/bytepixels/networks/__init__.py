"""Networks: torch modules `network(x, t, label=None) -> like x` that know nothing of noise schedules."""

from bytepixels.networks.autoencoder import Autoencoder
from bytepixels.networks.contract import Network
from bytepixels.networks.dit import DiT
from bytepixels.networks.embedding import ddpm_timestep_embedding, timestep_embedding
from bytepixels.networks.unet import UNet

__all__ = ["Autoencoder", "DiT", "Network", "UNet", "ddpm_timestep_embedding", "timestep_embedding"]
