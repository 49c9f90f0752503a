"""Available memory, and the recognition of out-of-memory errors."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def free_memory() -> float:
    """Bytes that this process may still take: what the system reports as available, or what the limit of a container or
    of the process leaves; 8 GB if nothing is known. Ranks on one machine share it."""
    return min(_limits(), default=8e9) / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _limits() -> Iterator[float]:
    with suppress(OSError, StopIteration, ValueError):
        yield _kilobytes("/proc/meminfo", "MemAvailable")
    with suppress(OSError, ValueError):  # a container's; "max" where it has none
        group = Path("/sys/fs/cgroup")
        most, taken = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        yield max(0.0, most - taken + _cached(group))
    with suppress(ImportError, OSError, StopIteration, ValueError):  # ulimit -v
        import resource

        most = resource.getrlimit(resource.RLIMIT_AS)[0]
        if most != resource.RLIM_INFINITY:
            yield max(0.0, most - _kilobytes("/proc/self/status", "VmSize"))


def _kilobytes(path: str, name: str) -> float:
    """A line such as "VmSize: 1234 kB", in bytes."""
    with open(path, encoding="ascii", errors="replace") as file:
        return next(1024.0 * int(line.split()[1]) for line in file if line.startswith(f"{name}:"))


def _cached(group: Path) -> float:
    """Bytes of a container's page cache, which the system frees on demand."""
    lines = (line.split() for line in (group / "memory.stat").read_text().splitlines())
    return next((float(value) for name, value in lines if name == "inactive_file"), 0.0)


def is_out_of_memory(error: Exception) -> bool:
    """True for torch.OutOfMemoryError and for the allocation errors of the CPU allocator and oneDNN."""
    words = "out of memory", "can't allocate memory", "could not create a primitive"
    return type(error).__name__ == "OutOfMemoryError" or any(said in str(error) for said in words)
