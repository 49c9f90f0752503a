"""Linear operators that measure images: y = A x, each with its transpose.

x is [B, C, H, W], y [B, ...]. Matrices are made in float64 and take the type and the device of what they are given.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError, check_count, check_range

Linear = Callable[[Tensor], Tensor]
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, by which Pillow makes images grey


@dataclass(frozen=True)
class LinearOperator:
    """A: images x [B, C, H, W] -> measurements y [B, ...], and its transpose: <A x, y> = <x, A^T y>."""

    apply: Linear
    transpose: Linear


def operator_of(apply: Linear, shape: tuple[int, ...]) -> LinearOperator:
    """Any linear function of images [B, *shape] that torch differentiates: its transpose is its gradient's."""

    def transpose(y: Tensor) -> Tensor:
        with torch.enable_grad():
            x = torch.zeros(len(y), *shape, dtype=y.dtype, device=y.device, requires_grad=True)
            (image,) = torch.autograd.grad(apply(x), x, y)
        return image

    return LinearOperator(apply, transpose)


def separable(rows: Tensor, columns: Tensor) -> LinearOperator:
    """y = rows x columns^T [B, C, h, w], of every channel: rows [h, H], columns [w, W]."""
    return LinearOperator(lambda x: rows.to(x) @ x @ columns.to(x).T, lambda y: rows.to(y).T @ y @ columns.to(y))


def downscale(size: tuple[int, int], factor: int) -> LinearOperator:
    """The mean of every block of factor x factor pixels. InputError unless it divides both sides of `size` (H, W)."""
    check_count("factor", factor, 1)
    height, width = size
    if height % factor or width % factor:
        raise InputError(f"factor must divide both sides of {height} x {width}, got {factor}")
    return separable(*(torch.eye(n // factor).repeat_interleave(factor, dim=1) / factor for n in size))


def blur(size: tuple[int, int], std: float) -> LinearOperator:
    """A Gaussian of `std` pixels, cut off at 4 std; beyond the edges of `size` (H, W) the image goes on mirrored."""
    check_range("blur std", std, 0)
    return separable(*(_blur_matrix(n, std) for n in size))


def _blur_matrix(n: int, std: float) -> Tensor:
    """[n, n] float64, every row adding up to 1."""
    offsets = torch.arange(-math.ceil(4 * std), math.ceil(4 * std) + 1)
    weights = torch.exp(-0.5 * (offsets.double() / (std or 1)) ** 2)
    place = (torch.arange(n)[:, None] + offsets) % (2 * n)
    place = torch.minimum(place, 2 * n - 1 - place)
    return torch.zeros(n, n, dtype=torch.float64).scatter_add_(1, place, (weights / weights.sum()).expand(n, -1))


def grayscale(weights: tuple[float, ...] = LUMA) -> LinearOperator:
    """The weighted sum of the channels, [B, 1, H, W]."""
    column = torch.tensor(weights, dtype=torch.float64)[:, None, None]
    return LinearOperator(lambda x: (column.to(x) * x).sum(1, keepdim=True), lambda y: column.to(y) * y)


def masked(keep: Tensor) -> LinearOperator:
    """x where `keep` is 1, and 0 where it is 0; keep broadcasts with x."""
    return LinearOperator(lambda x: keep.to(x) * x, lambda y: keep.to(y) * y)


def check_transpose(operator: LinearOperator, like: Tensor) -> None:
    """InputError unless <A x, y> = <x, A^T y> for random x like `like` [B, C, H, W], and y."""
    x = torch.randn(like.shape, dtype=like.dtype, generator=torch.Generator().manual_seed(0)).to(like.device)
    image = operator.apply(x)
    y = image + operator.apply(x.flip(0, -1))
    back = operator.transpose(y)
    if back.shape != x.shape:
        raise InputError(f"the operator's transpose must return images {list(x.shape)}, got {list(back.shape)}")
    one, other = (image * y).sum().item(), (x * back).sum().item()
    if not math.isclose(one, other, rel_tol=1e-3, abs_tol=1e-3):
        products = f"<A x, y> is {one:g}, <x, A^T y> is {other:g}"
        raise InputError(f"the operator is not linear, or its transpose is not its own: {products}")
