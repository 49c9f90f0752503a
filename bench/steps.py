"""Training steps and sampling evaluations, ours beside diffusers' and lucidrains', interleaved in one process.

    python -m bench.steps                  both networks, 7 rounds
    python -m bench.steps --rounds 3 --shapes small

Each round runs every contender once, in turn, so that a slow minute of the machine slows all of them; the ratio is
taken round by round, and its median and range are what counts. Operations are counted by torch; the measured rate of
large matrix products is the limit beside them.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from bytepixels.runs.directory import provenance

from .peers import SHAPES, Contender, contenders

BATCH = {"cifar10": 16, "small": 64}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["float32", "bf16"], default="float32")
    parser.add_argument("--batch", type=int, help="instead of 16 (cifar10) and 64 (small)")
    parser.add_argument("--json", type=Path, default=Path("bench/steps.json"))
    options = parser.parse_args()
    device = torch.device(options.device)
    limit = matmul_rate(device, torch.bfloat16 if options.precision == "bf16" else torch.float32)
    machine = torch.cuda.get_device_name() if device.type == "cuda" else processor()
    results: dict[str, Any] = {"made_by": provenance(), "machine": machine, "precision": options.precision}
    results |= {"matmul_gflops": limit, "rounds": options.rounds, "tables": []}
    print(f"{machine}; {options.precision} matrix products {limit:,.0f} GFLOP/s")
    pictures = torch.randint(0, 256, (1024, 3, 32, 32), dtype=torch.uint8)
    for shape in options.shapes:
        batch = options.batch or BATCH[shape]
        torch.manual_seed(0)
        field = contenders(shape, batch, pictures, device, options.precision)
        for what in ("train", "evaluate"):
            table = measure(field, what, batch, options.rounds, limit)
            results["tables"].append({"network": shape, "what": what, "batch": batch, "rows": table})
            show(shape, what, batch, table)
    options.json.write_text(json.dumps(results, indent=1) + "\n")


def measure(field: list[Contender], what: str, batch: int, rounds: int, limit: float) -> list[dict[str, Any]]:
    """One row per contender; the first is the one that the others are compared with."""
    calls: list[Callable[[], object]] = [getattr(contender, what) for contender in field]
    flops = [count_flops(call) for call in calls]
    times = [[seconds(call) for call in calls] for _ in range(rounds)]
    rows = []
    for k, contender in enumerate(field):
        own = [row[k] for row in times]
        ratios = [row[k] / row[0] for row in times]
        median = statistics.median(own)
        rows.append(
            {
                "name": contender.name,
                "parameters": sum(p.numel() for p in contender.network.parameters()),
                "gflop_per_image": flops[k] / batch / 1e9,
                "seconds": [min(own), median, max(own)],
                "images_per_second": batch / median,
                "share_of_limit": flops[k] / median / 1e9 / limit,
                "times_ours": [min(ratios), statistics.median(ratios), max(ratios)],
                "note": contender.note,
            }
        )
    return rows


def show(shape: str, what: str, batch: int, rows: list[dict[str, Any]]) -> None:
    print(f"\n{shape}, {'training step' if what == 'train' else 'network evaluation'}, batch {batch}")
    print(f"{'':12} {'weights':>10} {'GFLOP/img':>9} {'img/s':>8} {'of limit':>8}  time / ours (min, max)")
    for row in rows:
        low, middle, high = row["times_ours"]
        print(
            f"{row['name']:12} {row['parameters']:10,} {row['gflop_per_image']:9.2f} {row['images_per_second']:8.1f} "
            f"{row['share_of_limit']:8.0%}  {middle:.2f} ({low:.2f}, {high:.2f})  {row['note']}"
        )


def seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def count_flops(call: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products and convolutions of one call, which also warms it up."""
    call()
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def matmul_rate(device: torch.device, dtype: torch.dtype, repeats: int = 10) -> float:
    """GFLOP/s of large square matrix products: what the machine gives at best."""
    size = 2048 if device.type == "cpu" else 8192
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    a @ b
    best = min(seconds(lambda: a @ b) for _ in range(repeats))
    return 2 * size**3 / best / 1e9


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor()
    return f"{name}, {torch.get_num_threads()} threads"


if __name__ == "__main__":
    main()
