"""What a checkpoint costs a training, when it waits for the disk and when the disk is written to in the background.

    python -m bench.stall                              the networks of `small` and `cifar10`
    python -m bench.stall --networks small --rounds 20 --folder /the/disk

Each round takes some steps without a checkpoint, saves one and waits for it, and saves one in the background of as many
steps. The stall is what the training thread waits in the call that saves. What the steps beside a write take longer
than the others comes on top of it: "in all". Both are also given in steps that could have been taken instead.
"""

import argparse
import json
import math
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch

from bytepixels.build import build_network, build_process
from bytepixels.codec.codec import PixelCodec
from bytepixels.data.batches import Batches
from bytepixels.runs.checkpoint_writer import Writer
from bytepixels.runs.run_directory import provenance
from bytepixels.training.diffusion_task import build_draw, build_loss
from bytepixels.training.loop import TrainState, train_step

from .machine import machine, seconds
from .peers import Setting, config_of

BATCH = {"small": 32, "cifar10": 16}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=list(BATCH), default=list(BATCH))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--folder", type=Path, help="where they are written. Default: the system's temporary folder")
    parser.add_argument("--json", type=Path, default=Path("bench/stall.json"))
    options = parser.parse_args()
    device, rows = torch.device(options.device), []
    print(machine(device))
    for name in options.networks:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            rows.append(measure(name, Path(folder), options.rounds, device))
            show(rows[-1])
    options.json.write_text(
        json.dumps({"made_by": provenance(), "machine": machine(device), "rows": rows}, indent=1) + "\n"
    )


def measure(name: str, folder: Path, rounds: int, device: torch.device) -> dict[str, Any]:
    """Seconds of each round: a step, the stall and the whole cost of both kinds of checkpoint."""
    config = config_of(Setting("bytepixels", name, BATCH[name]))
    state = TrainState.fresh(build_network(config, (3, 32, 32), 0, device), config.train)
    process, images = build_process(config), torch.randint(0, 256, (256, 3, 32, 32), dtype=torch.uint8)
    draw = build_draw(config, process, Batches(images.numpy(), None, BATCH[name], flip=True, device=device), 0)
    loss, writer = build_loss(config, process, PixelCodec(), device), Writer(folder, "bench", 1)

    def step() -> None:
        train_step(state, draw(state.step), loss, config.train)

    def submit() -> None:
        writer.submit(state.step, 0, state.tensors())

    for call in (step, submit, writer.finish):  # memory is made, and the disk's cache is warm
        call()
    first = seconds(lambda: (submit(), writer.finish()))
    beside = 2 + math.ceil(first / min(seconds(step) for _ in range(2)))  # steps: more than a write takes
    found: dict[str, list[float]] = {"step": [], "blocking": [], "background": [], "background in all": []}
    for _ in range(rounds):
        plain = sum(seconds(step) for _ in range(beside))
        found["step"].append(plain / beside)
        found["blocking"].append(seconds(lambda: (submit(), writer.finish())))
        found["background"].append(seconds(submit))
        rest = sum(seconds(step) for _ in range(beside)) + seconds(writer.finish)
        found["background in all"].append(found["background"][-1] + rest - plain)
    size = sum(file.stat().st_size for file in folder.glob("step-*/*"))
    return {"network": name, "batch": BATCH[name], "bytes": size, "steps_beside": beside, "seconds": found}


def show(row: dict[str, Any]) -> None:
    """Medians, and the least and the most."""
    step = statistics.median(row["seconds"]["step"])
    print(f"{row['network']}, batch {row['batch']}: a checkpoint of {row['bytes'] / 1e6:.0f} MB, n = ", end="")
    print(len(row["seconds"]["step"]))
    for what, times in row["seconds"].items():
        low, middle, high = min(times), statistics.median(times), max(times)
        steps = "" if what == "step" else f" = {middle / step:.2f} steps ({low / step:.2f}, {high / step:.2f})"
        print(f"  {what:18} {middle:.3f} s ({low:.3f}, {high:.3f}){steps}")


if __name__ == "__main__":
    main()
