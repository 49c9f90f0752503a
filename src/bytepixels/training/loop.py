"""The training loop: a generator of optimiser steps over given batches and a given loss.

Everything random in step s is a function of (seed, s) and of the position in the global batch, so a run that stops and
goes on is bitwise the run that never stopped (a checkpoint needs no generator's state), and several processes draw what
one would.
"""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.profiler import record_function
from torch.nn.utils import clip_grad_norm_

from ..config.training import TrainConfig
from ..config.units import images_in
from ..distributed.process_group import SINGLE_PROCESS, ProcessGroup
from ..randomness import DROPOUT, seed_torch
from .ema import ema_decay, update_ema
from .learning_rate import learning_rate
from .optimizers import make_optimizer, no_moments

Batch = tuple[Tensor | None, ...]  # whatever the loss needs, each [B, ...]
DrawBatch = Callable[[int], Batch]  # step -> this process' rows of that step's batch
Loss = Callable[..., Tensor]  # (model, *batch) -> loss per image [B]


PHASES = DATA, FORWARD, BACKWARD, OPTIMISER, AVERAGE = (
    "data",
    "forward",
    "backward",
    "optimiser",
    "average",
)  # of a step
MEMORY = "memory: "  # in front of its names in a checkpoint


class StepResult(NamedTuple):
    """The result of one optimiser step, still on the device, so that reading it is the caller's choice."""

    step: int  # steps done, this one included
    losses: Tensor  # [B], of this process' rows
    grad_norm: Tensor  # [] before clipping; not finite where the step was skipped
    lr: float


@dataclass
class TrainState:
    """The state that a run carries from one step to the next."""

    model: nn.Module
    ema: nn.Module
    optimizer: torch.optim.Optimizer
    network: nn.Module  # the model as the loss calls it: itself, or what averages its gradients over processes
    memory: Any = None  # buffers that the loss keeps from step to step; settle(gather) takes in what a step showed
    world: ProcessGroup = SINGLE_PROCESS
    step: int = 0

    @classmethod
    def fresh(
        cls, model: nn.Module, config: TrainConfig, memory: Any = None, world: ProcessGroup = SINGLE_PROCESS
    ) -> "TrainState":
        """The initial state of a run; the EMA begins as the model."""
        ema = copy.deepcopy(model).eval().requires_grad_(False)
        world.shard(model, ema)
        optimizer = make_optimizer(model, config)
        called: Any = torch.compile(model, dynamic=False) if config.compile == "yes" else model
        return cls(model, ema, optimizer, world.wrapped(called), memory, world)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """What a checkpoint holds, and all that goes on from it needs: file -> name -> tensor, those in use."""
        for parameter in self.model.parameters():  # moments of zero where the optimizer has none yet
            self.optimizer.state[parameter] = self.optimizer.state.get(parameter) or no_moments(parameter)
        optimizer = {
            f"{name}.{key}": value
            for name, parameter in self.model.named_parameters()
            for key, value in self.optimizer.state[parameter].items()
        }
        if self.memory is not None:
            optimizer |= {MEMORY + name: value for name, value in self.memory.state_dict().items()}
        return {"model": self.model.state_dict(), "ema": self.ema.state_dict(), "optimizer": optimizer}

    @torch.no_grad()
    def load(self, step: int, tensors: dict[str, dict[str, Tensor]]) -> None:
        """Load a checkpoint. Tensors are copied in place, so that their memory layout stays the model's."""
        self.step = step
        for stem, named in self.tensors().items():
            for name, tensor in named.items():
                tensor.copy_(tensors[stem][name])

    @torch.no_grad()
    def share(self) -> None:
        """Broadcast the checkpoint that rank 0 has loaded to all ranks."""
        self.step = self.world.all_max(self.step)[0]
        for named in self.tensors().values() if self.step else ():
            self.world.broadcast(named)


def total_steps(config: TrainConfig) -> int:
    """The number of optimiser steps in the budget, rounded up."""
    return math.ceil(config.images / config.batch)


def train_steps(
    state: TrainState, draw: DrawBatch, loss: Loss, settings: Callable[[], TrainConfig]
) -> Iterator[StepResult]:
    """Train from state.step to the end of the budget, yielding after every step; the settings may move that end."""
    while state.step < total_steps(config := settings()):
        with record_function(DATA):
            batch = draw(state.step)
        yield train_step(state, batch, loss, config)


def train_step(state: TrainState, batch: Batch, loss: Loss, config: TrainConfig) -> StepResult:
    """Run one optimiser step on one batch, in micro-batches whose gradients average over the global batch."""
    seen = state.step * config.batch
    warmup, half_life = (images_in(length, config.images) for length in (config.warmup, config.ema_half_life))
    lr = learning_rate(seen, config.images, config.lr, warmup, config.lr_decay)
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    state.model.train()
    state.optimizer.zero_grad(set_to_none=True)
    parts, rows = list[Tensor](), state.world.local_rows(config.batch)
    turns = state.world.micro_batches(config.batch, config.micro_batch)
    for turn in turns:
        seed_torch(config.seed, DROPOUT, state.step, rows.start + turn.start)  # for layers of others'
        with state.world.synchronising(state.network, now=turn == turns[-1]):
            with record_function(FORWARD):
                part = loss(state.network, *(None if value is None else value[turn] for value in batch))
            with record_function(BACKWARD):
                (part.sum() / (config.batch / state.world.size)).backward()  # processes are averaged
        parts.append(part.detach())
    losses = torch.cat(parts)
    with record_function(OPTIMISER):
        grad_norm = update_weights(state, losses, config)
    state.step += 1
    if state.memory is not None:
        state.memory.settle(partial(state.world.gather, batch=config.batch))
    with record_function(AVERAGE):
        update_ema(state.ema, state.model, ema_decay(seen, config.batch, half_life))
    return StepResult(state.step, losses, grad_norm, lr)


def update_weights(state: TrainState, losses: Tensor, config: TrainConfig) -> Tensor:
    """Clip the gradients and apply the optimiser; returns their norm [], NaN if the step was skipped."""
    grad_norm = state.world.gather_full(clip_grad_norm_(state.model.parameters(), config.clip_norm or math.inf))
    if config.on_nonfinite == "skip":
        broken = state.world.sum((~losses.isfinite().all()).float()) + ~grad_norm.isfinite()
        if broken > 0:  # which waits for the device
            return torch.full_like(grad_norm, math.nan)
    state.optimizer.step()
    return grad_norm
