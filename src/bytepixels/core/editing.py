"""Editing of existing images: inpainting, variations, interpolation and inversion.

No network is trained for any of it: each is a wrapper round the denoiser, or another path along the same levels.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from ..errors import InputError, check_count, check_range
from .denoiser import Denoise, eps_of
from .levels import CLEAN, Level
from .samplers import Noise, Step, diffuse

NEARLY_PARALLEL = 1e-4  # radians: below, a straight line and an arc are the same to float32
# Inversion's iteration has the same fixed point with eps read at either end of the step. With h the step in log(alpha /
# sigma) and S a variance of the data, reading it at the noisier end shrinks the error at least by 1 - exp(-h), slowly
# where one step leads to (nearly) pure noise; at the cleaner end by about S exp(this sum), for which it must be small.
MOSTLY_NOISE = -5.0


def inpainted(denoise: Denoise, known: Tensor, mask: Tensor) -> Denoise:
    """Replace the estimate of x0 by the known image wherever `mask` is 1.

    known: x0, [C, H, W] or [B, C, H, W]; mask: 0 (repaint) to 1 (keep), it broadcasts with `known`. With the true x0 a
    ddpm step is, there, exactly the forward chain's q(x_nxt | x_now, x0): the known part keeps its law at every level,
    in agreement with the x that the unknown part was estimated from (Lugmayr et al. 2022, eq. 8a, draws it afresh).
    InputError for a mask out of range, and for a mask or a known image that does not fit x.
    """
    if mask.shape[-2:] != known.shape[-2:]:
        raise InputError(f"the mask must have the image's size {list(known.shape[-2:])}, got {list(mask.shape[-2:])}")
    low, high = mask.min().item(), mask.max().item()
    if not 0 <= low <= high <= 1:
        raise InputError(f"the mask must lie in 0..1, got {low:g}..{high:g}")

    def inpaint(x: Tensor, level: Level, *nxt: Level) -> Tensor:
        for name, part, whole in (("known image", known, 3), ("mask", mask, 2)):
            if part.shape[-whole:] != x.shape[-whole:] or not _spreads(part, x):
                raise InputError(f"the {name} must fit x {list(x.shape)}, got {list(part.shape)}")
        return torch.lerp(denoise(x, level, *nxt), known.to(x), mask.to(x))

    return inpaint


def _spreads(part: Tensor, x: Tensor) -> bool:
    """Whether `part` broadcasts to the shape of x."""
    sizes = zip(reversed(part.shape), reversed(x.shape), strict=False)
    return part.ndim <= x.ndim and all(own in (1, whole) for own, whole in sizes)


def resampling_path(levels: Sequence[Level], jump: int, repeats: int) -> list[Level]:
    """The levels of RePaint, each stretch of `jump` steps walked `repeats` times (Lugmayr et al. 2022, appendix B.1).

    levels: noisiest first, then CLEAN. From the end of a stretch the path goes back to its beginning, in one jump, so
    that what was painted and what is known come to agree. As in RePaint the stretches are counted from the cleanest
    noisy level, and what is left over at the noisy end is walked once. repeats 1 is the grid itself. InputError where
    there is no room to jump.
    """
    check_count("repeats", repeats, 1)
    if repeats == 1:
        return list(levels)
    last = len(levels) - 2  # the position of the cleanest noisy level
    if last < 1:
        raise InputError(f"to go back takes two steps or more, got {len(levels) - 1}: take repeats 1")
    check_count("jump", jump, 1, last)
    path = []
    for position, level in enumerate(levels):
        path.append(level)
        if jump <= position <= last and (last - position) % jump == 0:
            path += (repeats - 1) * list(levels[position - jump : position + 1])
    return path


@torch.no_grad()
def resampled_trajectory(
    x: Tensor, path: Sequence[Level], denoise: Denoise, step: Step, noise: Noise = torch.randn_like
) -> Iterator[Tensor]:
    """Yield x [B, C, H, W] at every level of a path that may also go back up to noisier levels.

    To a cleaner level it takes `step`; to a noisier one it adds the noise of the forward process (Lugmayr et al. 2022,
    Algorithm 1, line 10), and a multistep method forgets what it had seen.
    """
    if len(path) < 2 or any(now.half_log_snr == nxt.half_log_snr for now, nxt in pairwise(path)):
        raise InputError(f"a path must have two levels or more, no level twice in a row, got {list(path)}")
    memory = None
    for now, nxt in pairwise(path):
        if nxt.half_log_snr > now.half_log_snr:
            x, memory = step(x, now, nxt, denoise, noise, memory)
        else:
            x, memory = diffuse(x, now, nxt, noise), None
        yield x


def noised_start(x0: Tensor, levels: Sequence[Level], strength: float, noise: Noise) -> tuple[Tensor, list[Level]]:
    """Add noise to an image and return the levels to denoise it along (SDEdit, Meng et al. 2022, Algorithm 1).

    Of the grid's steps the last round(strength * steps) are kept, at least one; x is at the first level of those.
    strength: above 0 (the image stays) to 1 (the whole grid: what alpha leaves of the image, often nothing).
    """
    if not 0 < strength <= 1:
        raise InputError(f"strength must be above 0 and at most 1, got {strength}")
    steps = len(levels) - 1
    kept = list(levels[steps - max(1, round(strength * steps)) :])
    return diffuse(x0, CLEAN, kept[0], noise), kept


def slerp(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Spherical interpolation from a to b, for each image of [B, C, H, W] by itself (Shoemake 1985).

    share: 0 (a, exactly) to 1 (b, exactly). The length goes evenly from |a| to |b|: noise stays as long as noise is,
    where a straight line would cut it short. InputError for opposite images, which no one arc joins.
    """
    check_range("share", share, 0, 1)
    compute = torch.promote_types(a.dtype, torch.float32)
    size_a, size_b = (_length(image.to(compute)) for image in (a, b))
    unit_a, unit_b = a / size_a, b / size_b
    angle = 2 * torch.atan2(_length(unit_a - unit_b), _length(unit_a + unit_b))  # exact for small angles, unlike acos
    if bool((angle > torch.pi - NEARLY_PARALLEL).any()):
        raise InputError("opposite images have no one arc between them")
    near, sine = angle < NEARLY_PARALLEL, torch.sin(angle)
    weight_a = torch.where(near, 1 - share, torch.sin((1 - share) * angle) / sine)
    weight_b = torch.where(near, share, torch.sin(share * angle) / sine)
    size = (1 - share) * size_a + share * size_b
    return (weight_a * (size / size_a) * a + weight_b * (size / size_b) * b).to(a.dtype)


