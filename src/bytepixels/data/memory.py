"""How much memory there is for pictures."""

import os


def free_memory() -> float:
    """Bytes that the system reports as available, or enough where it does not; a share of them for each of the
    processes that torchrun starts on a machine."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            free = next(1024.0 * int(line.split()[1]) for line in file if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        free = 8e9
    return free / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
