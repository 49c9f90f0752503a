"""sample --compile: the network that samples, compiled once for every run that has one like it, and kept in the cache.

What is kept has no weights in it and takes any number of images from 2 on: another checkpoint, another run with the
same network and another --batch use the same file. It is machine code that torch loads; the cache must be one's own.
"""

import hashlib
import json
import os
import platform
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .. import events, networks
from ..build import at_precision
from ..config.run import Config
from ..config.sampling import SampleConfig
from ..core.samplers import TWICE
from ..data import default_cache
from ..data.locks import make_folder
from ..distributed.process_group import under_torchrun
from ..errors import InputError
from ..events import duration
from ..hardware import COMPILE_TRIALS, LEAST_TO_COMPILE, missing_compiler
from ..runs.run_directory import Run

if TYPE_CHECKING:
    from ..requests.sample import SampleRequest

FEW = 100  # evaluations of the network: of fewer, "auto" does not even measure one
GAIN = 0.97  # of an evaluation's time: what saves less is within what a clock says
LEAST_KEPT = 60.0  # seconds of sampling as it is, below which a network compiled earlier is not tried either


class CompileError(RuntimeError):
    """--compile yes cannot be done on this machine. Nothing was drawn."""


class Compiled(nn.Module):
    """A network by its compiled code, with its own weights; one image alone goes through the network itself."""

    def __init__(self, network: nn.Module, code: Callable[..., Tensor]):
        super().__init__()
        self.network, self.code = network, code
        self.weights = network.state_dict()

    @property
    def null_label(self) -> object:
        """The label that means none."""
        return self.network.null_label

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """As the network's; x may lie in memory in any order, of which the code knows one."""
        if len(x) == 1 or (label is None) != (self.null_label is None):
            return self.network(x, t, label)
        inputs = (x, t) if label is None else (x, t, label)
        with torch.autocast(x.device.type, enabled=False):  # it is in the code
            return self.code(self.weights, *(one.contiguous() for one in inputs))


class WithWeights(nn.Module):
    """(weights, *inputs): the network as a function of its weights too, in the run's arithmetic."""

    def __init__(self, network: nn.Module, config: Config, device: torch.device):
        super().__init__()

        def call(weights: dict[str, Tensor], *inputs: Tensor) -> Tensor:
            return torch.func.functional_call(network, weights, inputs)

        self.call = at_precision(call, config, device)

    def forward(self, weights: dict[str, Tensor], *inputs: Tensor) -> Tensor:
        return self.call(weights, *inputs)


def choose_network(
    network: nn.Module, run: Run, settings: SampleConfig, request: "SampleRequest", device: torch.device
) -> nn.Module:
    """The network, or it compiled: what --compile comes to for this job. CompileError where "yes" cannot be done.

    "auto" measures both where the job is long enough, takes the faster one and says so. The processes of torchrun
    could choose differently: there it is no.
    """
    auto = request.compile == "auto"
    pictures, evaluations = job(settings, request)
    if run.text and request.compile == "yes":
        raise CompileError("a network that reads text is not compiled for sampling; --compile no samples without it")
    if request.compile == "no" or run.text or (auto and (evaluations < FEW or pictures == 1 or under_torchrun())):
        return network
    path = kept_at(network, run.config, run.x0_shape, device)
    inputs, plain = example(network, run.x0_shape, pictures, device), at_precision(network, run.config, device)
    if auto and evaluations * shortest([plain], inputs, 1)[0] < (LEAST_KEPT if path.is_file() else LEAST_TO_COMPILE):
        return network
    try:
        compiled, how = obtained(network, run.config, inputs, path)
        if auto:
            before, after = shortest([plain, compiled], inputs, COMPILE_TRIALS)
    except Exception as error:  # whatever a compiler can meet
        if not auto:
            raise CompileError(f"{why_not(error)}; --compile no samples without it") from error
        events.say(f"not compiled: {why_not(error)}")
        return network
    faster = not auto or after < GAIN * before
    each = f"an evaluation takes {after:.3g} s instead of {before:.3g} s; " if auto else ""
    events.say(f"{'compiled' if faster else 'not compiled'}: {each}{how}")
    return compiled if faster else network


