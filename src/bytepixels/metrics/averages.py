"""Means with their standard errors, and images in batches."""

import math

import torch
from torch import Tensor


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """The mean over images [n], and its standard error (NaN for one image)."""
    error = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return values.mean().item(), error


def parts(n: int, batch: int) -> list[slice]:
    """Split 0..n into slices of at most `batch`."""
    return [slice(start, min(start + batch, n)) for start in range(0, n, batch)]


def rows_of(label: Tensor | None, part: slice | Tensor) -> Tensor | None:
    """Index the labels, if there are any."""
    return None if label is None else label[part]


def joined(pieces: list[Tensor]) -> Tensor:
    """Join what batches returned, [..., B] each, along their images, on the host in float64."""
    return torch.cat([piece.cpu().double() for piece in pieces], dim=-1)
