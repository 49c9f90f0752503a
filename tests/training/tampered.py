"""Something goes wrong in the second of several processes alone.

loss: in its step 3 an image has no finite loss. memory: a quarter of the batch does not fit. gain: it cannot
measure how fast bf16 is.
"""

import math
import os

import torch

import bytepixels.training.diffusion_task
from bytepixels.training import micro_batch as memory
from bytepixels.training.autotune import precision


def tamper(how):
    if os.environ["RANK"] != "1":
        return
    honest, calls = bytepixels.training.diffusion_task.diffusion_loss, []

    def diffusion_loss(*args):
        errors, t = honest(*args)
        calls.append(t)
        first = torch.arange(len(errors)) == 0
        return (errors * torch.where(first, math.nan, 1.0) if len(calls) == 2 + 4 else errors), t  # 2 for the memory

    def bf16_gain(device):
        raise AssertionError("measured in another process than the first")

    if how == "loss":
        bytepixels.training.diffusion_task.diffusion_loss = diffusion_loss
    elif how == "gain":
        precision.bf16_gain = bf16_gain
    else:
        memory.free_memory = lambda device: 1e7