def job(settings: SampleConfig, request: "SampleRequest") -> tuple[int, int]:
    """How many images an evaluation of the network has, and how many evaluations there are."""
    guided = settings.guidance != 1 and request.weak is None  # with and without the label, in one batch
    evaluations = -(-request.n // request.batch) * settings.steps * (2 if settings.sampler in TWICE else 1)
    return min(request.n, request.batch) * (2 if guided else 1), evaluations


def example(network: nn.Module, shape: tuple[int, int, int], pictures: int, device: torch.device) -> tuple[Tensor, ...]:
    """What the network is called with: x, t and, where it has classes, label. At least two images."""
    pictures = max(pictures, 2)  # torch.export takes a one for a size that never changes
    x, t = torch.zeros(pictures, *shape, device=device), torch.full((pictures,), 0.5, device=device)
    label = torch.zeros(pictures, dtype=torch.int64, device=device)
    return (x, t) if network.null_label is None else (x, t, label)


@torch.no_grad()
def shortest(calls: Sequence[Callable[..., Tensor]], inputs: tuple[Tensor, ...], trials: int) -> list[float]:
    """Seconds of the quickest of each one's calls, taken in turn, after one to warm up."""
    seconds: list[list[float]] = [[] for _ in calls]
    for _ in range(1 + trials):
        for own, call in zip(seconds, calls, strict=True):
            began = time.perf_counter()
            call(*inputs).sum().item()  # which waits for the device
            own.append(time.perf_counter() - began)
    return [min(own[1:]) for own in seconds]


def obtained(network: nn.Module, config: Config, inputs: tuple[Tensor, ...], path: Path) -> tuple[Compiled, str]:
    """The compiled network, from the cache or made anew and kept there; and which of them it was, in words."""
    began, how = time.perf_counter(), "from the cache"
    try:
        code = load(path, inputs[0].device)
    except (OSError, RuntimeError):  # none, or a damaged one
        if (lacking := missing_compiler(inputs[0].device)) is not None:
            raise CompileError(lacking) from None
        events.say("compiling the network, which takes a minute or several")
        make_folder(path.parent)
        compile_into(path, network, config, inputs)
        code, how = load(path, inputs[0].device), "kept for the next time"
    compiled = Compiled(network, code)
    with torch.no_grad():
        compiled(*inputs)
    return compiled, f"{how}, which took {duration(time.perf_counter() - began)}"


def load(path: Path, device: torch.device) -> Callable[..., Tensor]:
    """The code at `path`. OSError where there is none, RuntimeError where it is not what was written."""
    path.stat()
    return torch._inductor.aoti_load_package(str(path), device_index=-1 if device.index is None else device.index)


def compile_into(path: Path, network: nn.Module, config: Config, inputs: tuple[Tensor, ...]) -> None:
    """Compile for any number of images and write the code to `path`, which is whole or as it was."""
    weights, batch = network.state_dict(), torch.export.Dim("batch", min=2)
    sizes = (dict.fromkeys(weights), tuple({0: batch} for _ in inputs))
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of what torch does not like in itself
            call = WithWeights(network, config, inputs[0].device)
            exported = torch.export.export(call, (weights, *inputs), dynamic_shapes=sizes, strict=False)
            torch._inductor.aoti_compile_and_package(exported, package_path=str(temporary))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def kept_at(network: nn.Module, config: Config, shape: tuple[int, int, int], device: torch.device) -> Path:
    """The file in the cache: its name stands for all that the code depends on."""
    code = [path.read_bytes() for path in sorted(Path(networks.__file__).parent.glob("*.py"))]
    layout = [[name, str(w.dtype), list(w.shape), list(w.stride())] for name, w in network.state_dict().items()]
    facts = {
        "network": [asdict(config.network), config.process.diffusion, layout],
        "code": hashlib.sha256(b"".join(code)).hexdigest(),
        "pictures": shape,
        "precision": config.train.precision,
        "machine": [device.type, processor(device), torch.get_num_threads()],
        "torch": torch.__version__,
    }
    name = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
    return default_cache() / "compiled" / f"{name}.pt2"


def processor(device: torch.device) -> str:
    """The card, or the processor with the instructions that it has: code for one stops on another."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_properties(device))
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return str(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
    except OSError:
        return f"{platform.machine()} {platform.processor()}"


def why_not(error: Exception) -> str:
    """One sentence: ours, or what torch says first."""
    if isinstance(error, (CompileError, InputError)):
        return str(error)
    first = (str(error).strip().splitlines() or [""])[0][:200]
    return f"torch could not compile the network ({type(error).__name__}: {first})"
