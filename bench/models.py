"""Put a finished run into the package, as a bundled model: its averaged weights alone, in half precision.

python -m bench.models runs/cifar10 cifar10 --source cifar10-jpeg.tar.xz
"""

import argparse
import shutil
from pathlib import Path

from bytepixels.export.hand_over import hand_over
from bytepixels.runs.models import MODELS
from bytepixels.runs.run_directory import open_run


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
    hand_over(open_run(options.run), folder, options.source, options.guidance)
    files = [path for path in folder.rglob("*") if path.is_file()]
    print(f"{folder}: {sum(path.stat().st_size for path in files) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
