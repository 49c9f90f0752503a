"""Sharded tensors as safetensors files: torch.distributed.checkpoint without its pickles.

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
    """Write the ranks' tensors, sharded or replicated, to a new folder, flushed to the disk.

    All of them call it. Raises OSError in all of them when one of them could not write.
    """
    checkpoint = library()
    writer = checkpoint.HuggingFaceStorageWriter(str(folder), save_distributed=True)
    with _plain_errors():
        checkpoint.save(dict(named), storage_writer=writer)


def read_whole(folder: Path) -> dict[str, Tensor]:
    """Read and assemble all tensors of a folder of shards."""
    named = {name: torch.empty_like(like, device="cpu") for name, like in headers(folder).items()}
    read_part(folder, named)
    return named


def read_part(folder: Path, named: Mapping[str, Tensor]) -> None:
    """Copy shards into tensors in place: of a DTensor, this rank's part. Each rank reads for itself."""
    checkpoint = library()
    with _plain_errors(), warnings.catch_warnings(action="ignore", category=UserWarning):  # of one process: it is meant
        checkpoint.load(dict(named), storage_reader=checkpoint.HuggingFaceStorageReader(str(folder)), no_dist=True)


def headers(folder: Path) -> dict[str, Tensor]:
    """The tensors of a folder of shards on the meta device, without their content."""
    known = library().HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    return {name: torch.empty(one.size, dtype=one.properties.dtype, device="meta") for name, one in known.items()}


def file_headers(path: Path) -> dict[str, Tensor]:
    """The tensors of one safetensors file on the meta device, without their content."""
    with safe_open(path, "pt") as file:
        return {name: torch.empty(file.get_slice(name).get_shape(), device="meta") for name in file.keys()}  # noqa: SIM118


def read_part_of_file(path: Path, named: Mapping[str, Tensor]) -> None:
    """Copy tensors of a single-process file into tensors in place: of a DTensor, this rank's part."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    with safe_open(path, "pt") as file:
        for name, tensor in named.items():
            found = file.get_tensor(name)  # a map of the file: no process reads more than it takes
            if isinstance(tensor, DTensor):
                found = found.to(tensor.device)
                found = distribute_tensor(found, tensor.device_mesh, tensor.placements, src_data_rank=None)
            tensor.copy_(found)


def library() -> Any:
    """Import torch.distributed.checkpoint; InputError if it cannot write safetensors from all ranks."""
    from torch.distributed import checkpoint

    writer = getattr(checkpoint, "HuggingFaceStorageWriter", None)
    if writer is None or "save_distributed" not in signature(writer).parameters:
        raise InputError(f"--shard and its checkpoints need torch {OLDEST} or newer, this is {torch.__version__}")
    return checkpoint


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Turn the error of any rank into an OSError; torch's own, for all ranks, is not an Exception."""
    from torch.distributed.checkpoint import CheckpointException

    try:
        yield
    except CheckpointException as error:
        cause = next(iter(error.failures.values()))[0]
        if isinstance(cause, OSError) and cause.errno:
            raise OSError(cause.errno, cause.strerror) from error
        raise OSError(str(cause)) from error
