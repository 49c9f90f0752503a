"""Resolve --compile for training: "auto" decides by measured times, and prints one line."""

from typing import Literal

import torch

from ... import events
from ...config.run import Config
from ...data import Packed
from ...events import duration
from ...hardware import COMPILE_TRIALS, LEAST_TO_COMPILE, missing_compiler
from ...memory import is_out_of_memory
from ...sampling.first_stage import EncodedImages
from ..loop import total_steps
from .trial import timed_steps, with_batch


def choose_compile(
    config: Config, packed: Packed, device: torch.device, latents: EncodedImages | None = None
) -> Literal["yes", "no"]:
    """Decide --compile here. On a CPU "auto" is no: measured, compiling gives -7% to +5% there (RESULTS.md)."""
    asked = config.train.compile
    if asked == "no" or (asked == "auto" and (device.type == "cpu" or config.train.shard or config.autoencoder)):
        return "no"
    if (lacking := missing_compiler(device)) is not None:
        events.say(f"not compiled: {lacking}")
        return "no"
    if asked == "yes":
        return "yes"

    def seconds(compiled: bool) -> tuple[float, float]:
        """Seconds of the first step, and of the quickest of the next ones."""
        own = with_batch(config, config.train.batch, compiled)
        first, *others = timed_steps(own, packed, device, 1 + COMPILE_TRIALS, latents)
        return first, min(others)

    steps = total_steps(config.train)
    try:
        _, plain = seconds(compiled=False)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        why = "a batch does not fit in memory whole, and its parts are not measured"
        events.say(f"not compiled: {why}; --compile yes compiles anyway")
        return "no"
    if steps * plain < LEAST_TO_COMPILE:
        events.say(f"not compiled: {steps:,} steps of {plain:.3g} s are too few to pay for it")
        return "no"
    compiling, compiled = seconds(compiled=True)
    saved = steps * (plain - compiled) - compiling
    what = f"saves {duration(saved)}" if saved > 0 else f"costs {duration(-saved)} more than it gives"
    each = f"a step takes {compiled:.3g} s instead of {plain:.3g} s, compiling {compiling:.3g} s"
    events.say(f"{'compiled' if saved > 0 else 'not compiled'}: {each}, which {what} over {steps:,} steps")
    return "yes" if saved > 0 else "no"
