"""Optimisers: Adam, or Muon for matrices with Adam for the rest."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..config.training import TrainConfig

MIN_MATRIX_SIDE = 5  # rows or columns of a hidden layer's weight; an image has at most four channels
MATRIX_STATE = "momentum_buffer"  # torch.optim.Muon's name
MOMENTUM = 0.95  # Nesterov's
QUINTIC = 3.4445, -4.7750, 2.0315  # of the Newton-Schulz step, steepest at zero (Jordan et al. 2024)


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Build the optimiser of a fresh run by its name in the config."""
    if config.optimizer == "muon":
        return Muon(model, config.lr, config.weight_decay, bf16=config.precision == "bf16")
    return adam(model.parameters(), config.lr, config.weight_decay)


def adam(parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """Build Adam, or AdamW if there is weight decay."""
    kind = torch.optim.AdamW if weight_decay else torch.optim.Adam
    return kind(parameters, lr=lr, weight_decay=weight_decay, fused=True)


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024): a hidden layer's step is its momentum, orthogonalised; as torch.optim.Muon in bf16.

    A convolution's weight [out, in, h, w] is a matrix of `out` rows. Steps are scaled to Adam's typical size (Liu et
    al. 2025, eq. 4), so that one learning rate serves both. Embeddings, biases, norms and what touches the image's
    own channels are Adam's. `state` is that of both, by parameter; a tensor in it has its parameter's shape, or none.

    bf16: make steps orthogonal in bf16 on a CPU too, as on cards always; else in float32, which most CPUs multiply far
        faster.
    """

    def __init__(self, model: nn.Module, lr: float, weight_decay: float, bf16: bool = False):
        super().__init__(model.parameters(), {"lr": lr})
        self.weight_decay, self.bf16, self.matrices = weight_decay, bf16, hidden_weights(model)
        chosen = {id(weight) for weight in self.matrices}
        others = [parameter for parameter in model.parameters() if id(parameter) not in chosen]
        self.adam = adam(others, lr, weight_decay)
        self.state = self.adam.state
        for weight in self.matrices:
            self.state[weight] = {MATRIX_STATE: torch.zeros_like(weight.detach())}

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step of every matrix, and Adam's of everything else."""
        lr = self.param_groups[0]["lr"]
        for group in self.adam.param_groups:
            group["lr"] = lr
        for weight in self.matrices:
            if weight.grad is not None:
                self._matrix_step(weight, weight.grad, lr)
        self.adam.step()

    def _matrix_step(self, weight: Tensor, gradient: Tensor, lr: float) -> None:
        """Move one weight by its momentum made orthogonal."""
        momentum = self.state[weight][MATRIX_STATE]
        momentum.lerp_(gradient, 1 - MOMENTUM)
        ahead = as_matrix(gradient.lerp(momentum, MOMENTUM), weight)
        step = orthogonal(ahead.bfloat16() if self.bf16 or weight.is_cuda else ahead)
        matrix = as_matrix(weight.detach(), weight)
        assert matrix.data_ptr() == weight.data_ptr(), "a weight that is not dense has no view as a matrix"
        matrix.mul_(1 - lr * self.weight_decay)
        matrix.add_(step, alpha=-lr * 0.2 * max(matrix.shape) ** 0.5)


def orthogonal(matrix: Tensor) -> Tensor:
    """Orthogonalise a matrix, U S V' -> about U V': five Newton-Schulz steps take singular values of at least 0.0015 of
    the matrix's norm to between 0.67 and 1.21, smaller ones to less."""
    a, b, c = QUINTIC
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def hidden_weights(model: nn.Module) -> list[nn.Parameter]:
    """The weights of the convolutions and linear layers between hidden layers."""
    weights = (layer.get_parameter("weight") for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear))
    return [weight for weight in weights if min(weight.shape[:2]) >= MIN_MATRIX_SIDE]


def as_matrix(tensor: Tensor, weight: Tensor) -> Tensor:
    """Reshape [out, ...] to [out, n] in the memory order of `weight`, of the same shape: a view of itself."""
    if weight.dim() == 4 and weight.is_contiguous(memory_format=torch.channels_last):
        tensor = tensor.permute(0, 2, 3, 1)
    return tensor.flatten(1)


def no_moments(parameter: nn.Parameter) -> dict[str, Tensor]:
    """The state of a parameter in Adam before its first step."""
    return {
        "step": torch.zeros((), device=parameter.device),
        "exp_avg": torch.zeros_like(parameter),
        "exp_avg_sq": torch.zeros_like(parameter),
    }
