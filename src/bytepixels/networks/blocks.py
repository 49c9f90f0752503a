"""Building blocks of the U-Net and the autoencoder: residual block, self- and cross-attention, down- and upsampling."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .dropout import Dropout

NORM_EPS = 1e-6
WIDE = 128  # columns of a head, from which a CPU's bf16 attention is no slower than its float32 attention
Tokens = tuple[Tensor, Tensor]  # [B, L, D] of a text, and bool [B, L]: which of them there are, one at least


def zero_(layer: nn.Conv2d | nn.Linear) -> nn.Conv2d | nn.Linear:
    """Zero a layer's weights and biases and return it, so that its residual branch begins as the identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def group_count(width: int) -> int:
    """The groups of every norm in a network whose layers have multiples of `width` channels.

    Ho et al.'s 32, or fewer so that each group holds at least 4 channels, as in Karras et al. 2022's code. (In groups
    of one channel the norm would subtract the timestep again, which is one number per channel.)
    """
    return max(g for g in range(1, min(32, max(width // 4, 1)) + 1) if width % g == 0)


def group_norm(groups: int, channels: int) -> nn.GroupNorm:
    """GroupNorm with DDPM's epsilon."""
    return nn.GroupNorm(groups, channels, eps=NORM_EPS)


class ResidualBlock(nn.Module):
    """Residual block: x + conv(dropout(silu(norm(conv(silu(norm(x))) + time)))), then attention if `heads` is given,
    and cross-attention to text tokens if `text_dim` is.

    forward(x, time, keys, tokens): x [B, C_in, H, W], time [B, D] (already through its SiLU) -> [B, C_out, H, W];
    `keys` [B] decide what is dropped (see `dropout.py`). With `time_dim` None the block has no time, as in an
    autoencoder.
    A 1 x 1 convolution carries x across when C_in != C_out. Source: Ho et al. 2020, appendix B.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        time_dim: int | None,
        groups: int,
        dropout: float = 0.0,
        heads: int | None = None,
        text_dim: int | None = None,
    ):
        super().__init__()
        self.norm1 = group_norm(groups, c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.time = None if time_dim is None else nn.Linear(time_dim, c_out)
        self.norm2 = group_norm(groups, c_out)
        self.dropout = Dropout(dropout)
        self.conv2 = zero_(nn.Conv2d(c_out, c_out, 3, padding=1))
        self.shortcut = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()
        self.attention = nn.Identity() if heads is None else Attention(c_out, groups, heads)
        self.cross = None
        if heads is not None and text_dim is not None:
            self.cross_norm, self.cross = group_norm(groups, c_out), CrossAttention(c_out, text_dim, heads)

    def forward(
        self, x: Tensor, time: Tensor | None = None, keys: Tensor | None = None, tokens: Tokens | None = None
    ) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        if self.time is not None:
            h = h + self.time(time)[:, :, None, None]  # [B, C] -> [B, C, 1, 1]
        h = self.conv2(self.dropout(F.silu(self.norm2(h)), keys))
        h = self.attention(self.shortcut(x) + h)
        if self.cross is None or tokens is None:
            return h
        read = self.cross(self.cross_norm(h).flatten(2).transpose(1, 2), *tokens)  # [B, HW, C]
        return h + read.transpose(1, 2).unflatten(2, h.shape[2:])


def attention_of(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention, softmax(q k^T / sqrt(D)) v: q [B, heads, N, D], k and v [B, heads, L, D], `mask` as
    torch takes it. Source: Vaswani et al. 2017, eq. 1.

    Where gradients are wanted in bf16 on a CPU, narrow heads are taken in float32: torch's backward pass of bf16 makes
    many small products there, and takes up to six times as long.
    """
    dear = v.dtype == torch.bfloat16 and v.device.type == "cpu" and v.shape[-1] < WIDE and torch.is_grad_enabled()
    if not dear:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=mask).to(v.dtype)


class Attention(nn.Module):
    """Self-attention over pixels: x + project(softmax(q k^T / sqrt(C / heads)) v).

    forward(x): [B, C, H, W] -> [B, C, H, W]. The channels must divide by `heads`. The rows of `qkv` are
    [q | k | v], and inside each the heads lie one after another. Source: Vaswani et al. 2017, section 3.2.
    """

    def __init__(self, channels: int, groups: int, heads: int = 1):
        super().__init__()
        self.channels, self.heads = channels, heads
        self.norm = group_norm(groups, channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.project = zero_(nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x).flatten(2).transpose(1, 2)  # [B, C, H, W] -> [B, HW, C]: a view in channels_last
        qkv = self.qkv(h).unflatten(2, (3, self.heads, -1))  # [B, HW, 3C] -> [B, HW, 3, heads, C / heads]
        q, k, v = qkv.transpose(1, 3).unbind(2)  # each [B, heads, HW, C / heads]
        h = attention_of(q, k, v).transpose(1, 2).flatten(2)  # [B, HW, C]
        return x + self.project(h).transpose(1, 2).unflatten(2, x.shape[2:])  # -> [B, C, H, W]


class CrossAttention(nn.Module):
    """Cross-attention to the tokens of a text: project(softmax(q k^T / sqrt(C / heads)) v), zero at first.

    forward(h, tokens, mask): h [B, N, C], normed, tokens [B, L, D], mask bool [B, L] -> [B, N, C], to be added to h.
    The rows of `kv` are [k | v], and inside each the heads lie one after another. Source: Rombach et al. 2022, eq. 3.
    """

    def __init__(self, channels: int, text_dim: int, heads: int = 1):
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(channels, channels)
        self.kv = nn.Linear(text_dim, 2 * channels)
        self.project = zero_(nn.Linear(channels, channels))

    def forward(self, h: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        q = self.q(h).unflatten(2, (self.heads, -1)).transpose(1, 2)  # [B, heads, N, C / heads]
        kv = self.kv(tokens).unflatten(2, (2, self.heads, -1))  # [B, L, 2, heads, C / heads]
        k, v = kv.transpose(1, 3).unbind(2)  # each [B, heads, L, C / heads]
        read = attention_of(q, k, v, mask[:, None, None])
        return self.project(read.transpose(1, 2).flatten(2))


class Downsample(nn.Module):
    """Halve the resolution, [B, C, H, W] -> [B, C, H // 2, W // 2], by a 3 x 3 convolution of stride 2.

    Zeros are added on the right and at the bottom only, as in Ho et al. 2020's code.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)
        self.padding = (0, 1, 0, 1)  # left, right, top, bottom

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, self.padding))


class Upsample(nn.Module):
    """Double the resolution, or one more where downsampling met an odd side: [B, C, h, w] -> [B, C, *size]."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, size: torch.Size) -> Tensor:
        return self.conv(F.interpolate(x, size=size, mode="nearest"))
