"""Processes started by torchrun as one group: each computes its rows of the global batch.

Without torchrun there is one process, and all of this is nothing. Several need `join()`, once, at the start.
"""

import atexit
import errno
import gc
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from ..errors import InputError
from . import sharding

CPU = torch.device("cpu")
T = TypeVar("T")


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of one job, as seen by one of them."""

    rank: int = 0  # 0 writes the run and speaks
    size: int = 1
    device: torch.device = CPU
    sharded: bool = False  # each holds a part of what is trained: a call of the network is everybody's
    holders: list[Any] = field(default_factory=list, compare=False, repr=False)  # of the process group

    def local_rows(self, batch: int) -> slice:
        """This rank's slice of the positions in a global batch; slices differ by one row at most."""
        return slice(self.rank * batch // self.size, (self.rank + 1) * batch // self.size)

    def micro_batches(self, batch: int, micro: int) -> list[slice]:
        """The positions in this process' share of a batch, in micro-batches of at most `micro`; 0 is the whole share.

        A sharded network is called by all together: everybody gets as many turns, which are of about the same size.
        (Where a share has fewer rows than another one has turns, those of the other one grow by a row.)
        """
        rows = self.local_rows(batch)
        count = rows.stop - rows.start
        if not self.sharded:
            micro = min(micro or count, count)
            return [slice(start, min(start + micro, count)) for start in range(0, count, micro)]
        least, most = batch // self.size, -(-batch // self.size)
        number = min(-(-most // (micro or most)), least)
        return [slice(k * count // number, (k + 1) * count // number) for k in range(number)]

    def gather(self, part: Tensor, batch: int) -> Tensor:
        """Gather everybody's rows [share, ...] into the global batch [batch, ...] on every rank, bit for bit."""
        if self.size == 1:
            return part
        whole = part.new_zeros((batch, *part.shape[1:]))
        whole[self.local_rows(batch)] = part
        return self.sum(whole)  # every other process adds zeros

    def sum(self, values: Tensor) -> Tensor:
        """Sum over the ranks, in place."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def all_max(self, *flags: int) -> list[int]:
        """Element-wise maximum over ranks, reduced on the host without a device synchronisation."""
        if self.size == 1:
            return list(flags)
        values = torch.tensor(flags)
        distributed.all_reduce(values, distributed.ReduceOp.MAX)
        return values.tolist()

    def run_everywhere(self, work: Callable[[], T]) -> T:
        """Run `work` on every rank. If it raises OSError on one, raise it on all."""
        problem = 0
        try:
            made = work()
        except OSError as error:
            problem = error.errno or errno.EIO
        (problem,) = self.all_max(problem)
        if problem:
            raise OSError(problem, os.strerror(problem))
        return made

    def broadcast_from_rank0(self, make: Callable[[], Any]) -> Any:
        """Run `make` on rank 0 and return its value, which JSON can hold, or raise its InputError, on every rank."""
        if self.size == 1:
            return make()
        said: dict[str, Any] = {}
        if self.rank == 0:
            try:
                said = {"value": make()}
            except InputError as error:
                said = {"refused": str(error)}
        said = json.loads(self._broadcast(json.dumps(said).encode()))
        if "refused" in said:
            raise InputError(said["refused"])
        return said["value"]

    def _broadcast(self, message: bytes) -> bytes:
        """Broadcast a message of bytes from rank 0."""
        length = torch.tensor([len(message)])
        distributed.broadcast(length, 0)
        buffer = torch.empty(int(length), dtype=torch.uint8)
        if self.rank == 0:
            buffer.copy_(torch.frombuffer(bytearray(message), dtype=torch.uint8))
        distributed.broadcast(buffer, 0)
        return bytes(buffer.tolist())

    def broadcast(self, tensors: Mapping[str, Tensor]) -> None:
        """Overwrite every rank's tensors with rank 0's; names and shapes are the same everywhere."""
        if self.size == 1:
            return
        for name in sorted(tensors):
            dense = tensors[name].contiguous()  # whatever its memory format: what is sent has one
            distributed.broadcast(dense, 0)
            tensors[name].copy_(dense)

    def wrapped(self, model: nn.Module) -> nn.Module:
        """Wrap the model for the loss so that the backward pass averages gradients over the ranks (DDP)."""
        if self.size == 1 or self.sharded:
            return model
        devices = [self.device] if self.device.type == "cuda" else None
        wrapper = DistributedDataParallel(model, devices, gradient_as_bucket_view=True)
        self.holders.append(wrapper)
        return wrapper

    def synchronising(self, network: nn.Module, now: bool) -> AbstractContextManager[None]:
        """Synchronise gradients once per optimiser step, in the backward pass of its last micro-batch."""
        if self.sharded:
            sharding.synchronise(network, now)
        if self.size == 1 or self.sharded or now:
            return nullcontext()
        assert isinstance(network, DistributedDataParallel)
        return network.no_sync()

    def shard(self, *models: nn.Module) -> None:
        """Shard the models' parameters over the ranks, in place, if this group is sharded (FSDP)."""
        if self.sharded:
            self.holders.append(sharding.shard(self.device, *models))

    def gather_full(self, value: Tensor) -> Tensor:
        """The full value on every rank of a tensor computed from sharded ones."""
        return sharding.whole(value) if self.sharded else value


SINGLE_PROCESS = ProcessGroup()


def under_torchrun() -> bool:
    """Whether this process is one of several that torchrun started."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def own_device(name: str) -> str:
    """This process's device, where `name` stands for several on one machine."""
    if not under_torchrun() or name in ("cpu", "mps"):
        return name
    if ":" in name:
        raise InputError(f"torchrun gives every process a device of its own: --device cuda or cpu, got {name}")
    local, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if count == 0 and name == "auto":
        return "cpu"
    if local >= count:
        raise InputError(f"process {local} of this machine has no GPU: there are {count}; lower --nproc-per-node")
    return f"cuda:{local}"


@contextmanager
def join(device: torch.device, sharded: bool = False) -> Iterator[ProcessGroup]:
    """Join torchrun's process group, or a group of one. Gloo between CPUs, NCCL between GPUs.

    Behind the block, however that ends, its threads end: for the tensors of the last call they need the interpreter,
    and would abort a process at its exit. So whatever holds the group lets it go: torch's modules that take it for a
    default when they are imported, the wrapper, whose C++ half would wait for the threads while they wait for Python,
    the mesh, which DTensor remembers, and sharded networks, which are cycles.
    """
    if not under_torchrun():
        if sharded:
            raise InputError(
                "--shard needs several processes: torchrun --nproc-per-node 2 -m bytepixels -- train ...; "
                "one alone goes on with --no-shard"
            )
        yield ProcessGroup(device=device)
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    import_module("torch.distributed.nn.functional")  # before there is a group
    store, rank, size = next(distributed.rendezvous("env://"))
    if os.environ.get("GROUP_WORLD_SIZE") == "1":  # after a restart torchrun's store still has the dead ones' addresses
        store = distributed.PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, store=store, rank=rank, world_size=size)
    world = ProcessGroup(rank, size, device, sharded)
    atexit.register(gc.collect)
    try:
        yield world
    finally:
        for holder in world.holders:
            vars(holder).clear()
        distributed.destroy_process_group()
