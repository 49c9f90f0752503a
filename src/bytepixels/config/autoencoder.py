"""The settings of an autoencoder, the first stage of latent diffusion."""

from dataclasses import dataclass
from typing import Literal

from ..errors import InputError, check_choice, check_range
from .units import Length

FACTORS = (1, 2, 4, 8)
MULTIPLIERS = (1, 2, 4, 4)  # channels of each level, in widths (Rombach et al. 2022, table 8)


@dataclass(frozen=True)
class AutoencoderConfig:
    """Autoencoder: its shape, and the weights of its losses beside the pixel loss."""

    kind: Literal["kl", "vq"] = "kl"
    """kl: latents are Gaussian, with a mean and a std each; vq: every latent vector is the nearest of --codes
    vectors."""
    factor: int = 4
    """Downsampling factor per side from image to latent: 1, 2, 4 or 8."""
    latent_channels: int = 4
    """Channels of the latent. Usual: 3 to 16; more keeps more detail."""
    width: int = 64
    """Channels at full resolution; levels below have 2, 4 and 4 times as many."""
    blocks: int = 2
    """Residual blocks per level of the encoder; the decoder has one more."""
    attention: bool = True
    """Self-attention at the lowest resolution."""
    residual: bool = False
    """Learn a residual to a coarse copy of the image (low frequencies of its Haar transform), so that colours are right
    from the start."""
    codes: int = 1024
    """Number of codebook entries of --kind vq."""
    error: Literal["l1", "l2"] = "l1"
    """Pixel loss: l1 (absolute error) or l2 (squared error)."""
    ssim: float = 0.1
    """Weight of 1 - MS-SSIM (structure, at several scales)."""
    gradient: float = 0.1
    """Weight of the error of differences between neighbouring pixels."""
    kl: float = 1e-6
    """Weight of the KL divergence of the latents from a standard normal, for --kind kl. Usual: 1e-6."""
    commitment: float = 0.25
    """Weight of the distance between latents and their codes, for --kind vq. Usual: 0.25."""
    perceptual: str | None = None
    """Perceptual loss. imagenet: features of a network that knows objects (pip install 'bytepixels[features]'); or a
    TorchScript file with a distance of two images (such as LPIPS), StyleGAN2's vgg16, or features to compare; none.
    auto: imagenet where it is installed, else none."""
    perceptual_weight: float = 1.0
    """Weight of the perceptual loss."""
    discriminator: float = 0.0
    """Weight of a patch discriminator's loss, times an adaptive weight. 0: none; usual: 0.5."""
    discriminator_start: Length = 0.25
    """When the discriminator's loss is switched on: a share of the budget, or images seen."""

    def __post_init__(self) -> None:
        check_choice("--kind", self.kind, ("kl", "vq"))
        if self.factor not in FACTORS:
            raise InputError(f"--factor must be one of {', '.join(map(str, FACTORS))}; got {self.factor}")
        check_choice("--error", self.error, ("l1", "l2"))
        for name in ("latent_channels", "blocks"):
            check_range(f"--{name.replace('_', '-')}", getattr(self, name), 1)
        check_range("--width", self.width, 4)
        check_range("--codes", self.codes, 2)
        for name in ("ssim", "gradient", "kl", "commitment", "perceptual_weight", "discriminator"):
            check_range(f"--{name.replace('_', '-')}", getattr(self, name), 0)
        check_range("--discriminator-start", self.discriminator_start, 0)

    @property
    def multipliers(self) -> tuple[int, ...]:
        """Channels of each level, as multiples of `width`."""
        return MULTIPLIERS[: self.factor.bit_length()]
