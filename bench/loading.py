"""Whether images come fast enough: packing beside the bare decoder, and what a training waits for its batches.

    python -m bench.loading IMAGES.zip MORE.tar.xz      folders or archives; some minutes each
    python -m bench.loading IMAGES --preset digits --steps 5 --rounds 2

Packing: `pack` into an empty cache, beside what it cannot beat: Pillow alone decoding and resizing the same files from
memory, in one process per core; reading the source once from front to back; writing the pack's bytes to the same disk.
"cpu" compares processor time, which other work on the machine disturbs less.

Loading: steps of a training with the images in memory and, by turns, read from the disk, as a set larger than memory
is; the system's copy of the file is dropped before each round. A step waits for its images; "data" is that and the
draw of times and noise.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from bytepixels.build import build_network, build_process
from bytepixels.codec.codec import PixelCodec
from bytepixels.config.presets import PRESETS
from bytepixels.config.run import Config
from bytepixels.data import Packed, batches, pack
from bytepixels.runs.run_directory import provenance
from bytepixels.training.diffusion_task import build_draw, build_loss
from bytepixels.training.loop import TrainState, train_step

from .machine import machine
from .packing import forget, packing, show_packing, spread


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", type=Path)
    parser.add_argument("--preset", choices=list(PRESETS), default="small")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="in each round of the loading")
    parser.add_argument("--folder", type=Path, help="where it is packed. Default: the system's temporary folder")
    parser.add_argument("--json", type=Path, default=Path("bench/loading.json"))
    options = parser.parse_args()
    config, rows = PRESETS[options.preset](), list[dict[str, Any]]()
    for source in options.sources:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            rows.append({"source": source.name, **packing(source, Path(folder), config, options.rounds)})
            show_packing(rows[-1])
            packed = pack(source, size=config.data.size, cache=Path(folder) / "kept")
            rows[-1]["loading"] = loading(packed, config, options.rounds, options.steps)
            show_loading(rows[-1])
    made = {"made_by": provenance(), "machine": machine(torch.device("cpu")), "preset": options.preset}
    options.json.write_text(json.dumps(made | {"rows": rows}, indent=1) + "\n")


def loading(packed: Packed, config: Config, rounds: int, steps: int) -> dict[str, dict[str, list[float]]]:
    """Seconds of every step, of its data and of its waiting for images, from memory and from the disk."""
    process, device, classes = build_process(config), torch.device("cpu"), len(packed.classes)
    state = TrainState.fresh(build_network(config, packed.images.shape[1:], classes, device), config.train)
    loss, found = build_loss(config, process, PixelCodec(), device), dict[str, dict[str, list[float]]]()
    for k in range(rounds + 1):
        for where, share in (("memory", batches.RESIDENT), ("disk", 0.0)):
            forget(packed.path / "images.npy")
            with patch.object(batches, "RESIDENT", share):
                images = Timed(packed.images, packed.labels, config.train.batch, flip=True)
            draw = build_draw(config, process, images, classes)
            times = found.setdefault(where, {"step": [], "data": [], "waits": []})
            for _ in range(steps):
                began = time.perf_counter()
                batch = draw(state.step)
                data = time.perf_counter() - began
                train_step(state, batch, loss, config.train)
                if k:  # the first round warms up
                    for name, value in zip(times, (time.perf_counter() - began, data, images.seconds), strict=True):
                        times[name].append(value)
    return found


class Timed(batches.Batches):
    """Batches that know how long the last one took."""

    def __call__(self, step: int) -> Any:
        began = time.perf_counter()
        batch = super().__call__(step)
        self.seconds = time.perf_counter() - began
        return batch


def show_loading(row: dict[str, Any]) -> None:
    """Medians, and the least and the most, of all steps."""
    for where, times in row["loading"].items():
        step = np.array(times["step"])
        print(f"  from {where}: a step {spread(1000 * step, '.1f')} ms, n = {len(step)}; of it ", end="")
        print(", ".join(f"{name} {spread(np.array(times[name]) / step, '.2%')}" for name in ("data", "waits")))


if __name__ == "__main__":
    main()
