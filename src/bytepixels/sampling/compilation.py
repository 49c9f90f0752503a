"""sample --compile: whether to compile the network for sampling; "auto" decides by measured times."""

import time
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from .. import events
from ..build import at_precision
from ..config.sampling import SampleConfig
from ..distributed.process_group import under_torchrun
from ..errors import JobError
from ..events import duration
from ..hardware import COMPILE_TRIALS, LEAST_TO_COMPILE, missing_compiler
from ..registries import sampler_facts
from ..requests.sample import Sample
from .trained_model import TrainedModel

MIN_EVALUATIONS = 100  # of the network: in a shorter job "auto" does not even measure one
GAIN = 0.97  # of an evaluation's time: what saves less is within what a clock says


class CompileError(JobError):
    """The error of --compile yes on a machine where compilation fails; nothing was drawn."""


def choose_network(model: TrainedModel, settings: SampleConfig, request: Sample) -> nn.Module:
    """Choose the model's network or its compiled form, as --compile says for this job. CompileError where "yes" fails.

    "auto" measures both where the job is long enough, takes the faster one and says so. The processes of torchrun
    could choose differently: there it is no.
    """
    network, auto = model.network, request.compile == "auto"
    images, evaluations = job(settings, request)
    if request.compile == "no" or (auto and (evaluations < MIN_EVALUATIONS or model.run.text or under_torchrun())):
        return network
    plain, inputs = at_precision(network, model.run.config, model.device), example(model, images)
    if auto and evaluations * shortest([plain], inputs, 1)[0] < LEAST_TO_COMPILE:
        return network
    try:
        if (lacking := missing_compiler(model.device)) is not None:
            raise CompileError(lacking)
        events.say("compiling the network, which takes minutes")
        began, compiled = time.perf_counter(), cast(nn.Module, torch.compile(network, dynamic=True))
        fast = at_precision(compiled, model.run.config, model.device)
        shortest([fast], inputs, 0)
        took = f"compiling took {duration(time.perf_counter() - began)}"
        if not auto:
            events.say(f"compiled: {took}")
            return compiled
        before, after = shortest([plain, fast], inputs, COMPILE_TRIALS)
    except Exception as error:  # whatever a compiler can meet
        if not auto:
            raise CompileError(f"{_why_not(error)}; --compile no samples without it") from error
        events.say(f"not compiled: {_why_not(error)}")
        return network
    faster = after < GAIN * before
    each = f"an evaluation takes {after:.3g} s instead of {before:.3g} s"
    events.say(f"{'compiled' if faster else 'not compiled'}: {each}; {took}")
    return compiled if faster else network


def job(settings: SampleConfig, request: Sample) -> tuple[int, int]:
    """The batch size of the network's evaluations, and their number."""
    guided = settings.guidance != 1 and request.weak is None  # with and without the label, in one batch
    evaluations = -(-request.n // request.batch) * settings.steps * sampler_facts(settings.sampler).evaluations
    return min(request.n, request.batch) * (2 if guided else 1), evaluations


def example(model: TrainedModel, images: int) -> tuple[Tensor, ...]:
    """Example inputs of the network: x, t and, if it has classes, label."""
    x = torch.zeros(images, *model.run.x0_shape, device=model.device)
    t, label = torch.full((images,), 0.5, device=model.device), torch.zeros(images, dtype=torch.int64, device=x.device)
    return (x, t) if model.network.null_label is None else (x, t, label)


@torch.no_grad()
def shortest(calls: Sequence[Callable[..., Tensor]], inputs: tuple[Tensor, ...], trials: int) -> list[float]:
    """The fastest call of each function in seconds, by turns, after one warm-up call."""
    seconds: list[list[float]] = [[] for _ in calls]
    for _ in range(1 + trials):
        for own, call in zip(seconds, calls, strict=True):
            began = time.perf_counter()
            call(*inputs).sum().item()  # which waits for the device
            own.append(time.perf_counter() - began)
    return [min(own[1:] or own) for own in seconds]


def _why_not(error: Exception) -> str:
    """The reason in one sentence: ours, or the first line of torch's."""
    if isinstance(error, CompileError):
        return str(error)
    first = (str(error).strip().splitlines() or [""])[0][:200]
    return f"torch could not compile the network ({type(error).__name__}: {first})"
