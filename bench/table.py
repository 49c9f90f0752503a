"""RESULTS.md's table of steps, from what `bench.steps` wrote:  python -m bench.table bench/steps.json"""

import json
import sys
from pathlib import Path
from typing import Any

NETWORKS = {"cifar10": "DDPM's CIFAR-10", "small": "`small`"}
CLOCKS = {"wall": "the clock", "cpu": "processor time"}
WHAT = {"train": "training step", "evaluate": "evaluation"}


def main() -> None:
    print(table(json.loads(Path(sys.argv[1] if len(sys.argv) > 1 else "bench/steps.json").read_text())))


def table(results: dict[str, Any]) -> str:
    """Markdown: a sentence about the run, then one line per contender."""
    made, rates = results["made_by"], results["matmul_gflops"]
    limit = ", ".join(f"{rate:,.0f} GFLOP/s in {name}" for name, rate in rates.items())
    how = f"{results['rounds']} rounds by {CLOCKS[results['clock']]}"
    lines = [
        f"Commit {(made['git_commit'] or 'unknown')[:7]}, torch {made['torch']}, {results['machine']}, "
        f"{results['precision']}, {how}; large matrix products {limit}.",
        "",
        "| network | what | batch | | GFLOP / image | images/s | of the limit | time / ours |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for part in results["tables"]:
        head = f"{NETWORKS[part['network']]}, {part['rows'][0]['parameters'] / 1e6:.1f}M | {WHAT[part['what']]}"
        for k, row in enumerate(part["rows"]):
            where = f"{head} | {part['batch']}" if k == 0 else " | | "
            lines.append(f"| {where} | {row['name']} | {figures(row, first=k == 0)} |")
    return "\n".join(lines)


def figures(row: dict[str, Any], first: bool) -> str:
    low, middle, high = row["times_ours"]
    ratio = "1" if first else f"{middle:.2f} ({low:.2f}, {high:.2f})"
    each = f"{row['gflop_per_image']:.2f} | {row['images_per_second']:.1f} | {row['share_of_limit']:.0%}"
    return f"{each} | {ratio}"


if __name__ == "__main__":
    main()
