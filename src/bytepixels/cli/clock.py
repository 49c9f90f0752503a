"""When the command was given: a budget of time counts from here."""

import time

began = time.monotonic()


def restart() -> None:
    """Count from now on: another command is given in this process."""
    global began
    began = time.monotonic()
