"""Which features tell images apart as a person would? Corruptions, mixtures, classes, and what they cost an image.

    python -m bench.yardsticks cifar10-jpeg.tar.xz --features random imagenet FOLDER -n 1000

Real held-out images are made worse in steps, and their Frechet distance from the training images is given as a multiple
of the distance that they have themselves (the floor). What no one sees (noise of two grey levels) should cost little,
what destroys objects and keeps colours and textures (quarters exchanged between images, blends) much. Of classes: the
share of single test images whose nearest training image (by angle) is of their class, and of groups of 100 whose
nearest class it is (by Frechet distance). Processor time per image, one thread.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.machine import machine
from bytepixels.data import Packed, pack
from bytepixels.hardware import best_device
from bytepixels.metrics.feature_cache import chosen_rows, features_of
from bytepixels.metrics.features import Features
from bytepixels.metrics.frechet import Moments, frechet_distance
from bytepixels.metrics.imagenet import ImageNetFeatures
from bytepixels.metrics.open_features import open_features
from bytepixels.metrics.sample_metrics import blurred
from bytepixels.randomness import NOISE, seeded
from bytepixels.runs.run_directory import provenance

GROUP, GROUPS = 100, 5  # images in a group, groups of each class
COST = "processor time per image, ms"
Worse = Callable[[Tensor], Tensor]  # uint8 [n, C, H, W], even n -> the same, made worse


def noisy(levels: float) -> Worse:
    return lambda x: grey(x + levels * torch.randn(x.shape, generator=seeded(1, NOISE)))


def soft(sigma: float) -> Worse:
    return lambda x: grey(blurred(x.float(), sigma))


def quarters(share: float) -> Worse:
    """In that share of the images two opposite quarters are those of another image."""

    def worse(x: Tensor) -> Tensor:
        y, (height, width), count = x.clone(), x.shape[2:], round(share * len(x))
        other = x.roll(1, 0)
        for rows, columns in (
            (slice(height // 2), slice(width // 2)),
            (slice(height // 2, None), slice(width // 2, None)),
        ):
            y[:count, :, rows, columns] = other[:count, :, rows, columns]
        return y

    return worse


def blended(share: float) -> Worse:
    """Each image with that much of another one."""
    return lambda x: grey((1 - share) * x.float() + share * x.roll(1, 0).float())


def turned(x: Tensor) -> Tensor:
    """Upside down."""
    return x.flip(2)


def grey(x: Tensor) -> Tensor:
    return x.round().clamp(0, 255).to(torch.uint8)


LADDERS: dict[str, dict[str, Worse]] = {
    "noise, grey levels": {str(k): noisy(k) for k in (1, 2, 4, 8, 16, 32)},
    "blur, pixels": {str(k): soft(k) for k in (0.3, 0.5, 0.7, 1.0, 1.4, 2.0)},
    "quarters exchanged, share of images": {str(k): quarters(k) for k in (0.1, 0.2, 0.4, 0.7, 1.0)},
    "blended with another, share of it": {str(k): blended(k) for k in (0.05, 0.1, 0.2, 0.35, 0.5)},
    "upside down": {"all": turned},
}


def judged(features: Features, train: Packed, test: Packed, n: int) -> dict[str, Any]:
    """Everything there is to say of one kind of features."""
    known = chosen_rows(len(train), 10_000).numpy()
    began = time.process_time()
    vectors = features_of(features, train.images, torch.from_numpy(known)).features
    found: dict[str, Any] = {"features": features.name, "resize": features.resize, "hash": features.hash}
    found[COST] = 1000 * (time.process_time() - began) / len(known)
    reference = Moments.of(vectors)
    own = torch.from_numpy(np.array(test.images[chosen_rows(len(test), n, 1).numpy()]))

    def distance(images: Tensor) -> float:
        return frechet_distance(Moments.of(features_of(features, images).features), reference)

    found["floor"] = floor = distance(own)
    found["ladders"] = {
        name: {rung: distance(worse(own)) / floor for rung, worse in rungs.items()} for name, rungs in LADDERS.items()
    }
    if train.labels is not None and test.labels is not None:
        found |= classes(features, vectors, np.asarray(train.labels[known]), test)
    return found


def classes(features: Features, vectors: Tensor, labels: np.ndarray, test: Packed) -> dict[str, float]:
    """How often the nearest image, and the nearest class of a group, is the right one."""
    assert test.labels is not None
    rows = chosen_rows(len(test), 2000, 2).numpy()
    own, truth = features_of(features, test.images, torch.from_numpy(rows)).features, np.asarray(test.labels[rows])
    nearest = (F.normalize(own - vectors.mean(0)) @ F.normalize(vectors - vectors.mean(0)).T).argmax(1).numpy()
    alone = float((labels[nearest] == truth).mean())
    kinds = range(len(test.classes))
    moments = [Moments.of(vectors[torch.from_numpy(labels == kind)]) for kind in kinds]
    right = list[bool]()
    for kind in kinds:
        members = np.flatnonzero(np.asarray(test.labels) == kind)
        for group in range(GROUPS):
            some = features_of(features, test.images, torch.from_numpy(members[group * GROUP : (group + 1) * GROUP]))
            apart = [frechet_distance(Moments.of(some.features), one) for one in moments]
            right.append(int(np.argmin(apart)) == kind)
    return {"nearest image of its class": alone, "nearest class of a group": float(np.mean(right))}


def table(every: list[dict[str, Any]]) -> str:
    """Markdown: a column for each kind of features."""
    names = [f"`{one['features']}`, {one['resize']}" for one in every]
    lines = [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for ladder, rungs in every[0]["ladders"].items():
        for rung in rungs:
            multiples = [f"{one['ladders'][ladder][rung]:.3g}" for one in every]
            lines.append(f"| {ladder}: {rung} | {' | '.join(multiples)} |")
    for name, form in (("nearest image of its class", ".1%"), ("nearest class of a group", ".1%"), (COST, ".2g")):
        if name in every[0]:
            lines += [f"| {name} | {' | '.join(format(one[name], form) for one in every)} |"]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument(
        "--features", nargs="+", default=["random", "imagenet"], help="as for evaluate; imagenet:64 too"
    )
    parser.add_argument("--size", type=int, nargs=2, default=(32, 32), help="height and width")
    parser.add_argument("-n", type=int, default=1000, help="held-out images")
    parser.add_argument("--json", type=Path, default=Path("bench/yardsticks.json"))
    options = parser.parse_args()
    device = best_device("auto")
    train, test = (pack(options.source, size=tuple(options.size), channels=3, split=s) for s in ("train", "test"))
    every = []
    for name in options.features:
        word, _, side = name.partition(":")
        features = ImageNetFeatures(device, int(side)) if side else open_features(word, train.images, device)
        every.append(judged(features, train, test, options.n))
        print(json.dumps(every[-1]), flush=True)
    record = {"source": Path(options.source).name, "n": options.n, "machine": machine(device), "made_by": provenance()}
    options.json.write_text(json.dumps(record | {"features": every}, indent=1) + "\n", encoding="utf-8")
    print(table(every))


if __name__ == "__main__":
    main()
