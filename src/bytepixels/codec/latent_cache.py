"""The latents of a packed data set, encoded once and cached for latent diffusion."""

import hashlib
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.batches import Batches
from ..data.pack_writer import Progress, load_or_make
from ..data.packed import Packed, default_cache, load_array
from ..errors import InputError
from ..randomness import LATENT, seeded
from .latent_writer import Encode, make_latents

FORMAT = 1


@dataclass(frozen=True)
class Latents:
    """Means and standard deviations of the latents of N images; `len()` is N."""

    moments: np.ndarray  # float32 [N, F, 2z, h, w], a read-only memory map: means, then deviations; F: as is, mirrored
    labels: np.ndarray | None  # int64 [N], positions in `classes`
    classes: tuple[str, ...]
    meta: dict[str, Any]  # what made them, count, shape, sha256 of the arrays, statistics
    path: Path

    def __len__(self) -> int:
        return len(self.moments)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(z, h, w) of a latent."""
        z, h, w = self.meta["shape"]
        return z, h, w

    @property
    def statistics(self) -> dict[str, list[float]]:
        """Per-channel statistics [z] of the sampled latents of the whole set, mirrored images included: "mean" and
        "deviation", exact; "low" and "high", four deviations beyond the outermost means."""
        return self.meta["statistics"]


def store_latents(
    packed: Packed,
    encode: Encode,
    key: str,
    flips: bool = False,
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> Latents:
    """Encode every image of a pack, once: the next call with the same opens what the first one wrote, or goes on
    where it was interrupted. Of processes that do the same at once, one does it while the others wait.

    encode: uint8 [B, C, H, W] on the host -> mean and standard deviation of the latents, each float [B, z, h, w].
    key: whatever decides what `encode` returns, such as the sha256 of the autoencoder's weights and the precision. With
        the pack's sha256 and `flips` it names the folder.
    flips: encode the mirrored images too: an encoder is not exactly symmetric, so mirrored latents are no substitute.
    cache: a folder; None is $BYTEPIXELS_CACHE or the platform's cache folder.
    progress: called with (images done, images in all).

    Moments are float32: float16 rounds a mean near 1 by up to 0.0005, which a weak KL weight lets the deviation fall
    below, and the noise of the posterior would then be that of the rounding. Raises InputError where the encoder's
    result is not finite or not of one shape, and where the disk is too small.
    """
    root = default_cache() if cache is None else Path(cache).expanduser()
    made_of = {"format": FORMAT, "encoder": key, "pictures": packed.meta["sha256"], "mirrored": flips}
    name = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:16]
    path = root / "latents" / f"{packed.path.name.rpartition('-')[0] or 'images'}-{name}"
    return load_or_make(path, open_latents, partial(make_latents, packed, encode, made_of, flips), progress)


def open_latents(path: Path) -> Latents | None:
    """Open the latents at `path` if they exist, have this format, and have the right sizes and types; else None."""
    try:
        meta = json.loads((path / "meta.json").read_text())
        z, h, w = meta["shape"]
        shape = (meta["count"], 2 if meta["mirrored"] else 1, 2 * z, h, w)
        moments = load_array(path / "moments.npy", np.float32, shape)
        labels = load_array(path / "labels.npy", np.int64, shape[:1]) if meta["classes"] else None
        if meta["format"] != FORMAT or any(len(values) != z for values in meta["statistics"].values()):
            return None
        return Latents(moments, labels, tuple(meta["classes"]), meta, path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError):
        return None


class LatentBatches(Batches):
    """Latents [R, z, h, w] float32, not whitened, and labels of any step, in the order of Batches.

    A latent is mean + deviation * noise, with noise that is a function of (seed, step) and of the place in the whole
    batch. flip: half of them are those of the mirrored images; InputError where these were not encoded.
    """

    def __init__(
        self,
        latents: Latents,
        batch: int,
        seed: int = 0,
        flip: bool = False,
        device: torch.device | str = "cpu",
        rows: slice | None = None,
    ):
        if flip and latents.moments.shape[1] == 1:
            raise InputError("flip needs the latents of the mirrored images, and these were stored without flips")
        super().__init__(latents.moments, latents.labels, batch, seed, flip, device, rows)

    def _transform(self, images: Tensor, step: int) -> Tensor:
        """Sample latents [R, z, h, w] from moments [R, F, 2z, h, w]."""
        mean, deviation = self._mirror_some(images, step).chunk(2, dim=1)
        noise = torch.empty((self.batch, *mean.shape[1:]), device=self.device)
        noise.normal_(generator=seeded(self.seed, LATENT, step, device=self.device))
        return mean + deviation * noise[self.rows]

    def _mirror_some(self, moments: Tensor, step: int) -> Tensor:
        """Choose the mirrored or the unmirrored moments: [R, F, 2z, h, w] -> [R, 2z, h, w]."""
        if not self.flip:
            return moments[:, 0]
        return torch.where(self._mirrored(step), moments[:, 1], moments[:, 0])
