"""The training loop: a generator of steps. It knows nothing of noise: it is handed the batches and the loss.

Everything random in step s is a function of (seed, s), so a run that stops and goes on is bitwise the run that never
stopped: a checkpoint needs no generator's state.
"""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from ..randomness import DROPOUT, derived_seed
from ..runs.config import TrainConfig
from .ema import ema_decay, update_ema
from .lr import learning_rate

Batch = tuple[Tensor | None, ...]  # whatever the loss needs, each [B, ...]
DrawBatch = Callable[[int], Batch]  # step -> the whole batch of that step
Loss = Callable[..., Tensor]  # (model, *batch) -> loss per picture [B]


MEMORY = "memory: "  # in front of its names in a checkpoint


class StepResult(NamedTuple):
    """One optimiser step, still on the device: reading it is the caller's choice."""

    step: int  # steps done, this one included
    losses: Tensor  # [B]
    grad_norm: Tensor  # [] before clipping
    lr: float


@dataclass
class TrainState:
    """All that a run carries from one step to the next."""

    model: nn.Module
    ema: nn.Module
    optimizer: torch.optim.Optimizer
    memory: nn.Module | None = None  # buffers that the loss keeps from step to step
    step: int = 0

    @classmethod
    def fresh(cls, model: nn.Module, config: TrainConfig, memory: nn.Module | None = None) -> "TrainState":
        """The start of a run: the average begins as the model."""
        ema = copy.deepcopy(model).eval().requires_grad_(False)
        kind = torch.optim.AdamW if config.weight_decay else torch.optim.Adam
        optimizer = kind(model.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True)
        return cls(model, ema, optimizer, memory)

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


def total_steps(config: TrainConfig) -> int:
    """Optimiser steps in the budget; the last batch may go a little over it."""
    return math.ceil(config.images / config.batch)


def train_steps(state: TrainState, draw: DrawBatch, loss: Loss, config: TrainConfig) -> Iterator[StepResult]:
    """Train from state.step to the end of the budget, yielding after every step."""
    while state.step < total_steps(config):
        yield train_step(state, draw(state.step), loss, config)


def train_step(state: TrainState, batch: Batch, loss: Loss, config: TrainConfig) -> StepResult:
    """One optimiser step on one batch, in micro-batches whose gradients add up to the mean over the batch."""
    seen = state.step * config.batch
    lr = learning_rate(seen, config.images, config.lr, config.warmup, config.lr_decay)
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    state.model.train()
    state.optimizer.zero_grad(set_to_none=True)
    losses = []
    for start in range(0, config.batch, config.micro_batch or config.batch):
        torch.manual_seed(derived_seed(config.seed, DROPOUT, state.step, start))
        rows = slice(start, start + (config.micro_batch or config.batch))
        part = loss(state.model, *(None if value is None else value[rows] for value in batch))
        (part.sum() / config.batch).backward()
        losses.append(part.detach())
    grad_norm = clip_grad_norm_(state.model.parameters(), config.clip_norm or math.inf)
    state.optimizer.step()
    state.step += 1
    update_ema(state.ema, state.model, ema_decay(seen, config.batch, config.ema_half_life))
    return StepResult(state.step, torch.cat(losses), grad_norm, lr)
