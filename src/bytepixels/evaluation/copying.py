"""Find samples that copy training images: nearest neighbours by pixels and by features, with a null and a control."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..codec.codec import PixelCodec
from ..core.levels import Process
from ..images import grid, save_png
from ..metrics.feature_cache import chosen_rows, features_of
from ..metrics.memorization import CopyRate, copies, copies_more, copyist, nearest_images
from ..metrics.optimal_denoiser import EmpiricalImages
from ..metrics.precision_recall import Nearest, nearest
from ..runs.run_directory import Run, make_folder

if TYPE_CHECKING:
    from .yardstick import ReferenceSet

MOST = 1000  # samples whose neighbours are looked for
CONTROLS, KNOWN = 32, 2000  # copies that the copyist makes, and training images that it knows
SHOWN = 12  # samples in neighbours.png


@dataclass(frozen=True)
class CopyReport:
    """Copy rates, by pixels and by features, of samples, held-out images (null) and a memorising model (control)."""

    found: dict[str, dict[str, CopyRate]]  # "pixels" and "features" -> "samples", "held_out" and "copyist"
    pixels: Nearest  # of the samples
    features: Nearest  # of the samples, rows of the reference

    def record(self) -> dict[str, Any]:
        """The report as a record of eval.jsonl."""
        return {
            by: {who: one.record() for who, one in sets.items()}
            | {"more_than_held_out": copies_more(sets["samples"], sets["held_out"]) if "held_out" in sets else None}
            for by, sets in self.found.items()
        }


def look_for_copies(
    images: Tensor,
    yardstick: ReferenceSet,
    process: Process,
    flip: bool,
    device: torch.device,
    seed: int,
) -> CopyReport:
    """Compare samples uint8 [n, C, H, W], at most 1,000 of them, with all training images."""
    known, codec = EmpiricalImages(yardstick.own.packed.images, None, flip), PixelCodec()
    rows = chosen_rows(len(known.images), min(KNOWN, len(yardstick.reference))).numpy()  # all in the reference
    forged = copyist(EmpiricalImages(np.array(known.images[rows]), None, flip), process, range(CONTROLS), device)
    sets = {"samples": images[:MOST], "copyist": codec.to_images(forged).cpu()}
    if yardstick.held_out is not None:
        sets["held_out"], _ = yardstick.others(len(sets["samples"]), seed)
    pixels = {who: nearest_images(codec.to_model(x.to(device)), known) for who, x in sets.items()}
    by_features = {who: nearest_by_features(x, yardstick, flip) for who, x in sets.items()}
    found = {
        by: {who: copies(one, near.get("held_out")) for who, one in near.items()}
        for by, near in (("pixels", pixels), ("features", by_features))
    }
    return CopyReport(found, pixels["samples"], by_features["samples"])


def nearest_by_features(images: Tensor, yardstick: ReferenceSet, flip: bool) -> Nearest:
    """The two nearest reference vectors; if the run mirrors images, of the image or its mirror image, whichever is
    nearer."""
    ways = [images, images.flip(-1)] if flip else [images]
    found = [nearest(features_of(yardstick.features, x).features, yardstick.reference.features, 2) for x in ways]
    best = torch.stack([one.distance[:, 0] for one in found]).argmin(0)  # [n]
    rows = torch.arange(len(images))
    return Nearest(*(torch.stack(part)[best, rows] for part in zip(*found, strict=True)))


def draw_neighbours(images: Tensor, copying: CopyReport, yardstick: ReferenceSet, run: Run) -> None:
    """Write RUN/evaluate/samples.png and neighbours.png: the samples nearest to the training set, each above its
    nearest training image by pixels and by features."""
    known = yardstick.own.packed.images
    shown = copying.pixels.distance[:, 0].argsort()[:SHOWN]
    by_pixels = copying.pixels.position[shown, 0].numpy()
    rows = chosen_rows(len(known), len(yardstick.reference))
    by_features = rows[copying.features.position[shown, 0]].numpy()
    strips = [images[shown], *(torch.from_numpy(np.array(known[chosen])) for chosen in (by_pixels, by_features))]
    folder = run.path / "evaluate"
    make_folder(folder, "RUN")
    save_png(grid(torch.cat(strips), len(shown)), folder / "neighbours.png")
    save_png(grid(images[:64]), folder / "samples.png")
