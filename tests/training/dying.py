"""bytepixels whose process of one rank dies in its sixth step, once: python -m tests.training.dying RANK -- VERB."""

import os
import signal
import sys

import bytepixels.training.diffusion_task
from bytepixels.cli.main import main


def die_at_loss(number):
    honest, calls = bytepixels.training.diffusion_task.diffusion_loss, []

    def diffusion_loss(*args):
        calls.append(number)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return honest(*args)

    bytepixels.training.diffusion_task.diffusion_loss = diffusion_loss


if __name__ == "__main__":
    rank, _, *line = sys.argv[1:]
    if os.environ["RANK"] == rank and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        die_at_loss(2 + 6)  # 2 for the memory
    sys.exit(main(line))
