"""Put a finished run into the package, as a model that comes along: its averaged weights alone, in half precision.

    python -m bench.models runs/cifar10 cifar10 --source cifar10-jpeg.tar.xz

What trained it stays in its config.json: settings, the images' hash, and the commit and machine of every session; paths
do not. Of its log about LINES lines are kept.
"""

import argparse
import shutil
from pathlib import Path

from safetensors.torch import save_file

from bytepixels.files import one_line, read_sealed, sha256, write_sealed
from bytepixels.runs.checkpoints import PRUNED, read_tensors
from bytepixels.runs.models import MODELS
from bytepixels.runs.origin import BESIDE
from bytepixels.runs.overview import read_log
from bytepixels.runs.run_directory import FIRST_STAGE, Run, open_run
from bytepixels.sampling.load_weights import find_checkpoint

LINES = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--source", required=True, help="what its images are called where it is used")
    parser.add_argument("--guidance", type=float, help="what it draws with unless told otherwise")
    parser.add_argument("--models", type=Path, default=MODELS)
    options = parser.parse_args()
    folder = options.models / options.name
    shutil.rmtree(folder, ignore_errors=True)
    export(open_run(options.run), folder, options.source, options.guidance)
    files = [path for path in folder.rglob("*") if path.is_file()]
    print(f"{folder}: {sum(path.stat().st_size for path in files) / 1e6:.1f} MB")


def export(run: Run, folder: Path, source: str, guidance: float | None = None) -> None:
    """Write what is needed to draw from the run's newest whole checkpoint to an empty folder."""
    newest = find_checkpoint(run, None)
    state = read_sealed(newest / "state.json")
    final = folder / "checkpoints" / newest.name
    final.mkdir(parents=True)
    ema = read_tensors(newest, "ema", state)
    half = {name: t.half().contiguous() if t.is_floating_point() else t for name, t in ema.items()}
    if any(not bool(t.isfinite().all()) for t in half.values()):
        raise ValueError(f"{newest} has weights that half precision cannot hold")
    save_file(half, final / "ema.safetensors")
    sums = {"ema.safetensors": sha256(final / "ema.safetensors")}
    write_sealed(final / "state.json", state | {"sha256": sums, PRUNED: ["model", "optimizer"]})
    config = read_sealed(run.path / "config.json")
    config["data"] = {key: value for key, value in config["data"].items() if key != BESIDE} | {"source": source}
    if begun := config["data"].get("from"):
        config["data"]["from"] = begun | {"run": Path(begun["run"]).name}
    if guidance is not None:
        config["config"]["sample"]["guidance"] = guidance
    write_sealed(folder / "config.json", config)
    log = list(read_log(run.path))
    some = log[:: max(1, len(log) // LINES)]
    lines = [*some, *([log[-1]] if log and some[-1] is not log[-1] else [])]
    (folder / "log.jsonl").write_text("".join(one_line(line) for line in lines), encoding="utf-8")
    if (run.path / FIRST_STAGE).is_file():
        shutil.copy(run.path / FIRST_STAGE, folder / FIRST_STAGE)


if __name__ == "__main__":
    main()
