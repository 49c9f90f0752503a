"""bytepixels with something wrong in the second process alone: `python -m tests.train.tampered HOW -- VERB ...`.

loss: in its step 3 a picture has no finite loss. memory: a quarter of the batch does not fit. gain: it cannot
measure how fast bf16 is.
"""

import math
import os
import sys

import torch

import bytepixels.build
from bytepixels.cli import main
from bytepixels.verbs import memory, precision


def tamper(how):
    honest, calls = bytepixels.build.diffusion_loss, []

    def diffusion_loss(*args):
        errors, t = honest(*args)
        calls.append(t)
        first = torch.arange(len(errors)) == 0
        return (errors * torch.where(first, math.nan, 1.0) if len(calls) == 2 + 4 else errors), t  # 2 for the memory

    def bf16_gain(device):
        raise AssertionError("measured in another process than the first")

    if how == "loss":
        bytepixels.build.diffusion_loss = diffusion_loss
    elif how == "gain":
        precision.bf16_gain = bf16_gain
    else:
        memory.free_memory = lambda device: 1e7


if __name__ == "__main__":
    how, _, *line = sys.argv[1:]
    if os.environ["RANK"] == "1":
        tamper(how)
    sys.exit(main(line))
