"""--compile: whether a training's network is compiled. "auto" is decided from measured times, and said in one line."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Literal, NamedTuple

import torch

from ... import events
from ...config.run import Config
from ...data import Packed
from ...events import duration
from ...hardware import COMPILE_TRIALS, LEAST_TO_COMPILE, missing_compiler
from ...memory import is_out_of_memory
from ...sampling.first_stage import EncodedImages
from ..loop import total_steps
from .trial import start_trial


class Times(NamedTuple):
    """In seconds: compiling (the first step included), and a step with it and without."""

    compiling: float
    compiled: float
    plain: float

    def saved(self, steps: int) -> float:
        """Over that many steps; negative where it costs more than it gives."""
        return steps * (self.plain - self.compiled) - self.compiling


def choose_compile(
    config: Config, packed: Packed, device: torch.device, latents: EncodedImages | None = None
) -> Literal["yes", "no"]:
    """What --compile comes to here. On a CPU "auto" is no: measured, compiling gives -7% to +5% there (RESULTS.md)."""
    asked = config.train.compile
    if asked == "no" or (asked == "auto" and (device.type == "cpu" or config.train.shard or config.autoencoder)):
        return "no"
    if (lacking := missing_compiler(device)) is not None:
        events.say(f"not compiled: {lacking}")
        return "no"
    if asked == "yes":
        return "yes"
    try:
        steps = total_steps(config.train)
        plain = measured(trial(config, packed, device, compiled=False, latents=latents))[1]
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        why = "a batch does not fit in memory whole, and its parts are not measured"
        events.say(f"not compiled: {why}; --compile yes does it")
        return "no"
    if steps * plain < LEAST_TO_COMPILE:
        events.say(f"not compiled: {steps:,} steps of {plain:.3g} s are too few to pay for it")
        return "no"
    compiling, compiled = measured(trial(config, packed, device, compiled=True, latents=latents))
    times = Times(compiling, compiled, plain)
    events.say(f"{'compiled' if times.saved(steps) > 0 else 'not compiled'}: {sentence(times, steps)}")
    return "yes" if times.saved(steps) > 0 else "no"


def sentence(times: Times, steps: int) -> str:
    """Why, with the numbers."""
    saved = times.saved(steps)
    what = f"saves {duration(saved)}" if saved > 0 else f"costs {duration(-saved)} more than it gives"
    each = f"a step takes {times.compiled:.3g} s instead of {times.plain:.3g} s, compiling {times.compiling:.3g} s"
    return f"{each}, which {what} over {steps:,} steps"


def trial(
    config: Config, packed: Packed, device: torch.device, compiled: bool, latents: EncodedImages | None = None
) -> Callable[[], float]:
    """A training step on a network of its own."""
    some, codec = slice(4 * config.train.batch), None
    images = packed.images[some]
    if latents is not None:
        images, codec = latents.means(some), latents.codec(config, device)
    sample = replace(packed, images=images, labels=None if packed.labels is None else packed.labels[some])
    train = replace(config.train, compile="yes" if compiled else "no")
    run = start_trial(replace(config, train=train), sample, device, codec)
    return lambda: run.step(run.draw(run.state.step)).sum().item()  # which waits for the device


def measured(step: Callable[[], float], trials: int = COMPILE_TRIALS) -> tuple[float, float]:
    """Seconds of the first call, and of the quickest of `trials` after it."""
    seconds = []
    for _ in range(1 + trials):
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    return seconds[0], min(seconds[1:])
