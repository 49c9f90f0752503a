"""Tensors that no process holds whole, as safetensors shards: torch.distributed.checkpoint without its pickles.

step-00001200/model/shard-00001-model-00001-of-00001.safetensors, ...: one file from each process that wrote, with its
rows of every tensor; where they begin is in the file's header. Any number of processes may read them.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from ..errors import InputError

OLDEST = "2.9"  # of torch, that has such files


def write_shards(folder: Path, named: Mapping[str, Tensor]) -> None:
    """Write what the processes hold, DTensors or the same everywhere, to a new folder, flushed to the disk.

    All of them call it. Raises OSError in all of them when one of them could not write.
    """
    checkpoint = library()
    writer = checkpoint.HuggingFaceStorageWriter(str(folder), save_distributed=True)
    with _plain_errors():
        checkpoint.save(dict(named), storage_writer=writer)


def read_whole(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder of shards, put together."""
    named = {name: torch.empty_like(like, device="cpu") for name, like in headers(folder).items()}
    read_part(folder, named)
    return named


def read_part(folder: Path, named: Mapping[str, Tensor]) -> None:
    """Copy shards into tensors, in place: of a DTensor, what this process holds of it. Each reads for itself."""
    checkpoint = library()
    with _plain_errors(), warnings.catch_warnings(action="ignore", category=UserWarning):  # of one process: it is meant
        checkpoint.load(dict(named), storage_reader=checkpoint.HuggingFaceStorageReader(str(folder)), no_dist=True)


def headers(folder: Path) -> dict[str, Tensor]:
    """The tensors of a folder of shards without their content, on the meta device."""
    known = library().HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    return {name: torch.empty(one.size, dtype=one.properties.dtype, device="meta") for name, one in known.items()}


def file_headers(path: Path) -> dict[str, Tensor]:
    """The tensors of one safetensors file without their content, on the meta device."""
    with safe_open(path, "pt") as file:
        return {name: torch.empty(file.get_slice(name).get_shape(), device="meta") for name in file.keys()}  # noqa: SIM118


def read_part_of_file(path: Path, named: Mapping[str, Tensor]) -> None:
    """Copy what one process wrote into tensors, in place: of a DTensor, what this process holds of it."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    with safe_open(path, "pt") as file:
        for name, tensor in named.items():
            found = file.get_tensor(name)  # a map of the file: no process reads more than it takes
            if isinstance(tensor, DTensor):
                found = found.to(tensor.device)
                found = distribute_tensor(found, tensor.device_mesh, tensor.placements, src_data_rank=None)
            tensor.copy_(found)


def library() -> Any:
    """torch.distributed.checkpoint; InputError where it does not know how to write safetensors from all processes."""
    from torch.distributed import checkpoint

    writer = getattr(checkpoint, "HuggingFaceStorageWriter", None)
    if writer is None or "save_distributed" not in signature(writer).parameters:
        raise InputError(f"--shard and its checkpoints need torch {OLDEST} or newer, this is {torch.__version__}")
    return checkpoint


@contextmanager
def _plain_errors() -> Iterator[None]:
    """What went wrong in any process as an OSError. Torch's own, which tells of all, is no Exception."""
    from torch.distributed.checkpoint import CheckpointException

    try:
        yield
    except CheckpointException as error:
        cause = next(iter(error.failures.values()))[0]
        if isinstance(cause, OSError) and cause.errno:
            raise OSError(cause.errno, cause.strerror) from error
        raise OSError(str(cause)) from error
