"""Denoisers: callables (x [B, C, H, W], level) -> estimate of x0, like x. They are all that a sampler ever sees.

Those of flow maps take a destination too, (x, level, nxt), see `flow_map.py`; wrappers hand it on. Guidance is a
wrapper round a denoiser. Everywhere here, scale 1 is no guidance.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from .levels import Level, way_between
from .prediction import coefficients

Denoise = Callable[..., Tensor]  # (x, level), or (x, level, nxt)


@dataclass(frozen=True)
class Denoiser:
    """Estimates x0 by a network(x, t, label=None, text=None) that predicts `prediction` ("eps", "x0" or "v").

    With `nxt`, a cleaner level, the network is told the way there, as destination. A network with a learned variance
    returns twice the channels: the prediction, then the variance's fraction.
    """

    network: Callable[..., Tensor]
    prediction: str = "eps"
    sigma_data: float = 1.0
    label: Tensor | None = None  # [B] int64
    text: tuple[Tensor, Tensor] | None = None  # vectors [B, L, D], and bool [B, L]: which of them there are

    def __call__(self, x: Tensor, level: Level, nxt: Level | None = None) -> Tensor:
        return self.estimate(x, level, nxt)[0]

    def estimate(self, x: Tensor, level: Level, nxt: Level | None = None) -> tuple[Tensor, Tensor | None]:
        """x0, and the learned variance's fraction in -1..1 (None where none was learned), each like x."""
        c_in, c_skip, c_out = coefficients(self.prediction, level.alpha, level.sigma, self.sigma_data)
        t = torch.full((len(x),), level.t, device=x.device, dtype=torch.float32)  # [B]
        given = () if self.label is None else (self.label,)
        network = self.network if self.text is None else partial(self.network, text=self.text)
        if nxt is not None:
            network = partial(network, destination=torch.full_like(t, way_between(level, nxt, self.sigma_data)))
        scaled = x if c_in == 1 else c_in * x
        output = network(scaled.to(first_parameter(self.network, x).dtype), t, *given).to(x.dtype)
        output, fraction = split_variance(output, x.shape[1])
        if output.shape != x.shape:
            raise InputError(f"the network must return {list(x.shape)} or twice the channels, got {list(output.shape)}")
        return linear_combination((c_skip, x), (c_out, output)), fraction


def linear_combination(*terms: tuple[float, Tensor]) -> Tensor:
    """The sum of factor * tensor over the terms, with one pass over memory per term."""
    (factor, x), *others = terms
    total = factor * x
    for factor, x in others:
        total.add_(x, alpha=factor)
    return total


def split_variance(output: Tensor, channels: int) -> tuple[Tensor, Tensor | None]:
    """Split an output [B, 2C, H, W] into prediction and variance fraction in -1..1; [B, C, H, W] returns with None."""
    if output.shape[1] != 2 * channels:
        return output, None
    return output[:, :channels], output[:, channels:].clamp(-1, 1)


def first_parameter(network: Callable[..., Tensor], default: Tensor) -> Tensor:
    """The first parameter of a network, for its dtype and device; `default` if it has none."""
    return next(network.parameters(), default) if isinstance(network, nn.Module) else default


def eps_of(x: Tensor, x0: Tensor, level: Level) -> Tensor:
    """The noise in x, given the estimate of x0."""
    return (x - level.alpha * x0) / level.sigma


def clipped(denoise: Denoise, low: float | Tensor = -1.0, high: float | Tensor = 1.0) -> Denoise:
    """Clip the estimate of x0 to [low, high]: known bounds of pixels, or [C, 1, 1] per channel for latents."""
    return lambda x, level, *nxt: denoise(x, level, *nxt).clamp(low, high)  # type: ignore[arg-type]


