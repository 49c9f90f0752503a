"""Per-channel statistics of the latents of a whole set, from their stored moments."""

import numpy as np

BLOCK_BYTES = 1 << 20  # of moments at a time
BEYOND = 4  # deviations beyond the outermost means: a draw lies within, but for 3 in 100,000


def statistics_of(stored: np.ndarray) -> dict[str, list[float]]:
    """Statistics of latents mean + deviation * noise drawn from moments float32 [N, F, 2z, h, w]: "mean" and
    "deviation" [z] over all images, mirrorings and positions, in float64; "low" and "high", which nearly all draws lie
    between.

    Exact, with nothing drawn: the mean of the means, and the variance of the means plus the mean of the variances.
    """
    total, ways, channels, h, w = stored.shape
    z, count, block = channels // 2, total * ways * h * w, max(1, BLOCK_BYTES // stored[0].nbytes)
    centre, sums, squares = np.zeros((3, z))
    low, high = np.full(z, np.inf), np.full(z, -np.inf)
    for start in range(0, total, block):
        moments = stored[start : start + block].reshape(-1, 2, z, h, w).astype(np.float64)
        mean, deviation = moments[:, 0], moments[:, 1]  # [n * F, z, h, w]
        if start == 0:
            centre = mean.mean(axis=(0, 2, 3))  # squares of what is left lose no digits
        off = mean - centre[:, None, None]
        sums += off.sum(axis=(0, 2, 3))
        squares += (off**2 + deviation**2).sum(axis=(0, 2, 3))
        low = np.minimum(low, (mean - BEYOND * deviation).min(axis=(0, 2, 3)))
        high = np.maximum(high, (mean + BEYOND * deviation).max(axis=(0, 2, 3)))
    shift = sums / count
    variance = np.maximum(squares / count - shift**2, 0)
    found = {"mean": centre + shift, "deviation": np.sqrt(variance), "low": low, "high": high}
    return {name: values.tolist() for name, values in found.items()}
