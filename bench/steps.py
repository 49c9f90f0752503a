"""Training steps and sampling evaluations, ours beside diffusers' and lucidrains', in turn.

    python -m bench.steps                  both networks, 7 rounds
    python -m bench.steps --rounds 9 --shapes small --no-lucidrains
    python -m bench.steps --compile        the best settings of all are compiled as well: minutes for each network

Each round runs every contender once, one after the other, so that a slow minute of the machine slows all of them; the
ratio is taken round by round, and its median and range are what counts. Each has a process of its own: how ours treats
the memory is not lent to the others. "bare" is our network without our loop. Operations are counted by torch; the
measured rate of large matrix products is the limit beside them. `python -m bench.table` makes RESULTS.md's table of it.
"""

import argparse
import json
import os
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bytepixels.runs.run_directory import provenance

from .machine import limits, machine
from .peers import SHAPES, Setting
from .workers import Worker

BATCH = {"cifar10": 16, "small": 32}


def main() -> None:
    options = parse()
    device = torch.device(options.device)
    rates = limits(device, options.precision, options.clock)
    precision = options.precision if options.precision != "auto" else max(rates, key=lambda name: rates[name])
    results: dict[str, Any] = {"made_by": provenance(), "machine": machine(device), "load": os.getloadavg()[0]}
    results |= {
        "clock": options.clock,
        "precision": precision,
        "matmul_gflops": rates,
        "rounds": options.rounds,
        "tables": [],
    }
    print(
        results["machine"], *(f"{name} matrix products {rate:,.0f} GFLOP/s" for name, rate in rates.items()), sep="; "
    )
    for shape in options.shapes:
        batch = options.batch or BATCH[shape]
        field = [Worker(setting, options.clock) for setting in settings(shape, batch, precision, options)]
        for what in options.what:
            rows = measure(field, what, batch, options.rounds, rates)
            results["tables"].append({"network": shape, "what": what, "batch": batch, "rows": rows})
            show(shape, what, batch, rows)
            options.json.write_text(json.dumps(results, indent=1) + "\n")
        for worker in field:
            worker.stop()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--what", nargs="+", choices=["train", "evaluate"], default=["train", "evaluate"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--precision", choices=["auto", "float32", "bf16"], default="auto", help="auto: what multiplies faster"
    )
    parser.add_argument("--batch", type=int, help="instead of 16 (cifar10) and 32 (small)")
    parser.add_argument(
        "--clock", choices=["wall", "cpu"], default="wall", help="cpu: processor time; one thread on a busy machine"
    )
    parser.add_argument(
        "--compile", nargs="?", const="default", default="", metavar="MODE", help="a compiled row for each library"
    )
    parser.add_argument("--lucidrains", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--json", type=Path, default=Path("bench/steps.json"))
    return parser.parse_args()


def settings(shape: str, batch: int, precision: str, options: argparse.Namespace) -> list[Setting]:
    """Who takes part; the first is the one that the others are compared with."""
    peers = ["diffusers", "lucidrains"] if options.lucidrains else ["diffusers"]
    field = [Setting(library, shape, batch, options.device, precision) for library in ("bytepixels", "bare")]
    for peer in peers:
        default = Setting(peer, shape, batch, options.device)
        field += [default, replace(default, best=True, precision=precision)]
    if options.compile:
        field += [replace(one, compiled=options.compile) for one in field if one.best or one.library == "bytepixels"]
    return field


def measure(field: list[Worker], what: str, batch: int, rounds: int, rates: dict[str, float]) -> list[dict[str, Any]]:
    """One row per contender."""
    counts = {worker.setting.library: worker.ask(f"flops {what}") for worker in field if not worker.setting.compiled}
    for worker in field:
        worker.ask(what)  # counting operations is another way of calling: warm up once more
    times = [[worker.ask(what) for worker in field] for _ in range(rounds)]
    rows = []
    for k, worker in enumerate(field):
        own, ratios = [row[k] for row in times], [row[k] / row[0] for row in times]
        count = counts[worker.setting.library]  # a compiled network's operations are not seen
        rate = count / statistics.median(own) / 1e9
        rows.append(
            {
                "name": worker.setting.name,
                "parameters": worker.parameters,
                "gflop_per_image": count / batch / 1e9,
                "seconds": spread(own),
                "images_per_second": batch / statistics.median(own),
                "gflops": rate,
                "share_of_limit": rate / rates[worker.setting.precision],
                "times_ours": spread(ratios),
                "note": worker.note,
            }
        )
    return rows


def spread(values: list[float]) -> list[float]:
    """Least, median, greatest."""
    return [min(values), statistics.median(values), max(values)]


def show(shape: str, what: str, batch: int, rows: list[dict[str, Any]]) -> None:
    print(f"\n{shape}, {'training step' if what == 'train' else 'network evaluation'}, batch {batch}")
    print(f"{'':20} {'weights':>10} {'GFLOP/img':>9} {'img/s':>8} {'of limit':>8}  time / ours (min, max)")
    for row in rows:
        low, middle, high = row["times_ours"]
        print(
            f"{row['name']:20} {row['parameters']:10,} {row['gflop_per_image']:9.2f} {row['images_per_second']:8.1f} "
            f"{row['share_of_limit']:8.0%}  {middle:.3f} ({low:.2f}, {high:.2f})  {row['note']}"
        )


if __name__ == "__main__":
    main()
