"""bytepixels, and the threads that each process has left at its end: `python -m tests.training.ending HOW -- VERB ...`.

HOW is well, or what `tampered` does to the second process. A process group's are pt_gloo_runloop and gloo_tcp_loop.
"""

import atexit
import os
import sys
from pathlib import Path

from bytepixels.cli.main import main
from tests.training.tampered import tamper


def say_threads():
    names = sorted(path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm"))
    os.write(2, f"\nthreads at the end: {' '.join(names)}\n".encode())  # in one piece, whoever else writes


if __name__ == "__main__":
    atexit.register(say_threads)  # the first to register is the last to be called
    how, _, *line = sys.argv[1:]
    if how != "well":
        tamper(how)
    sys.exit(main(line))
