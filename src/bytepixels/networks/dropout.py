"""Dropout whose masks depend on one key per image: the same in any batch and on any device."""

import torch
from torch import Tensor, nn

GOLDEN = -1640531527  # 2^32 / golden ratio as int32: spreads the layers' numbers (Knuth, TAOCP 6.4)
STEPS = 2**16  # of the probability: a mask compares 16 bits


class Dropout(nn.Dropout):
    """Zero each number with probability p while training, and scale the rest by 1 / (1 - p) (Srivastava et al. 2014).

    forward(x, keys): x [B, C, ...], keys [B] integers. Which numbers of image k go depends on keys[k], on the
    layer's `number` and on their place in the image, and on nothing else: several processes, or micro-batches, drop
    what one would. Without keys they are drawn from torch's own generator.
    """

    def __init__(self, p: float = 0.5):
        super().__init__(p)
        self.number = 0  # of the layer in its network

    def forward(self, x: Tensor, keys: Tensor | None = None) -> Tensor:
        cut = min(round(self.p * STEPS), STEPS - 1)
        if not self.training or cut == 0:
            return x
        if keys is None:
            keys = torch.randint(2**31, (len(x),), device=x.device)
        count = x[0].numel()
        places = torch.arange((count + 1) // 2, dtype=torch.int32, device=x.device)  # 32 bits decide on two numbers
        streams = mixed(keys.to(torch.int32) + self.number * GOLDEN % 2**31)
        bits = mixed(streams[:, None] ^ mixed(places)).view(torch.int16)[:, :count]
        keep = (bits >= cut - STEPS // 2).unflatten(1, (*x.shape[2:], x.shape[1])).movedim(-1, 1)
        return x * (keep * (STEPS / (STEPS - cut)))


def number_dropouts(network: nn.Module) -> None:
    """Number the dropout layers of a network, so that their masks differ."""
    for number, layer in enumerate(layer for layer in network.modules() if isinstance(layer, Dropout)):
        layer.number = number


def mixed(words: Tensor) -> Tensor:
    """A bijective hash of int32: every output bit depends on every input bit (MurmurHash3's finaliser)."""
    for shift, kept, factor in ((16, 0xFFFF, -2048144789), (13, 0x7FFFF, -1028477387)):
        words = (words >> shift).bitwise_and_(kept).bitwise_xor_(words).mul_(factor)  # in place: half the traffic
    return (words >> 16).bitwise_and_(0xFFFF).bitwise_xor_(words)
