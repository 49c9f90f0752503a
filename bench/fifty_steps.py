"""The article's claim on the demo's digits: DDIM in 50 steps against DDPM in 1000, same model, same seeds.

    python -m bench.fifty_steps demo/run -n 200

A classifier trained on half of the real digits reads the samples; the share that it reads as the class that was asked
for stands beside its accuracy on the other half of the real ones. Spread: the standard error, sqrt(p (1 - p) / n).
"""

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.svm import SVC

from bytepixels.sampling.conditioning import labels_of
from bytepixels.sampling.trained_model import TrainedModel

WAYS: tuple[Mapping[str, Any], ...] = (
    {"sampler": "ddpm", "steps": 1000},
    {"sampler": "ddim", "steps": 50},
    {"sampler": "ddim", "steps": 10},
    {"sampler": "dpmpp_2m", "steps": 10},
    {"sampler": "ddpm", "steps": 50},
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("-n", type=int, default=200)
    options = parser.parse_args()
    model = TrainedModel.open(options.run, device="cpu")
    pixels, labels = load_digits(return_X_y=True)  # 0..16
    classifier = SVC(gamma=0.001).fit(pixels[::2], labels[::2])
    real = classifier.score(pixels[1::2], labels[1::2])
    print(f"real digits that the classifier did not see: {share(real, len(labels) // 2)}")
    seeds = range(options.n)
    asked = np.array(labels_of(model.run, seeds, None))
    for way in WAYS:
        began = time.perf_counter()
        images = model.draw(model.settings(**way), seeds)
        seconds = time.perf_counter() - began
        right = classifier.score(images.flatten(1).numpy() / 255 * 16, asked)
        print(f"{way['sampler']:8} {way['steps']:5} steps: {share(right, options.n)}, {seconds:.1f} s", flush=True)


def share(p: float, n: int) -> str:
    return f"{p:.1%} +- {(p * (1 - p) / n) ** 0.5:.1%} (n = {n})"


if __name__ == "__main__":
    main()
