"""Whether training or sampling ever waits for the GPU: torch raises where the host would.

    python -m bench.no_sync

Some steps to warm up, then steps under torch.cuda.set_sync_debug_mode("error"): batches with flips, labels and dropout,
the loss, clipping, the fused optimiser and the average, with each objective; then every sampler that draws no noise.
"""

import argparse
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch

from bytepixels.build import build_network, build_process
from bytepixels.codec.codec import PixelCodec
from bytepixels.config.diffusion import ProcessConfig
from bytepixels.config.presets import PRESETS
from bytepixels.config.run import Config
from bytepixels.core.denoiser import clipped
from bytepixels.core.samplers import trajectory
from bytepixels.data.batches import Batches
from bytepixels.registries import SAMPLERS, stochastic_samplers
from bytepixels.sampling.settings import build_denoiser
from bytepixels.training.diffusion_task import build_draw, build_loss, build_times
from bytepixels.training.loop import TrainState, train_step

CLASSES, BATCH, STEPS = 10, 32, 5
PROCESSES = {
    "eps": ProcessConfig(),
    "v, min-SNR": ProcessConfig(schedule="cosine", prediction="v", weighting="min_snr"),
    "hybrid, by importance": ProcessConfig(objective="hybrid", variance="learned", times="importance"),
    "edm": ProcessConfig(diffusion="edm", prediction="v"),
    "flow": ProcessConfig(diffusion="flow", prediction="v"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="on a cpu it only goes through the motions")
    device = torch.device(parser.parse_args().device)
    bad = 0
    for name, process in PROCESSES.items():
        config = PRESETS["small"]()
        network = replace(config.network, dropout=0.1)
        config = replace(config, process=process, network=network, train=replace(config.train, batch=BATCH))
        bad += not tried(f"training, {name}", training(config, device), device)
    for name in sorted(set(SAMPLERS) - set(stochastic_samplers())):
        bad += not tried(f"sampling, {name}", sampling(PRESETS["small"](), name, device), device)
    return int(bad > 0)


def tried(name: str, call: Callable[[], object], device: torch.device) -> bool:
    """Whether the call, once it is warm, waits for nothing; said in a line, with the place where it waits."""
    call()
    try:
        with raising(device):
            call()
    except RuntimeError as error:
        own = [f for f in traceback.extract_tb(error.__traceback__) if "bytepixels" in f.filename]
        where = f"{own[-1].filename}:{own[-1].lineno}" if own else "outside"
        print(f"WAITS  {name}: {where}: {str(error).splitlines()[0]}")
        return False
    print(f"ok     {name}")
    return True


@contextmanager
def raising(device: torch.device) -> Iterator[None]:
    if device.type != "cuda":
        yield
        return
    torch.cuda.synchronize(device)
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def training(config: Config, device: torch.device) -> Callable[[], object]:
    """A few steps of our loop, on labelled images."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (256, 3, 32, 32), dtype=np.uint8)
    batches = Batches(images, random.integers(0, CLASSES, 256), BATCH, flip=True, device=device)
    process, times = build_process(config), build_times(config, device)
    state = TrainState.fresh(build_network(config, (3, 32, 32), CLASSES, device), config.train, times)
    draw = build_draw(config, process, batches, CLASSES, times)
    loss = build_loss(config, process, PixelCodec(), device, times)
    return lambda: [train_step(state, draw(state.step), loss, config.train) for _ in range(STEPS)]


def sampling(config: Config, sampler: str, device: torch.device) -> Callable[[], object]:
    """A short chain with labels, clipped."""
    process = build_process(config)
    network = build_network(config, (3, 32, 32), CLASSES, device).eval()
    label = torch.arange(BATCH, device=device) % CLASSES
    denoise = clipped(build_denoiser(network, config, process, label))
    x, levels = torch.randn(BATCH, 3, 32, 32, device=device), process.levels(STEPS)
    return lambda: [None for _ in trajectory(x, levels, denoise, SAMPLERS[sampler])]


if __name__ == "__main__":
    sys.exit(main())
