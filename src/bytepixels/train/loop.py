"""The training loop: a generator of steps. It knows nothing of noise: it is handed the batches and the loss.

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

from ..randomness import DROPOUT, derived_seed
from ..runs.config import TrainConfig
from .distributed import ALONE, World
from .ema import ema_decay, update_ema
from .lr import learning_rate

Batch = tuple[Tensor | None, ...]  # whatever the loss needs, each [B, ...]
DrawBatch = Callable[[int], Batch]  # step -> this process' rows of that step's batch
Loss = Callable[..., Tensor]  # (model, *batch) -> loss per picture [B]


PHASES = DATA, FORWARD, BACKWARD, OPTIMISER, AVERAGE = (
    "data",
    "forward",
    "backward",
    "optimiser",
    "average",
)  # in a trace
MEMORY = "memory: "  # in front of its names in a checkpoint


class StepResult(NamedTuple):
    """One optimiser step, still on the device: reading it is the caller's choice."""

    step: int  # steps done, this one included
    losses: Tensor  # [B], of this process' rows
    grad_norm: Tensor  # [] before clipping
    lr: float


@dataclass
class TrainState:
    """All that a run carries from one step to the next."""

    model: nn.Module
    ema: nn.Module
    optimizer: torch.optim.Optimizer
    network: nn.Module  # the model as the loss calls it: itself, or what averages its gradients over processes
    memory: Any = None  # buffers that the loss keeps from step to step; settle(gather) takes in what a step showed
    world: World = ALONE
    step: int = 0

    @classmethod
    def fresh(cls, model: nn.Module, config: TrainConfig, memory: Any = None, world: World = ALONE) -> "TrainState":
        """The start of a run: the average begins as the model."""
        ema = copy.deepcopy(model).eval().requires_grad_(False)
        kind = torch.optim.AdamW if config.weight_decay else torch.optim.Adam
        optimizer = kind(model.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True)
        called: Any = torch.compile(model, dynamic=False) if config.compile == "yes" else model
        return cls(model, ema, optimizer, world.wrapped(called), memory, world)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """What a checkpoint holds: file -> name -> tensor."""
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
        """Take over a checkpoint. Tensors are copied into place, so that their memory layout stays the model's."""
        self.step = step
        self.model.load_state_dict(tensors["model"])
        self.ema.load_state_dict(tensors["ema"])
        if self.memory is not None:
            self.memory.load_state_dict(
                {name: tensors["optimizer"][MEMORY + name] for name in self.memory.state_dict()}
            )
        for name, parameter in self.model.named_parameters():
            saved = {key: tensors["optimizer"][f"{name}.{key}"] for key in ("step", "exp_avg", "exp_avg_sq")}
            moments = {key: torch.empty_like(parameter).copy_(saved[key]) for key in ("exp_avg", "exp_avg_sq")}
            self.optimizer.state[parameter] = {"step": saved["step"].clone().to(parameter.device), **moments}

    @torch.no_grad()
    def share(self) -> None:
        """Process 0, which has loaded a checkpoint, gives it to all others."""
        self.step = self.world.agree(self.step)[0]
        if self.step == 0:
            return
        for parameter in self.model.parameters():
            fresh = {"step": torch.zeros((), device=parameter.device)}
            fresh |= {key: torch.zeros_like(parameter) for key in ("exp_avg", "exp_avg_sq")}
            self.optimizer.state[parameter] = self.optimizer.state.get(parameter) or fresh
        for named in self.tensors().values():
            self.world.share(named)


def total_steps(config: TrainConfig) -> int:
    """Optimiser steps in the budget; the last batch may go a little over it."""
    return math.ceil(config.images / config.batch)


def train_steps(state: TrainState, draw: DrawBatch, loss: Loss, config: TrainConfig) -> Iterator[StepResult]:
    """Train from state.step to the end of the budget, yielding after every step."""
    while state.step < total_steps(config):
        with record_function(DATA):
            batch = draw(state.step)
        yield train_step(state, batch, loss, config)


def train_step(state: TrainState, batch: Batch, loss: Loss, config: TrainConfig) -> StepResult:
    """One optimiser step on one batch, in micro-batches whose gradients add up to the mean over the global batch."""
    seen = state.step * config.batch
    lr = learning_rate(seen, config.images, config.lr, config.warmup, config.lr_decay)
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    state.model.train()
    state.optimizer.zero_grad(set_to_none=True)
    losses, rows = [], state.world.rows(config.batch)
    count = rows.stop - rows.start
    micro = min(config.micro_batch or count, count)
    for start in range(0, count, micro):
        torch.manual_seed(derived_seed(config.seed, DROPOUT, state.step, rows.start + start))  # for layers of others
        with state.world.synchronising(state.network, now=start + micro >= count):
            with record_function(FORWARD):
                part = loss(
                    state.network, *(None if value is None else value[start : start + micro] for value in batch)
                )
            with record_function(BACKWARD):
                (part.sum() / (config.batch / state.world.size)).backward()  # processes are averaged
        losses.append(part.detach())
    with record_function(OPTIMISER):
        grad_norm = clip_grad_norm_(state.model.parameters(), config.clip_norm or math.inf)
        state.optimizer.step()
    state.step += 1
    with record_function(AVERAGE):
        update_ema(state.ema, state.model, ema_decay(seen, config.batch, config.ema_half_life))
    if state.memory is not None:
        state.memory.settle(partial(state.world.gather, batch=config.batch))
    return StepResult(state.step, torch.cat(losses), grad_norm, lr)
