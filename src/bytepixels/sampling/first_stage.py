"""The autoencoder of a latent run: found at the user's path, then kept in the run."""

import hashlib
import json
import os
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..build import build_first_stage, build_process
from ..codec.codec import Codec, LatentCodec, PixelCodec, encoder_of
from ..codec.latent_cache import Latents, store_latents
from ..config.run import Config
from ..data import Packed
from ..errors import InputError
from ..events import Work
from ..files import TEMPORARY, DamagedError, flush, reason
from ..interop.diffusers_autoencoder import is_autoencoder_kl, read_autoencoder_kl
from ..networks import Autoencoder
from ..networks.tiling import Tiled
from ..runs.packing import UNLIMITED, Preparation
from ..runs.run_directory import FIRST_STAGE, Run, is_run, open_run
from .load_weights import load_checkpoint

SETTINGS = "autoencoder"  # of the metadata


@dataclass(frozen=True)
class EncodedImages:
    """A run's images, encoded by its autoencoder."""

    source: str  # where that was found
    autoencoder: Autoencoder
    latents: Latents

    def codec(self, config: Config, device: torch.device) -> LatentCodec:
        """The codec of a run with these settings."""
        return latent_codec(self.autoencoder, self.latents.statistics, config, device)

    def means(self, some: slice) -> np.ndarray:
        """The mean latents of some images, float32 [n, z, h, w]."""
        return np.array(self.latents.moments[some, 0, : self.latents.shape[0]])

    def record(self) -> dict[str, Any]:
        """The record of the autoencoder in a run's data."""
        made = {"source": self.source, "sha256": fingerprint(self.autoencoder)}
        return made | {"shape": list(self.latents.shape), "statistics": self.latents.statistics}


def codec_of(run: Run, device: torch.device) -> Codec:
    """The codec of a run: pixels, or the latents of its autoencoder."""
    first = run.data.get("first_stage")
    if first is None:
        return PixelCodec()
    return latent_codec(kept(run.path, first["sha256"], device), first["statistics"], run.config, device)


def latent_codec(
    autoencoder: Autoencoder, statistics: dict[str, list[float]], config: Config, device: torch.device
) -> LatentCodec:
    """The codec of a run on the latents of `autoencoder`."""
    mean, deviation, low, high = (statistics[name] for name in ("mean", "deviation", "low", "high"))
    return LatentCodec(Tiled(autoencoder), mean, deviation, low, high, build_process(config).sigma_data, device)


def find_first_stage(path: Path, device: torch.device) -> Autoencoder:
    """Load the autoencoder that --autoencoder names: a run of train autoencoder (its newest EMA), a run on its latents,
    or a diffusers folder. InputError if there is none."""
    if (path / FIRST_STAGE).is_file():
        return read_first_stage(path / FIRST_STAGE, device)
    if folder := next((one for one in (path, path / "vae") if is_autoencoder_kl(one)), None):
        return read_autoencoder_kl(folder).to(device).eval().requires_grad_(False)
    if not is_run(path):
        kinds = "a run of bytepixels train autoencoder, or a diffusers folder of an AutoencoderKL"
        raise InputError(f"--autoencoder takes {kinds}; {path} is neither")
    run = open_run(path)
    if run.config.autoencoder is None:
        raise InputError(f"--autoencoder {path} is a run that draws images, not an autoencoder")
    model = build_first_stage(run.config, run.shape, device)
    load_checkpoint(model, run, None, "ema")
    return model.autoencoder.eval().requires_grad_(False)


def keep_first_stage(autoencoder: Autoencoder, folder: Path) -> None:
    """Write an autoencoder into the folder of a run, atomically."""
    temporary = folder / f"{TEMPORARY}{FIRST_STAGE}"
    tensors = {name: tensor.cpu().contiguous() for name, tensor in autoencoder.state_dict().items()}
    save_file(tensors, temporary, {SETTINGS: json.dumps(autoencoder.settings)})
    flush(temporary)
    os.replace(temporary, folder / FIRST_STAGE)


def read_first_stage(path: Path, device: torch.device) -> Autoencoder:
    """Read what keep_first_stage wrote. DamagedError if it is not that."""
    try:
        with safe_open(path, "pt") as file:
            autoencoder = Autoencoder(**json.loads(file.metadata()[SETTINGS]))
            autoencoder.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (OSError, SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{path} is damaged: {reason(error)}") from error
    return autoencoder.to(device).eval().requires_grad_(False)


@lru_cache(maxsize=2)
def kept(run: Path, sha256: str, device: torch.device) -> Autoencoder:
    """The autoencoder in a run's folder; DamagedError if it is not the one that the run was trained with."""
    autoencoder = read_first_stage(run / FIRST_STAGE, device)
    if fingerprint(autoencoder) != sha256:
        raise DamagedError(f"{run / FIRST_STAGE} is not the autoencoder that this run was trained with")
    return autoencoder


def fingerprint(autoencoder: Autoencoder) -> str:
    """The sha256 of an autoencoder's settings and weights."""
    found = hashlib.sha256(json.dumps(autoencoder.settings, sort_keys=True).encode())
    for name, tensor in sorted(autoencoder.state_dict().items()):
        found.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def encoded(
    config: Config, path: Path, packed: Packed, mirrored: bool, device: torch.device, within: Preparation = UNLIMITED
) -> EncodedImages | None:
    """The images encoded by the autoencoder of the run at `path`, or of a new run there; None if it has none. Latents
    are cached for the next training."""
    old = open_run(path).data.get("first_stage") if is_run(path) else None
    if old is None and config.first_stage is None:
        return None
    if old is None:
        source = str(config.first_stage)
        autoencoder = find_first_stage(Path(source), device)
    else:
        source, autoencoder = old["source"], kept(path, old["sha256"], device)
        if config.first_stage not in (None, source):
            _check_same(autoencoder, Path(str(config.first_stage)), path)
    return EncodedImages(source, autoencoder, encode(packed, autoencoder, mirrored, device, within))


def _check_same(autoencoder: Autoencoder, other: Path, run: Path) -> None:
    if fingerprint(find_first_stage(other, torch.device("cpu"))) != fingerprint(autoencoder):
        raise InputError(f"{run} was begun with another autoencoder than {other}; choose another --run")


def encode(
    packed: Packed, autoencoder: Autoencoder, mirrored: bool, device: torch.device, within: Preparation = UNLIMITED
) -> Latents:
    """Encode all images to moments, with a progress line; `within` limits the time."""
    channels, height, width = packed.images.shape[1:]
    if channels != autoencoder.channels:
        raise InputError(f"the autoencoder takes images of {autoencoder.channels} channels, these have {channels}")
    autoencoder.check_size(height, width)
    with Work("encode", 0, "images") as progress:
        progress.kept = "stopped while encoding; the same command goes on from there"
        encoder, show = encoder_of(Tiled(autoencoder), device), partial(within.show, progress, "encoding")
        return store_latents(packed, encoder, fingerprint(autoencoder), mirrored, progress=show)
