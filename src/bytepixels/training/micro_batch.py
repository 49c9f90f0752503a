"""The memory of a training step, and the largest micro-batch that fits."""

import gc
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from ..data.batches import free_memory
from ..distributed.sharding import local
from ..memory import is_out_of_memory
from .loop import Batch, Loss, TrainState
from .nonfinite import TrainingError

MEMORY_SHARE = 0.7  # of what is free, that a step may take
TRANSIENT = 1.5  # memory of a step over what is kept for its backward pass: gradients on their way, and scratch
CROP = 64  # pixels: what a step takes is reckoned from a corner of this size, and grows with the area


class StepMemory(NamedTuple):
    """Memory of a training step, in bytes."""

    weights: int
    fixed: float  # kept for the backward pass whatever the batch, such as copies of the weights in another type
    each: float  # kept for each image

    def of(self, count: int, copies: int = 5) -> float:
        """Bytes that a step needs; `copies` of the weights: themselves, gradient, two moments, average."""
        return copies * self.weights + TRANSIENT * (self.fixed + count * self.each)

    def at_a_time(self, most: int, free: float, copies: int = 5) -> int:
        """The first of `most`, its half, a quarter, ... that fits in a step's share of `free` bytes, else 1."""
        while most > 1 and self.of(most, copies) > MEMORY_SHARE * free:
            most = -(-most // 2)
        return most


def step_memory(model: nn.Module, loss: Loss, batch: Batch) -> StepMemory:
    """Reckon the memory of a step from forward passes over one and two images of the batch, or corners of them."""
    images = batch[0]
    assert images is not None
    multiple = getattr(model, "multiple", 1)  # a corner must divide into patches, as the images do
    side = max(CROP // multiple, 1) * multiple
    ratio = images[0].numel() / images[0, :, :side, :side].numel()
    once, twice = (kept_bytes(model, loss, corners(batch, count, side)) for count in (1, 2))
    each = twice - once
    return StepMemory(sum(local(p).nbytes for p in model.parameters()), once - each, ratio * each)


def corners(batch: Batch, count: int, side: int = CROP) -> Batch:
    """The first rows of a batch, with images and noise cropped to a corner, at any resolution."""
    assert batch[0] is not None
    sides = batch[0].shape[2:]

    def corner(value: Tensor) -> Tensor:
        if value.dim() != 4:
            return value[:count]
        height, width = (own * min(side, whole) // whole for own, whole in zip(value.shape[2:], sides, strict=True))
        return value[:count, :, :height, :width]

    return tuple(None if value is None else corner(value) for value in batch)


def kept_bytes(model: nn.Module, loss: Loss, batch: Batch) -> int:
    """Bytes that one batch keeps between its forward and backward pass, beside the weights."""
    own = {local(p).untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # itself it would hold on to what it is part of

    with saved_tensors_hooks(note, lambda tensor: tensor):
        losses = loss(model, *batch)
    total = sum(kept.values())
    del losses  # not before: while all of it is alive, no address comes twice
    return total


def largest_micro_batch(state: TrainState, loss: Loss, batch: Batch, micro: int) -> int:
    """The first of `micro`, its half, a quarter, ... images at which a step fits in memory.

    On a GPU a pass of that size is tried. The CPU's memory is promised before it is there, and who takes too much is
    killed; and of a sharded network no process calls its part alone: so there it is reckoned. TrainingError when not
    even one image fits on a GPU.
    """
    if state.world.device.type == "cpu" or state.world.sharded:
        return step_memory(state.model, loss, batch).at_a_time(micro, free_memory(state.world.device), copies=3)
    while not _one_pass_fits(state, loss, tuple(None if value is None else value[:micro] for value in batch)):
        if micro == 1:
            raise TrainingError(f"one image at a time is too much for the memory of {state.world.device}")
        micro = -(-micro // 2)
    return micro


def _one_pass_fits(state: TrainState, loss: Loss, batch: Batch) -> bool:
    """True if there is memory for one pass forward and back, beside what Adam will want."""
    try:
        moments = [] if state.optimizer.state else [torch.zeros_like(p) for p in state.model.parameters() for _ in "mv"]
        with state.world.synchronising(state.network, now=False):
            loss(state.network, *batch).sum().backward()
        del moments
        return True
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        state.optimizer.zero_grad(set_to_none=True)
        gc.collect()
        torch.cuda.empty_cache()