def _length(x: Tensor) -> Tensor:
    """The norm of each image, [B, C, H, W] -> [B, 1, 1, 1], at least a tiny number, for use as a divisor."""
    return torch.linalg.vector_norm(x, dim=(1, 2, 3), keepdim=True).clamp(min=1e-12)


@torch.no_grad()
def invert(x0: Tensor, levels: Sequence[Level], denoise: Denoise, refine: int = 0) -> Tensor:
    """Invert DDIM: find the noise x at levels[0] from which ddim makes x0 [B, C, H, W] (Song et al. 2021, section 4.3).

    levels: noisiest first, then CLEAN; walked from the end. A step back is ddim_step solved for its beginning, in which
    the estimate is taken there as well: fixed-point iteration from the eps of the step before, 1 + refine evaluations.
    At its fixed point `trajectory` with ddim gives x0 back exactly; before it the error is of order 2 + refine in the
    step. InputError for a grid of one step from pure noise, which holds no image.
    """
    check_count("refine", refine, 0)
    if levels[0].alpha == 0 and levels[1].sigma == 0:
        raise InputError("one step from pure noise cannot be inverted: take two steps or more")
    x, eps = x0, None
    for nxt, now in reversed(list(pairwise(levels))):
        ratio = nxt.alpha / now.alpha
        added = nxt.sigma - ratio * now.sigma
        guess = ratio * x if eps is None else ratio * x + added * eps
        for _ in range(1 + refine):
            estimate = denoise(guess, nxt)
            if now.half_log_snr + nxt.half_log_snr < MOSTLY_NOISE:
                eps = eps_of(x, estimate, now)
            else:
                eps = eps_of(guess, estimate, nxt)
            guess = ratio * x + added * eps
        x = guess
    return x
