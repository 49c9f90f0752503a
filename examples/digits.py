"""What the examples share: the handwritten digits, and a training loop of six lines."""

import os
from collections.abc import Callable

import torch
from torch import Tensor, nn

from bytepixels import PixelCodec
from bytepixels.data import pack

STEPS = int(os.environ.get("STEPS", 2000))  # two minutes; a test takes a few


def digits() -> Tensor:
    """1,797 digits, [1797, 1, 8, 8] in [-1, 1]."""
    return PixelCodec().to_model(torch.from_numpy(pack("digits").images.copy()))


def trained(model: nn.Module, loss: Callable[[nn.Module, Tensor], Tensor], images: Tensor) -> nn.Module:
    """The model after STEPS steps of Adam on batches of 64."""
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss(model, images[torch.randint(len(images), (64,))]).backward()
        optimizer.step()
    return model.eval()
