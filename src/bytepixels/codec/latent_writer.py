"""Every image of a pack through an encoder, by any number of processes; taken up where it was left."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.locks import PAUSE, claim
from ..data.notes import HopelessError
from ..data.pack_writer import DONE, Draft, Progress, word
from ..data.rows import Rows

PART = 512  # images that one process encodes at a time
PIXELS = 1 << 18  # in one call of the encoder: 256 images of 32 x 32, one of 512 x 512

Encode = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Encoding:
    """Moments in the making. Calls of the encoder are of the same images whatever was interrupted, since what an
    image becomes may depend, in the last bit, on those beside it."""

    draft: Draft[Any]
    images: np.ndarray  # uint8 [N, C, H, W]
    encode: Encode
    words: np.ndarray  # uint64 [N], one for each image: 0 until its row is written
    rows: Rows  # float32 [N, F, 2z, h, w]

    @classmethod
    def begun(cls, draft: Draft[Any], images: np.ndarray, encode: Encode, mirrored: bool) -> "Encoding | None":
        """What is to be done, or to be gone on with; None where it has been done meanwhile."""
        shape = encoded(encode, images[:1], mirrored).shape[1:]
        with draft.lock("seal"):  # a row file that is sealed is not touched any more
            if draft.made():
                return None
            words = draft.words("rows", len(images))
            needed = int(np.count_nonzero(words == 0)) * int(np.prod(shape)) * 4
            advice = "make room, or take an autoencoder with a larger factor or fewer channels"
            draft.check_space(needed, f"the latents of {len(images):,} images", advice)
            return cls(draft, images, encode, words, draft.rows((len(images), *shape), np.float32))

    def run(self, progress: Progress) -> None:
        """Write the row, then the word, of every image that has none. Ends when all is done, by whomever."""
        while left := [start for start in self._starts() if not self.words[start : start + PART].all()]:
            done = [self._part(start, progress) for start in left]
            if not any(done):
                progress(int(np.count_nonzero(self.words)), len(self.words))
                time.sleep(PAUSE)

    def _starts(self) -> range:
        return range(0, len(self.words), PART)

    def _part(self, start: int, progress: Progress) -> bool:
        """Encode what is missing of a part; False where another process is at it."""
        lock = claim(self.draft.folder / f"part-{start // PART}.lock")
        if lock is None:
            return False
        try:
            stop = min(start + PART, len(self.words))
            at_a_time = max(1, PIXELS // int(np.prod(self.images.shape[2:])))
            for first in range(start, stop, at_a_time):
                chosen = slice(first, min(first + at_a_time, stop))
                if not self.words[chosen].all():
                    self._write(chosen)
                    progress(int(np.count_nonzero(self.words)), len(self.words))
        finally:
            self.rows.close()  # another process may be about to move it: Windows moves nothing that is open
            lock.release()
        return True

    def _write(self, chosen: slice) -> None:
        moments = encoded(self.encode, self.images[chosen], self.rows.shape[1] == 2)
        if moments.shape[1:] != self.rows.shape[1:]:
            raise HopelessError(f"the encoder gives {moments.shape[1:]} now, and gave {self.rows.shape[1:]} before")
        for position, row in enumerate(moments, chosen.start):
            content = row.tobytes()
            self.rows.write(position, content)
            self.words[position] = word(DONE, content)


def encoded(encode: Encode, images: np.ndarray, mirrored: bool) -> np.ndarray:
    """uint8 [B, C, H, W] -> moments float32 [B, F, 2z, h, w]. InputError where they are no moments."""
    pictures = torch.from_numpy(np.array(images))
    ways = [pictures, pictures.flip(-1)] if mirrored else [pictures]
    return np.stack([_moments(encode, way) for way in ways], axis=1)


def _moments(encode: Encode, pictures: Tensor) -> np.ndarray:
    mean, deviation = (one.detach().float().cpu() for one in encode(pictures))
    if mean.ndim != 4 or len(mean) != len(pictures) or mean.shape != deviation.shape:
        shapes = f"{list(mean.shape)} and {list(deviation.shape)}"
        raise HopelessError(f"an encoder of {len(pictures)} images must give two tensors [B, z, h, w], got {shapes}")
    if not (mean.isfinite().all() and deviation.isfinite().all() and (deviation >= 0).all()):
        raise HopelessError("the encoder gives latents that are not finite, or have a negative deviation")
    return torch.cat([mean, deviation], dim=1).numpy()
