"""Read a folder that diffusers' save_pretrained wrote: its JSON, its tensors, and those by our names."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..errors import InputError

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn", "group_norm": "group_norm"}


def read_json(path: Path, whose: str) -> dict[str, Any]:
    """Read a file of settings. InputError, which says whose they are, unless it holds a JSON object."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path.parent} is no folder of {whose}: {path.name}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} must be of {whose}, got {type(found).__name__}")
    return found


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Read the tensors by name, in float32."""
    path = folder / WEIGHTS
    try:
        return {name: tensor.float() for name, tensor in load_file(path).items()}
    except FileNotFoundError as error:
        hint = "; save it with safe_serialization=True" if list(folder.glob("*.bin")) else ""
        raise InputError(f"{folder} has no {WEIGHTS}{hint}") from error
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} is no safetensors file: {error}") from error


def translated(
    folder: Path, ours: Mapping[str, Tensor], layers: Mapping[str, list[str]], tensors: Mapping[str, Tensor]
) -> Iterator[tuple[str, Tensor]]:
    """Map the tensors of a folder to our names.

    ours: the tensors of the network that they are for, which may have no storage. layers: their layers by ours, several
    where ours keeps them in one matrix. Raises InputError for missing, superfluous or misshapen ones.
    """
    left, wrong = dict(tensors), f"{folder / WEIGHTS} is not what {CONFIG} says"
    for name, own in ours.items():
        layer, _, kind = name.rpartition(".")
        theirs = [f"{part}.{kind}" for part in layers[layer]]
        if any(one not in left for one in theirs):
            theirs = [old_name(one) for one in theirs]
        if missing := [one for one in theirs if one not in left]:
            raise InputError(f"{wrong}: it has no {missing[0]}")
        tensor = torch.cat([left.pop(one) for one in theirs])
        if tensor.shape != own.shape:
            raise InputError(f"{wrong}: {theirs[0]} is {list(tensor.shape)} where {list(own.shape)} fits")
        yield name, tensor
    if left:
        raise InputError(f"{wrong}: it has {min(left)} besides")


def old_name(name: str) -> str:
    """A tensor's name before diffusers 0.18: ...attentions.0.to_q.weight -> ...attentions.0.query.weight."""
    prefix, found, rest = name.partition("attentions.")
    number, _, layer = rest.partition(".")
    part, dot, kind = layer.rpartition(".")
    return f"{prefix}{found}{number}.{OLD.get(part, part)}{dot}{kind}" if found else name
