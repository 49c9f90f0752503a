"""Images of one colour each, with a caption that says which."""

import csv

import numpy as np
from PIL import Image

COLOURS = {"red": (220, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 220)}


def colour_images(root, count=48, captions=True):
    """A folder of `count` images 8 x 8, in turn red, green and blue; returns it."""
    root.mkdir()
    rng, rows = np.random.default_rng(0), []
    for k in range(count):
        name = list(COLOURS)[k % 3]
        pixels = np.clip(COLOURS[name] + rng.normal(0, 6, (8, 8, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(root / f"{k:03}.png")
        rows.append((f"{k:03}.png", f"a {name} image"))
    if captions:
        with open(root / "metadata.csv", "w", newline="") as file:
            csv.writer(file).writerows([("file_name", "text"), *rows])
    return root


def mean_colour(images):
    """[3], of images uint8 [H, W, 3]."""
    return np.mean([one.mean(axis=(0, 1)) for one in images], axis=0)
