"""The start time of the command, from which a budget of time counts."""

import time

began = time.monotonic()


def restart() -> None:
    """Restart the clock, for a second command in the same process."""
    global began
    began = time.monotonic()
