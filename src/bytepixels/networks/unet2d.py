"""The U-Net with the choices that diffusers' UNet2DModel leaves free: what its trained weights need."""

from collections.abc import Sequence

from torch import nn

from ..errors import InputError, check_range
from .blocks import Attention, Downsample
from .unet import UNet


class UNet2D(UNet):
    """The article's U-Net, laid out as diffusers' UNet2DModel; its other arguments are those of `UNet`.

    head_dim: channels of each attention head, instead of `heads`; None: `heads` of them everywhere.
    groups: of every norm. norm_eps: what every norm adds to the variance. downsample_padding: 1: zeros on all sides
        before the resolution is halved; 0: on the right and at the bottom only, as in DDPM's code.

    Raises InputError when the groups or heads do not divide the channels.
    """

    def __init__(
        self,
        channels: int = 3,
        width: int = 128,
        multipliers: Sequence[int] = (1, 2, 2, 2),
        blocks: int = 2,
        attention: Sequence[int] = (1,),
        heads: int = 1,
        dropout: float = 0.0,
        num_classes: int | None = None,
        embedding: str = "article",
        out_channels: int | None = None,
        time_scale: float = 1.0,
        text_dim: int | None = None,
        destinations: bool = False,
        head_dim: int | None = None,
        groups: int = 32,
        norm_eps: float = 1e-5,
        downsample_padding: int = 1,
    ):
        own = (channels, width, multipliers, blocks, attention, heads, dropout, num_classes, embedding)
        super().__init__(*own, out_channels, time_scale, text_dim, destinations=destinations)
        check_range("downsample_padding", downsample_padding, 0, 1)
        check_range("groups", groups, 1)
        self.groups = groups
        for layer in self.modules():
            if isinstance(layer, nn.GroupNorm):
                if layer.num_channels % groups:
                    raise InputError(f"groups must divide the {layer.num_channels} channels of a norm, got {groups}")
                layer.num_groups, layer.eps = groups, norm_eps
            elif isinstance(layer, Downsample) and downsample_padding:
                layer.padding = (1, 1, 1, 1)
            elif isinstance(layer, Attention) and head_dim is not None:
                if head_dim < 1 or layer.channels % head_dim:
                    wrong = f"the {layer.channels} channels of a level that attends, got {head_dim}"
                    raise InputError(f"head_dim must divide {wrong}")
                layer.heads = layer.channels // head_dim
