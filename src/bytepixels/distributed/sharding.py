"""Fully sharded networks (FSDP2): each rank keeps 1/N of every parameter, gradient and optimiser state.

Rajbhandari et al. 2020 (ZeRO, stage 3). Torch gathers a layer's parameters before it is called and forgets them after.
"""

from typing import Any

import torch
from torch import Tensor, distributed, nn


def shard(device: torch.device, *models: nn.Module) -> Any:
    """Distribute the models over all processes, in place, to `device`: parameters become DTensors, split by their rows.

    The layers in a model's ModuleLists are gathered one at a time, the rest of it at once. Parameters are made
    contiguous first, which torch asks for. Whole they only ever lie where they lay before: build them on the CPU.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (distributed.get_world_size(),))
    for model in models:
        model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
        inner = [layer for layers in reversed(lists) for layer in layers]  # a list within a list comes before it
        for part in [*(layer for layer in inner if not isinstance(layer, nn.ModuleList)), model]:
            # else a model keeps its own parameters whole after a call without a backward pass
            fully_shard(part, mesh=mesh, reshard_after_forward=True)
    return mesh


def synchronise(network: nn.Module, now: bool) -> None:
    """Choose whether the next backward pass reduces gradients over the ranks, or leaves that to a later one."""
    from torch.distributed.fsdp import FSDPModule

    assert isinstance(network, FSDPModule)
    network.set_requires_gradient_sync(now)


def whole(tensor: Tensor) -> Tensor:
    """Gather a sharded tensor in full; a collective call."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a sharded tensor."""
    from torch.distributed.tensor import DTensor

    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
