"""Rates alone and beside busy processes: as torch is by itself, with threads that sleep, with one, and as ours are.

    python -m bench.beside --rounds 3

Each rate is that of a process of its own, whose environment says how its threads are; all settings take turns in each
round, so that what the machine does meanwhile falls on all of them.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median

SETTINGS: dict[str, dict[str, str]] = {
    "before": {"OMP_NUM_THREADS": str(os.cpu_count())},  # as torch does by itself
    "sleeping": {"OMP_NUM_THREADS": str(os.cpu_count()), "GOMP_SPINCOUNT": "1000"},
    "one thread": {"OMP_NUM_THREADS": "1"},
    "ours": {},
}
BATCHES = {"digits": 64, "small": 32, "cifar10": 4}  # cifar10's own would take a minute a step
WARM_UP, SECONDS = 2.0, 5.0  # of which the first are not counted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--networks", nargs="+", default=list(BATCHES), choices=list(BATCHES))
    parser.add_argument("--works", nargs="+", default=["train", "sample"], choices=["train", "sample"])
    parser.add_argument("--settings", nargs="+", default=["before", "ours"], choices=list(SETTINGS))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=2, metavar=("NETWORK", "WORK"), help="measure here, and print images/s")
    options = parser.parse_args()
    if options.one:
        print(rate(*options.one))
        return
    rows = []
    print("| network | work | busy beside | " + " | ".join(options.settings) + " |")
    print("|---" * (3 + len(options.settings)) + "|")
    for network in options.networks:
        for work in options.works:
            for busy in options.busy:
                rates = {name: list[float]() for name in options.settings}
                for _ in range(options.rounds):
                    for name, found in rates.items():
                        found.append(measured(network, work, busy, SETTINGS[name]))
                rows.append({"network": network, "work": work, "busy": busy, "rates": rates})
                shown = (f"{median(r):.3g} ({min(r):.3g}, {max(r):.3g})" for r in rates.values())
                print(f"| {network} | {work} | {busy} | {' | '.join(shown)} |", flush=True)
    if options.json:
        found = {"machine": machine(), "cpus": os.cpu_count(), "rounds": options.rounds, "rows": rows}
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def measured(network: str, work: str, busy: int, setting: dict[str, str]) -> float:
    """Images/s in a process of its own beside `busy` others that never wait."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    command = [sys.executable, "-m", "bench.beside", "--one", network, work]
    with others(busy):
        done = subprocess.run(command, env=own | setting, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


@contextmanager
def others(count: int) -> Iterator[None]:
    """So many busy processes."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for one in started:
            one.kill()
            one.wait()


def machine() -> str:
    """The processor's name."""
    names = (line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    return next(names, "unknown").split(":")[-1].strip()


def rate(network: str, work: str) -> float:
    """Training or sampling images/s of a preset's network in this process."""
    import numpy as np

    from bytepixels.threads import follow_load  # which sets them up, before torch loads

    import torch  # isort: skip
    from bytepixels.config.presets import preset_with
    from bytepixels.data import Packed
    from bytepixels.hardware import best_device
    from bytepixels.heap import keep_memory
    from bytepixels.training.autotune.precision import choose_precision
    from bytepixels.training.autotune.trial import start_trial, with_batch

    keep_memory()
    config = preset_with(network)
    precision = choose_precision("auto", best_device("cpu"))[0]
    config = replace(config, train=replace(config.train, precision=precision, warmup=0, lr=1e-4))
    side, channels, batch = (8, 1, 64) if network == "digits" else (32, 3, BATCHES[network])
    images = np.random.default_rng(0).integers(0, 255, (256, channels, side, side), dtype=np.uint8)
    trial = start_trial(with_batch(config, batch), Packed(images, None, (), {}, Path(), ()), best_device("cpu"))
    x, t = torch.randn(batch, channels, side, side), torch.full((batch,), 500.0)

    def step() -> None:
        if work == "train":
            trial.step(trial.draw(trial.state.step))
        else:
            with torch.no_grad():
                trial.state.ema(x, t)

    def steps(seconds: float) -> float:
        began, done = time.perf_counter(), 0
        while (now := time.perf_counter() - began) < seconds or done < 3:
            step()
            done += 1
            follow_load()
        return done * batch / now

    steps(WARM_UP)
    return steps(SECONDS)


if __name__ == "__main__":
    main()
