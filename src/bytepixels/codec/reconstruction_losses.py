"""Reconstruction losses of an autoencoder, and the metrics that papers report. One value per image.

Images x, y are float [B, C, H, W] in -1..1 unless said; every error is a mean over an image's numbers, [B].
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

RANGE = 2.0  # from black to white
WINDOW, SPREAD = 11, 1.5  # of SSIM's Gaussian, in pixels
K1, K2 = 0.01, 0.03
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # the weights of MS-SSIM's scales (Wang et al. 2003)
LEAST = 0.01  # similarity of a scale that counts: nearer 0 the gradient of a root has no end
MOST_ADAPTIVE = 1e4  # Esser et al. 2021's clamp


def l1(x: Tensor, y: Tensor) -> Tensor:
    """Mean absolute error."""
    return (x - y).abs().flatten(1).mean(1)


def l2(x: Tensor, y: Tensor) -> Tensor:
    """Mean squared error."""
    return (x - y).square().flatten(1).mean(1)


def gradient_error(x: Tensor, y: Tensor) -> Tensor:
    """Mean absolute error of the differences between neighbours, along rows and along columns."""
    off = x - y
    parts = [off.diff(dim=axis).abs().flatten(1).mean(1) for axis in (2, 3) if off.shape[axis] > 1]
    return torch.stack(parts).mean(0) if parts else off.new_zeros(len(off))


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity, 1 for equal images (Wang et al. 2004): a Gaussian of 11 pixels, or of all there are."""
    return _similarity(x, y)[0]


def ms_ssim(x: Tensor, y: Tensor) -> Tensor:
    """Multi-scale structural similarity (Wang et al. 2003) over five scales, or as many as have 11 pixels a side.

    The weights of the scales that there are add up to 1. Similarities below 0.01 count as 0.01.
    """
    fitting = 1 + max(0, int(math.log2(min(x.shape[2:]) / WINDOW)))
    weights = torch.tensor(SCALES[:fitting])
    found = []
    for scale, weight in enumerate((weights / weights.sum()).tolist()):
        if scale > 0:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        whole, contrast = _similarity(x, y)
        last = scale == len(weights) - 1
        found.append((whole if last else contrast).clamp(min=LEAST) ** weight)
    return torch.stack(found).prod(0)


def _similarity(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """SSIM, and its contrast-structure term alone."""
    channels, size = x.shape[1], min(WINDOW, *x.shape[2:])
    at = torch.arange(size, dtype=x.dtype, device=x.device) - (size - 1) / 2
    line = torch.exp(-((at / SPREAD) ** 2) / 2)
    line = line / line.sum()

    def blurred(z: Tensor) -> Tensor:
        rows = F.conv2d(z, line.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
        return F.conv2d(rows, line.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)

    mean_x, mean_y = blurred(x), blurred(y)
    var_x, var_y = blurred(x * x) - mean_x**2, blurred(y * y) - mean_y**2
    covariance = blurred(x * y) - mean_x * mean_y
    c1, c2 = (K1 * RANGE) ** 2, (K2 * RANGE) ** 2
    contrast = (2 * covariance + c2) / (var_x + var_y + c2)
    whole = contrast * (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return whole.flatten(1).mean(1), contrast.flatten(1).mean(1)


def psnr(images: Tensor, others: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of images uint8 [B, C, H, W]; infinite where they are equal."""
    error = (images.double() - others.double()).square().flatten(1).mean(1)
    return 10 * torch.log10(255**2 / error)


def kl_divergence(mean: Tensor, std: Tensor) -> Tensor:
    """KL(N(mean, std^2) || N(0, 1)) in nats, summed over the numbers of a latent [B, Z, h, w] -> [B]."""
    return 0.5 * (mean.square() + std.square() - 1 - 2 * std.log()).flatten(1).sum(1)


def hinge(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge loss of a discriminator (Lim & Ye 2017): logits [B, 1, h, w] of real images above 1, of fake below -1."""
    return 0.5 * (F.relu(1 - real) + F.relu(1 + fake)).flatten(1).mean(1)


def adaptive_weight(error: Tensor, judged: Tensor, y: Tensor) -> Tensor:
    """Esser et al. 2021, eq. 7: the ratio of the gradients of the error and of the discriminator's term, each [B].

    With respect to the reconstruction y and image by image, not to the last layer: it depends on no batch then.
    """
    slopes = (torch.autograd.grad(one.sum(), y, retain_graph=True)[0] for one in (error, judged))
    own, other = (slope.flatten(1).norm(dim=1) for slope in slopes)
    return (own / (other + 1e-4)).clamp(max=MOST_ADAPTIVE)
