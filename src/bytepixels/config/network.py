"""The network of a run: a U-Net or a transformer over patches."""

from dataclasses import dataclass
from typing import Literal

from tyro.conf import Suppress

from ..errors import InputError, check_choice, check_range
from ..registries import NETWORKS, Backbone, facts
from .units import plain_value


@dataclass(frozen=True)
class NetworkConfig:
    """Network: a U-Net, or a transformer over patches. Flags that only the other one has are refused."""

    backbone: str = "unet"
    """The network: {NETWORKS}. unet: convolutions at several resolutions; dit: attention between patches (Peebles & Xie
    2023); unet2d: a unet laid out as diffusers' UNet2DModel, as import makes it."""
    width: int = 128
    """unet: channels of the first level; dit: channels of each patch. More learns more and is slower. Usual: 32 to 128
    (unet), 96 to 768 (dit)."""
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    """unet: channels of each level, as multiples of --width; every level after the first halves the resolution."""
    blocks: int = 2
    """unet: residual blocks per level. Usual: 1 to 3."""
    attention: tuple[int, ...] = (1,)
    """unet: levels with self-attention, 0 being the first (slow there); the middle block always has it."""
    patch: int = 2
    """dit: side of a patch in pixels; the image's sides must be multiples of it. Smaller is better and slower."""
    depth: int = 12
    """dit: number of transformer blocks. Usual: 6 to 28."""
    positions: Literal["rope", "sincos"] = "rope"
    """dit: positional encoding. rope: rotary embedding of queries and keys; sincos: sines and cosines are
    added, as in the paper."""
    registers: int = 0
    """dit: learned register tokens beside the patches, dropped at the end. Usual: 0 or 4."""
    heads: int = 1
    """Attention heads; they must divide the channels. Usual: 1 to 16."""
    dropout: float = 0.1
    """Dropout probability in the blocks. Usual: 0, or 0.1 for few images."""
    embedding: Literal["article", "ddpm"] = "article"
    """Sinusoidal timestep embedding. article: cosines before sines; ddpm: sines before cosines, with the
    frequencies of DDPM's code."""
    labels: bool = True
    """Condition on class labels, if the data has them, so that sample --label can choose one."""
    text: str | None = None
    """Condition on captions, so that sample --prompt works. The text encoder: wordllama (word vectors, installed with
    bytepixels) or the folder of a Hugging Face text encoder (pip install 'bytepixels[text]')."""
    text_dim: Suppress[int | None] = None
    """Numbers in a vector of that encoder."""
    stem: Literal["auto", "conv", "haar"] = "conv"
    """unet: the input layer. conv: a convolution; haar: a Haar transform first, so that every level
    has half the sides and a quarter of the work. auto: haar for images (or latents) of 24 x 24 and more."""
    head_dim: int | None = None
    """unet2d: channels of each attention head, instead of --heads."""
    groups: int = 32
    """unet2d: groups of every norm; they must divide the channels."""
    norm_eps: float = 1e-5
    """unet2d: what every norm adds to the variance."""
    downsample_padding: int = 1
    """unet2d: zeros on all sides (1), or on the right and at the bottom only (0), before the resolution is halved."""

    def __post_init__(self) -> None:
        check_choice("--backbone", self.backbone, NETWORKS)
        for name in settings_of_others(self.backbone):
            if getattr(self, name) != getattr(NetworkConfig, name):
                raise InputError(foreign_setting(name, self.backbone))
        check_choice("--stem", self.stem, ("auto", "conv", "haar"))
        check_range("--width", self.width, 4)
        for name in ("blocks", "heads", "patch", "depth"):
            check_range(f"--{name}", getattr(self, name), 1)
        check_range("--registers", self.registers, 0)
        check_choice("--positions", self.positions, ("rope", "sincos"))
        if not self.multipliers or min(self.multipliers) < 1:
            raise InputError(
                f"--multipliers must be one or more numbers of at least 1, got {plain_value(self.multipliers)!r}"
            )
        for level in self.attention:
            check_range("--attention", level, 0, len(self.multipliers) - 1)
        if not 0 <= self.dropout < 1:
            raise InputError(f"--dropout must be at least 0 and below 1, got {self.dropout}")


def settings_of_others(backbone: str) -> list[str]:
    """The settings that belong to other backbones only."""
    own = facts(NETWORKS, backbone, Backbone).settings
    return list(
        dict.fromkeys(name for one in NETWORKS for name in facts(NETWORKS, one, Backbone).settings if name not in own)
    )


def foreign_setting(name: str, backbone: str) -> str:
    """The error sentence for a setting of another backbone."""
    owner = next(other for other in NETWORKS if name in facts(NETWORKS, other, Backbone).settings)
    return f"{flag_of(name)} belongs to --backbone {owner}, got --backbone {backbone}"


def flag_of(name: str) -> str:
    """The flag of a setting."""
    return f"--{name.replace('_', '-')}"
