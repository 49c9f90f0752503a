"""The captions of a data set, encoded once and cached for text-conditional training."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..data.batches import RESIDENT, free_memory
from ..data.cache import make_folder
from ..data.pack_writer import Progress, load_or_make
from ..data.packed import default_cache, load_array
from ..files import flush
from .encoders import TextEncoder

FORMAT = 1
AT_A_TIME = 256  # captions


@dataclass(frozen=True)
class EncodedCaptions:
    """The tokens of N captions, stored once for equal captions; `len()` is N."""

    tokens: np.ndarray  # float32 [T, D], a read-only memory map
    spans: np.ndarray  # int64 [N, 2]: where the tokens of a caption begin, and how many they are; 0 for no caption

    def __len__(self) -> int:
        return len(self.spans)


def store_captions(
    captions: Sequence[str], encoder: TextEncoder, cache: str | Path | None = None, progress: Progress | None = None
) -> EncodedCaptions:
    """Encode every caption, once: the next call with the same opens what the first one wrote. Of processes that do the
    same at once, one does it and the others wait. "" has no tokens; one caption at least is another.

    cache: a folder; None is $BYTEPIXELS_CACHE or the platform's cache folder.
    progress: called with (captions done, captions in all).
    """
    root = default_cache() if cache is None else Path(cache).expanduser()
    made_of = json.dumps([FORMAT, encoder.hash, *captions]).encode()
    path = root / "texts" / hashlib.sha256(made_of).hexdigest()[:32]
    load = partial(_load, len(captions), encoder.dim)
    return load_or_make(path, load, partial(_make, captions, encoder), progress)


def _load(count: int, dim: int, path: Path) -> EncodedCaptions | None:
    """Load the captions at a path, if sizes and types are right; else None."""
    try:
        spans = load_array(path / "spans.npy", np.int64, (count, 2))
        total = int(spans.sum(axis=1).max())
        if (path / "tokens").stat().st_size != 4 * total * dim:
            return None
        return EncodedCaptions(np.memmap(path / "tokens", np.float32, "r", shape=(total, dim)), spans)
    except (OSError, ValueError, EOFError):
        return None


def _make(captions: Sequence[str], encoder: TextEncoder, folder: Path, progress: Progress) -> None:
    """Write the tokens, then the spans, into finished/ of the temporary `folder`."""
    make_folder(finished := folder / "finished")
    different = [caption for caption in dict.fromkeys(captions) if caption]
    where, total = {"": (0, 0)}, 0
    with (finished / "tokens").open("wb") as file:
        for start in range(0, len(different), AT_A_TIME):
            part = different[start : start + AT_A_TIME]
            for caption, vectors, mask in zip(part, *encoder(part), strict=True):
                own = vectors[mask].numpy()
                file.write(np.ascontiguousarray(own).tobytes())
                where[caption] = total, len(own)
                total += len(own)
            progress(start + len(part), len(different))
    flush(finished / "tokens")
    np.save(finished / "spans.npy", np.array([where[caption] for caption in captions], np.int64))
    flush(finished / "spans.npy")


class TextRows:
    """Encoded captions of any images, on the device: vectors float32 [R, L, D], mask bool [R, L], L of the longest.

    The tokens are copied once to the device when they fit there, else read from the disk.
    """

    def __init__(self, encoded: EncodedCaptions, device: torch.device | str = "cpu"):
        self.encoded, self.device = encoded, torch.device(device)
        self.length = max(1, int(encoded.spans[:, 1].max()))
        fits = encoded.tokens.nbytes <= RESIDENT * free_memory(self.device)
        self.resident = torch.from_numpy(np.array(encoded.tokens)).to(self.device) if fits else None

    def __call__(self, index: np.ndarray) -> tuple[Tensor, Tensor]:
        """The captions of the images at positions [R]."""
        starts, counts = self.encoded.spans[index].T[..., None]  # each [R, 1]
        mask = np.arange(self.length) < counts
        places = np.where(mask, starts + np.arange(self.length), 0)
        known = torch.from_numpy(mask).to(self.device)
        if self.resident is None:
            vectors = torch.from_numpy(self.encoded.tokens[places]).to(self.device)
        else:
            vectors = self.resident[torch.from_numpy(places).to(self.device)]
        return vectors.masked_fill_(~known[..., None], 0.0), known
