"""What the tests of the command line share: a network that trains in a blink, and ways to look at what it leaves."""

import hashlib
import json
import math
import re
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from bytepixels.cli.main import main
from bytepixels.verbs import Verb

STEP = 32  # images
FILES = ("ema", "model", "optimizer")


def words(line):
    return line.split()


TINY = words(  # all that these tests rely on, so that a preset may change
    """
    --preset digits --width 8 --multipliers 1 --attention 0 --heads 1 --blocks 1 --dropout 0
    --schedule cosine --prediction v --lr 0.002 --warmup 5000 --lr-decay cosine --ema-half-life 10000 --batch 32
    --precision float32 --device cpu --log-seconds 0 --previews 0 --sampler ddim --steps 3
    """
)


@dataclass(frozen=True)
class Nothing:
    """A request without flags."""


def verb_that(does):
    """A verb without flags, for VERBS."""
    return Verb(Nothing, command=lambda line: does() or 0)


def cli(*line):
    """The exit code of one command line, in this process."""
    try:
        return main([str(word) for word in line])
    except SystemExit as stop:
        return stop.code


def train(run, *flags, steps=2, source="digits"):
    return cli("train", source, *TINY, "--images", steps * STEP, *flags, "--run", run)


def plain(text):
    """What was said, as one line without the frames that tyro draws."""
    return " ".join(re.sub("[╭╮╰╯│─]", " ", text).split())


def snapshot(folder):
    """{relative path: sha256} of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def read_json(path):
    return json.loads(path.read_text())


def log_of(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def checkpoints(run):
    return sorted((run / "checkpoints").iterdir())


def tensors(checkpoint):
    """{"model/first.weight": tensor, ...} of the three files."""
    return {
        f"{stem}/{name}": value.clone()  # not a map of the file, which a test may go on to damage
        for stem in FILES
        for name, value in load_file(checkpoint / f"{stem}.safetensors").items()
    }


def same_bits(one, other):
    """Names of the tensors in which two checkpoints differ: [] when they are bitwise the same."""
    one, other = tensors(one), tensors(other)
    assert one.keys() == other.keys()
    return [
        name
        for name in one
        if one[name].dtype != other[name].dtype or one[name].numpy().tobytes() != other[name].numpy().tobytes()
    ]


def pixels_of(path):
    """uint8 [H, W] or [H, W, C]."""
    with Image.open(path) as image:
        return np.asarray(image)


def randomised(network):
    """Give a network random numbers everywhere, of a size at which its outputs stay about one; norms lie about one."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in network.named_parameters():
            scale = 1 / math.sqrt(p[0].numel()) if p.ndim > 1 else 0.3
            p.copy_(torch.randn(p.shape, generator=generator) * scale + ("norm" in name and p.ndim == 1))
    return network
