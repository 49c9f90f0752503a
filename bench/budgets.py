"""What a budget of time comes to: the time taken, images seen, the peak learning rate, and the distance of samples.

    python -m bench.budgets emoji.zip --budgets 1m 3m --before CHECKOUT --out budgets

Each run is `bytepixels train SOURCE --budget TIME` in a process of its own and one thread, as typed for the first time:
nothing is packed yet. With --before, the code of another checkout trains the same beside it, at the same time, so that
both have the same machine. The distances of both are measured by this code, on the same seeds.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

Record = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("--budgets", nargs="+", default=["3m"])
    parser.add_argument("--before", type=Path, help="a checkout of an earlier version, to train beside this one")
    parser.add_argument("--preset", default="small")
    parser.add_argument("-n", type=int, default=256, help="samples of each run to measure; 0: none")
    parser.add_argument("--out", type=Path, default=Path("budgets"))
    options = parser.parse_args()
    versions = {"now": Path(__file__).parents[1]} | ({"before": options.before} if options.before else {})
    print("| source | budget | code | taken | images | training | peak learning rate | kernel distance (floor) |")
    print("|---" * 8 + "|")
    for budget in options.budgets:
        begun = {name: Training(options, name, code, budget) for name, code in versions.items()}
        for one in [one.ended() for one in begun.values()]:
            if options.n:
                one |= distance(Path(one["run"]), options.n)
            with (options.out / "budgets.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(one) + "\n")
            print(row(one), flush=True)


class Training:
    """One run that has begun."""

    def __init__(self, options: argparse.Namespace, name: str, code: Path, budget: str):
        stem = f"{Path(options.source).stem}-{budget}-{name}"
        self.run, self.record = options.out / stem, {"source": options.source, "budget": budget, "code": name}
        options.out.mkdir(parents=True, exist_ok=True)
        own = {"PYTHONPATH": str(code / "src"), "OMP_NUM_THREADS": "1"}
        own |= {"BYTEPIXELS_CACHE": str(options.out / f"{stem}-cache")}
        line = ["train", options.source, "--preset", options.preset, "--budget", budget, "--run", str(self.run)]
        self.log = (options.out / f"{stem}.log").open("w", encoding="utf-8")
        self.began = time.time()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bytepixels", *line], env=os.environ | own, stdout=self.log, stderr=self.log
        )

    def ended(self) -> Record:
        """Wait for it, and say what it came to; the process' end is seen at once only by who waits first."""
        self.process.wait()
        log = [json.loads(line) for line in (self.run / "log.jsonl").read_text().splitlines()]
        checkpoint = max((self.run / "checkpoints").glob("step-*/state.json"))
        settings = json.loads((self.run / "config.json").read_text())["config"]["train"]
        return self.record | {
            "run": str(self.run),
            "seconds": checkpoint.stat().st_mtime - self.began,  # until the last checkpoint is there
            "exit": self.process.returncode,
            "images": log[-1]["images"],
            "training_share": training_seconds(log, settings["batch"]) / (checkpoint.stat().st_mtime - self.began),
            "peak_lr_share": max(line["lr"] for line in log) / settings["lr"],
        }


def training_seconds(log: list[Record], batch: int) -> float:
    """Seconds of the steps alone, from the median time of an image."""
    times = sorted(
        (later["time"] - line["time"]) / (later["images"] - line["images"])
        for line, later in pairwise(log)
        if later["images"] > line["images"]
    )
    return log[-1]["images"] * times[len(times) // 2] if times else 0.0


def distance(run: Path, n: int) -> Record:
    """The kernel distance (random features) of the run's samples from its training images, and its floor."""
    line = ["evaluate", str(run), "-n", str(n), "--sampler", "unipc_3", "--steps", "12", "--budget", "1h"]
    subprocess.run([sys.executable, "-m", "bytepixels", *line], check=True, stdout=subprocess.DEVNULL)
    found = json.loads((run / "eval.jsonl").read_text().splitlines()[-1])
    return {"kernel": found["measures"]["kernel"], "floor": found["floor"]["measures"]["kernel"], "n": n}


def row(one: Record) -> str:
    """One line of the table."""
    shown = "-"
    if kernel := one.get("kernel"):
        shown = f"{kernel['value']:.3g} ± {kernel['interval']:.2g} ({one['floor']['value']:.2g})"
    return (
        f"| {Path(one['source']).stem} | {one['budget']} | {one['code']} | {one['seconds']:.0f} s | {one['images']:,} "
        f"| {one['training_share']:.0%} | {one['peak_lr_share']:.0%} | {shown} |"
    )


if __name__ == "__main__":
    main()
