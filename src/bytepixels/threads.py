"""Sets how many threads compute and how they wait for one another, before torch loads and reads it.

An idle OpenMP thread spins for a while before it sleeps. On an idle machine nothing is faster; beside other
programs it takes the processor from those that have work, our own other threads among them (RESULTS.md). How it waits
cannot be changed later: it is decided by what the machine does when the program begins. No result depends on it.
"""

import os
import sys
import time
from collections.abc import Iterator, MutableMapping
from contextlib import suppress
from pathlib import Path

SPINS = "1000"  # of libgomp's idle threads before they sleep: some microseconds, where 300,000 are its default
LOOKS, PAUSE = 3, 0.002  # at what else is running, seconds apart
WAITING = "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"


def set_up_threads(environment: MutableMapping[str, str] = os.environ, root: Path = Path("/")) -> None:
    """Let idle threads sleep where others want the processor, and use as many as there are fast cores to use.

    What the user has set stays as it is. Processes that are started from here inherit it. `root`: of the file system.
    """
    if "torch" in sys.modules and environment is os.environ:
        return  # torch has read it already; only child processes would be changed
    if not any(name in environment for name in WAITING) and others_are_busy(root):
        environment["OMP_WAIT_POLICY"] = "PASSIVE"  # what other libraries than libgomp know
        environment["GOMP_SPINCOUNT"] = SPINS
    if "OMP_NUM_THREADS" not in environment:
        limits = [*_fast_cores(root), *_quota(root)]  # without either, torch's own choice is right
        if limits and min(limits) < usable_cpus():
            environment["OMP_NUM_THREADS"] = str(max(1, int(min(limits))))


def others_are_busy(root: Path = Path("/")) -> bool:
    """Whether other programs keep so many CPUs busy that our threads have to share theirs; False where nothing says."""
    running = []
    for look in range(LOOKS):
        time.sleep(PAUSE if look else 0)
        with suppress(OSError, ValueError, IndexError):
            running.append(int((root / "proc/loadavg").read_text().split()[3].split("/")[0]))  # we are one of them
    return bool(running) and min(running) - 1 + usable_cpus(root) > (os.cpu_count() or 1)


def usable_cpus(root: Path = Path("/")) -> int:
    """CPUs that this process may keep busy at once: its affinity mask and its container's quota, at least 1."""
    mask = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([mask, *_quota(root)])))


def _quota(root: Path) -> Iterator[float]:
    """The CPUs that each cgroup above this process grants, from Linux's cgroups of version 2 and 1."""
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            mounts = ["sys/fs/cgroup"] if not controllers else ["sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct"]
            if controllers and "cpu" not in controllers.split(","):
                continue
            for mount in mounts:
                own = (root / mount / path.lstrip("/")).parts
                for depth in range(len((root / mount).parts), len(own) + 1):
                    yield from _granted(Path(*own[:depth]))


def _granted(group: Path) -> Iterator[float]:
    """Quota over period, in CPUs, where one group has them."""
    with suppress(OSError, ValueError, ZeroDivisionError):  # "max": no limit
        quota, period = (group / "cpu.max").read_text().split()
        yield int(quota) / int(period)
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        if int(quota) > 0:  # -1: no limit
            yield int(quota) / int(period)


def _fast_cores(root: Path) -> Iterator[int]:
    """Physical cores of the fast kind, where Linux knows two kinds: a slow one would keep the others waiting.

    Apple's are left out by torch itself.
    """
    cpus = root / "sys/devices/system/cpu"
    with suppress(OSError, ValueError):
        if (hybrid := root / "sys/devices/cpu_core/cpus").exists():  # Intel's
            fast = _numbers(hybrid.read_text())
        else:
            capacity = {
                int(file.parent.name[3:]): int(file.read_text()) for file in cpus.glob("cpu[0-9]*/cpu_capacity")
            }
            if len(set(capacity.values())) < 2:
                return
            fast = {cpu for cpu, own in capacity.items() if 2 * own > max(capacity.values())}
        if hasattr(os, "sched_getaffinity"):
            fast &= os.sched_getaffinity(0)
        cores = {min(_numbers((cpus / f"cpu{cpu}/topology/thread_siblings_list").read_text())) for cpu in fast}
        if cores:
            yield len(cores)


def _numbers(ranges: str) -> set[int]:
    """ "0-3,8" -> {0, 1, 2, 3, 8}."""
    ends = (part.split("-") for part in ranges.strip().split(","))
    return {number for end in ends for number in range(int(end[0]), int(end[-1]) + 1)}