def guided(
    denoise: Denoise,
    unconditional: Denoise,
    scale: float,
    interval: tuple[float, float] = (0.0, math.inf),
    rescale: float = 0.0,
    parallel: float = 1.0,
    bound: float = math.inf,
) -> Denoise:
    """Classifier-free guidance: unconditional + scale * (denoise - unconditional), in x0.

    scale: 1 is no guidance, 0 is `unconditional`. With a model that does not know the label it is classifier-free
    guidance (Ho & Salimans 2022, eq. 6, as a scale 1 + w); with a weaker model, autoguidance (Karras et al. 2024).
    interval: of sigma / alpha where it acts (Kynkäänniemi et al. 2024). rescale: 0..1, how much of the conditional
    estimate's standard deviation is given back (Lin et al. 2024, eq. 15 and 16). parallel: 0..1, how much is kept of
    the part of the difference that only strengthens the estimate, and bound: of the difference's root mean square
    (Sadat et al. 2024, APG, without its momentum). Two Denoisers of one network are evaluated as one batch.
    """
    if scale == 1:
        return denoise
    low, high = interval
    both = _batched_pair(denoise, unconditional)

    def guide(x: Tensor, level: Level, *nxt: Level) -> Tensor:
        if not low <= math.exp(-level.half_log_snr) <= high:  # sigma / alpha
            return denoise(x, level, *nxt)
        towards, away = both(x, level, *nxt)
        x0 = torch.lerp(away, towards, scale)
        if parallel != 1 or bound < math.inf:
            x0 = towards + (scale - 1) * projected(towards - away, towards, parallel, bound)
        if rescale > 0:
            ratio = towards.std((1, 2, 3), keepdim=True) / x0.std((1, 2, 3), keepdim=True).clamp(min=1e-8)
            x0 = torch.lerp(x0, x0 * ratio, rescale)
        return x0

    return guide


def projected(difference: Tensor, along: Tensor, parallel: float, bound: float) -> Tensor:
    """`difference`, its root mean square at most `bound`, with `parallel` of its component along `along`."""
    size = difference.square().mean((1, 2, 3), keepdim=True).sqrt()
    difference = difference * (bound / size.clamp(min=1e-8)).clamp(max=1)
    length = along.square().sum((1, 2, 3), keepdim=True).clamp(min=1e-8)
    return difference - (1 - parallel) * (difference * along).sum((1, 2, 3), keepdim=True) / length * along


def _batched_pair(one: Denoise, other: Denoise) -> Callable[..., tuple[Tensor, ...]]:
    """Evaluate both denoisers as one batch of twice the size, where they differ in labels and texts alone."""
    if isinstance(one, Denoiser) and isinstance(other, Denoiser):
        told: dict[str, Any] = {}
        if one.label is not None and other.label is not None:
            told["label"] = torch.cat([one.label, other.label])
        if one.text is not None and other.text is not None:
            told["text"] = tuple(torch.cat(both) for both in zip(one.text, other.text, strict=True))
        pair = replace(one, **told)
        if told and replace(other, **told) == pair:
            return lambda x, level, *nxt: tuple(pair(torch.cat([x, x]), level, *nxt).chunk(2))
    return lambda x, level, *nxt: (one(x, level, *nxt), other(x, level, *nxt))


def classifier_guided(denoise: Denoise, log_prob: Callable[[Tensor, Level], Tensor], scale: float) -> Denoise:
    """Classifier guidance (Dhariwal & Nichol 2021, section 4) by the gradient of `log_prob`(x_t, level) -> [B].

    x0 + (scale - 1) * sigma^2 / alpha * gradient (from eps - sigma * gradient, their Algorithm 2): scale 1 is no
    guidance, scale 2 is Bayes' rule for a `denoise` that knows nothing of the label. Nothing is added at pure noise.
    """
    if scale == 1:
        return denoise

    def guide(x: Tensor, level: Level, *nxt: Level) -> Tensor:
        x0 = denoise(x, level, *nxt)
        if level.alpha == 0:
            return x0
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(log_prob(leaf, level).sum(), leaf)
        return x0 + (scale - 1) * level.sigma**2 / level.alpha * gradient

    return guide


def learned_variance(denoiser: Denoiser) -> tuple[Denoise, Denoise]:
    """The estimate of x0 and the learned variance's fraction, from one evaluation at x and level."""
    last: list[Any] = [None, None, None]  # x, level, estimate

    def estimate(x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        if last[0] is not x or last[1] != level:
            x0, fraction = denoiser.estimate(x, level)
            if fraction is None:
                raise InputError("variance learned needs a network that returns twice the channels")
            last[:] = x, level, (x0, fraction)
        return last[2]

    return lambda x, level: estimate(x, level)[0], lambda x, level: estimate(x, level)[1]
