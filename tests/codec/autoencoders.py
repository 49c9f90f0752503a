"""Small autoencoders with known behaviour, for the tests of latents."""

import torch
from torch import nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle


class Shuffled(nn.Module):
    """Loses nothing: the four pixels of a block become channels, each with a scale and a shift of its own."""

    factor = 2

    def __init__(self, channels: int = 3, deviation: float = 0.0):
        super().__init__()
        self.latent_channels, self.deviation = 4 * channels, deviation
        steps = torch.arange(self.latent_channels)[:, None, None]
        self.scale, self.shift = 2.0 ** (steps % 5 - 2), steps - 3.5  # [z, 1, 1]
        self.calls: list[int] = []

    def encode(self, x):
        mean = pixel_unshuffle(x, 2) * self.scale + self.shift
        return mean, torch.full_like(mean, self.deviation)

    def decode(self, z):
        self.calls.append(len(z))
        return pixel_shuffle((z - self.shift) / self.scale, 2)


class Uneven(nn.Module):
    """Random convolutions: not symmetric, with deviations that differ from place to place and a channel far from 0."""

    factor, latent_channels = 2, 3

    def __init__(self, channels: int = 3, seed: int = 0):
        super().__init__()
        torch.manual_seed(seed)
        self.inward = nn.Conv2d(channels, 6, 4, stride=2, padding=1)
        self.outward = nn.ConvTranspose2d(3, channels, 4, stride=2, padding=1)
        with torch.no_grad():
            self.inward.weight.mul_(3)
            self.inward.bias[:3] += torch.tensor([0.0, 5.0, -40.0])

    def encode(self, x):
        mean, log_deviation = self.inward(x).chunk(2, dim=1)
        return mean, torch.exp(log_deviation - 1)

    def decode(self, z):
        return self.outward(z)
