"""The training of a flow map, from scratch or from a plain model: no teacher, no second network, no derivative."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ..errors import InputError
from .denoiser import split_variance
from .flow_map import draw_leaps, weights_of_parts
from .levels import Process
from .losses import diffusion_loss
from .prediction import coefficients, target


def flow_map_loss(
    model: Callable[..., Tensor],
    process: Process,
    x0: Tensor,
    r: float,
    prediction: str = "eps",
    label: Tensor | None = None,
    t: Tensor | None = None,
    noise: Tensor | None = None,
    weighting: str | None = None,
    leap: Tensor | None = None,
    power: float = 0.0,
    guidance: float = 1.0,
    unconditional: Callable[..., Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """The loss of each image [B], and the times [B] it was measured at; arguments as in `diffusion_loss`.

    The target of D(x_t, t -> s) is w x0 + (1 - w) D(x_l, l -> s), without a gradient through it: x0 stands for
    D(x_t, t -> l), whose mean it is for a short way, and x_l has the noise of x_t (Luo et al. 2026, SoFlow; Zhang et
    al. 2025, alpha-Flow). r in (0, 1]: how far l lies on the way from t to s, in angle. At r = 1, l is s and this is
    `diffusion_loss` bit for bit. The minimum is ddim with infinitely many steps, each a share r of what is left of the
    way, so it differs from the flow map by O(r): for Gaussian data of variance sigma_data^2 one step from pure noise is
    narrower by about exp(-pi^2 r / (16 - 8 r)), 4% at 1/16 and 1% at 1/64.

    leap: [B] in 0..1, where s lies on the way from t to the clean end; drawn when None. Target and output differ by
    O(r), so the square is divided by r for a gradient that stays. power: of the weight
    1 / (square / r^2 + 0.001)^power, without a gradient, that tames large errors where r < 1 (as Geng et al. 2025).
    model(x, t, [label,] destination=[B]): see `DestinationReader`. It is evaluated twice where r < 1; bind
    `dropout_keys` to it, and both times the same is dropped.

    guidance: trained in where r < 1, so that one evaluation is guided: in the target x0 + (1 - 1 / guidance) (D - U)
    stands for x0, D and U the estimates at x_t (t -> t) of the model with and without its label and text. Its mean is D
    where D is U + guidance (E - U), E the model's without guidance (Geng et al. 2025, section 4.2, with kappa = 1 -
    1 / guidance); the target varies no more than x0. unconditional(x, t, destination=[B]) is the model without them;
    by default the model, called without a label.
    """
    if not 0 < r <= 1:
        raise InputError(f"r must be above 0 and at most 1, got {r:g}")
    if prediction == "eps" and process.pure_noise:
        raise InputError("eps says nothing about x0 at pure noise, where a flow map begins: predict v or x0")
    t = (process.draw_times(len(x0)) if t is None else t).to(x0.device)
    _, noise = process.add_noise(x0, t, noise)
    leap = (draw_leaps(len(x0)) if leap is None else leap).to(x0.device)
    start = process.angle(t, torch.promote_types(x0.dtype, torch.float32))
    gap = leap.to(start) * start  # t - s, as angles
    told = partial(model, destination=way_of(gap))
    if r == 1:
        return diffusion_loss(told, process, x0, prediction, label, t, noise, weighting)
    wanted, ratio = bootstrapped(model, process, x0, r, prediction, label, t, noise, gap, guidance, unconditional)
    loss, t = diffusion_loss(told, process, x0, prediction, label, t, noise, weighting, wanted=wanted)
    loss = loss / ratio
    return torch.where(ratio < 1, loss * (loss.detach() / ratio + 1e-3) ** -power, loss), t


@torch.no_grad()
def plain_target(
    model: Callable[..., Tensor],
    process: Process,
    x0: Tensor,
    prediction: str,
    label: Tensor | None,
    t: Tensor,
    noise: Tensor,
    guidance: float = 1.0,
    unconditional: Callable[..., Tensor] | None = None,
) -> Tensor:
    """What the network is to output of x0 alone, like x0: the ordinary target, guided where that is asked for."""
    compute = torch.promote_types(x0.dtype, torch.float32)
    alpha, sigma = process.alpha_sigma(t, compute)
    plain = target(prediction, x0, noise, alpha, sigma, process.sigma_data)
    if guidance == 1:
        return plain
    x_t, _ = process.add_noise(x0, t, noise)
    c_in, _, _ = coefficients(prediction, alpha, sigma, process.sigma_data)
    x, time, stay = (c_in * x_t).to(x0.dtype), t.float(), torch.zeros(len(x0), device=x0.device)
    given = () if label is None else (label,)
    difference = model(x, time, *given, destination=stay) - (unconditional or model)(x, time, destination=stay)
    return plain + (1 - 1 / guidance) * split_variance(difference.to(compute), x0.shape[1])[0]


@torch.no_grad()
def bootstrapped(
    model: Callable[..., Tensor],
    process: Process,
    x0: Tensor,
    r: float,
    prediction: str,
    label: Tensor | None,
    t: Tensor,
    noise: Tensor,
    gap: Tensor,
    guidance: float = 1.0,
    unconditional: Callable[..., Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """What the network is to output, like x0, and the ratio (t - l) / (t - s) of the angles [B], which is about r.

    In a process of whole times l is the nearest one. Where none lies between t and s the target is the ordinary one,
    and the ratio 1.
    """
    compute = torch.promote_types(x0.dtype, torch.float32)
    start = process.angle(t, compute)
    later = process.time_at(start - r * gap)  # the time of l
    if process.whole_times:
        later = torch.minimum(later, t - 1).clamp(min=0)
    middle, end = process.angle(later, compute), start - gap
    between = (end < middle) & (middle < start)
    x_l, _ = process.add_noise(x0, later, noise)
    c_in, c_skip, c_out = coefficients(prediction, *process.alpha_sigma(later, compute), process.sigma_data)
    given = () if label is None else (label,)
    output = model((c_in * x_l).to(x0.dtype), later.float(), *given, destination=way_of(middle - end))
    estimate = c_skip * x_l + c_out * split_variance(output.to(compute), x0.shape[1])[0]  # D(x_l, l -> s)
    alpha, sigma = process.alpha_sigma(t, compute)
    _, c_skip, c_out = coefficients(prediction, alpha, sigma, process.sigma_data)
    w, rest = (weight[:, None, None, None] for weight in weights_of_parts(start, middle, end))
    x_t, _ = process.add_noise(x0, t, noise)
    plain = plain_target(model, process, x0, prediction, label, t, noise, guidance, unconditional)
    wanted = torch.where(between[:, None, None, None], w * plain + rest * (estimate - c_skip * x_t) / c_out, plain)
    return wanted, torch.where(between, (start - middle) / gap, torch.ones_like(gap))


def way_of(gap: Tensor) -> Tensor:
    """What the network is told, [B] float32 in 0..1, of a difference of angles: as `way_between`."""
    return (gap.clamp(min=0) / (math.pi / 2)).float()
