"""train --profile N: the time of each phase of a training step, and how near the network is to the machine's limit."""

import copy
import time
from itertools import islice

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.flop_counter import FlopCounterMode

from ... import events
from ...build import at_precision
from ...errors import InputError, check_range
from ...events import Work
from ...hardware import matmul_rate, wait_for
from ..loop import BACKWARD, FORWARD, PHASES, total_steps, train_steps
from ..trainer import Trainer

WARM_UP = 3  # steps before those that are measured
MAX_STEPS = 1000  # steps: a trace grows by about a megabyte with each
LOGGING = "logging"


def check_profile(trainer: Trainer, steps: int) -> None:
    """Raise InputError for more steps than the budget has left."""
    check_range("--profile", steps, 1, MAX_STEPS)
    left = total_steps(trainer.config) - trainer.state.step
    if steps + WARM_UP > left:
        raise InputError(f"--profile {steps} takes {steps + WARM_UP} steps with its warm-up, and {left} are left")


def profile_steps(trainer: Trainer, steps: int) -> None:
    """Profile some of the run's next steps: write trace.json to the run, print the shares.

    They are steps like any other: the run is bitwise what it is without.
    """
    training = train_steps(trainer.state, trainer.take, trainer.task.loss, lambda: trainer.config)
    trainer.unread += islice(training, WARM_UP)
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if trainer.device.type == "cuda" else [])]
    with Work("profile", trainer.config.images, "images", trainer.images) as progress:
        wait_for(trainer.device)
        with profile(activities=kinds) as trace:
            began = time.perf_counter()
            trainer.unread += islice(training, steps)
            wait_for(trainer.device)
            with record_function(LOGGING):
                trainer.read(progress)
            seconds = time.perf_counter() - began
    spent = {event.key: event.cpu_time_total / 1e6 for event in trace.key_averages() if event.key in (*PHASES, LOGGING)}
    if trainer.leads:
        path = trainer.run.path / "trace.json"
        trace.export_chrome_trace(str(path))
        events.say(*table(spent, seconds, steps), *_limit(trainer, spent, steps))
        events.say(f"trace, for chrome://tracing or ui.perfetto.dev: {path}")


def table(spent: dict[str, float], seconds: float, steps: int) -> list[str]:
    """Format one line per phase: milliseconds per step and share of the total. spent: seconds over all steps."""
    rows = {name: spent.get(name, 0.0) for name in (*PHASES, LOGGING)}
    rows["the rest"] = seconds - sum(rows.values())
    lines = [f"{steps} steps of {1000 * seconds / steps:.1f} ms, the log's line counted once:"]
    return lines + [f"  {name:10} {1000 * s / steps:9.2f} ms {s / seconds:6.1%}" for name, s in rows.items()]


def _limit(trainer: Trainer, spent: dict[str, float], steps: int) -> list[str]:
    """Compare forward and backward pass with large matrix products; on an accelerator host times mean nothing."""
    if trainer.device.type != "cpu":
        return ["these are times of the host, which does not wait for the device: the trace shows both"]
    precision, share = trainer.config.precision, trainer.world.local_rows(trainer.config.batch)
    flops = _flops(trainer) * (share.stop - share.start)
    rate = flops * steps / (spent[FORWARD] + spent[BACKWARD]) / 1e9
    limit = matmul_rate(trainer.device, torch.bfloat16 if precision == "bf16" else torch.float32)
    return [
        f"forward and backward: {rate:,.0f} GFLOP/s, {rate / limit:.0%} of the {limit:,.0f} GFLOP/s "
        f"that large {precision} matrix products reach here"
    ]


def _flops(trainer: Trainer) -> int:
    """Count the operations of a forward and backward pass for one image, on a copy of the network."""
    network = copy.deepcopy(trainer.state.model)
    call = at_precision(network, trainer.run.config, trainer.device)
    with FlopCounterMode(display=False) as counter:
        output = call(*trainer.task.example())
        total: Tensor = output if isinstance(output, Tensor) else output[0]
        total.sum().backward()
    return counter.get_total_flops()
