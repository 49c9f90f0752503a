"""The number of compute threads: one per fast core that this process may use, fewer while other programs run.

Threads that share an operation wait for the slowest of them, and spin while they wait. Beside another program that is
one without a processor: two threads can be ten times as slow as one (RESULTS.md). So long work looks at the load now
and then, and leaves the others' processors to them. What the presets' networks answered did not depend on it, but for
35.7M weights in float32 (last bits); the gradients of weights are summed in another order, and differ in their last
bits. OMP_NUM_THREADS, where the user sets it, is kept.
"""

import os
import sys
import time
from collections.abc import Iterator, MutableMapping
from contextlib import suppress
from pathlib import Path

LOOK = 0.5  # seconds between two looks at the load
TOLERATED = 0.45  # of a processor that others use: beside that, two threads are about as fast as one
LATE = 4  # looks in a row that must allow more threads before there are more


def set_up_threads(environment: MutableMapping[str, str] = os.environ, root: Path = Path("/")) -> None:
    """Set the number of threads to that of usable fast cores, before torch loads and reads it.

    What the user has set stays as it is. Processes that are started from here inherit it. `root`: of the file system.
    """
    global load
    if "OMP_NUM_THREADS" in environment:
        return
    load = Load(root)
    limits = [*_fast_cores(root), *_quota(root)]  # without either, torch's own choice is right
    if limits and min(limits) < _cpus():
        environment["OMP_NUM_THREADS"] = str(max(1, int(min(limits))))


class Load:
    """The processor load of other programs, sampled now and then."""

    def __init__(self, root: Path = Path("/")):
        """root: the root of the file system, for tests."""
        self.root, self.most, self.more = root, 0, 0
        self.seen = time.monotonic(), self._others()

    def follow(self) -> None:
        """Reduce the number of threads while other programs use the processors, and restore it afterwards.

        Called often, by the thread that computes: torch counts for each of its callers. Does nothing where the system
        does not tell (all but Linux).
        """
        (then, before), now = self.seen, time.monotonic()
        if now - then < LOOK or "torch" not in sys.modules:
            return
        import torch

        self.seen = now, self._others()
        if before is None or self.seen[1] is None:
            return
        threads = torch.get_num_threads()
        self.most = self.most or threads
        others = (self.seen[1] - before) / (now - then)
        free = min(self.most, max(1, int((os.cpu_count() or 1) - others + TOLERATED)))
        self.more = self.more + 1 if free > threads else 0
        if free < threads or self.more == LATE:
            torch.set_num_threads(free)
            self.more = 0

    def _others(self) -> float | None:
        """Processor seconds used by all other programs since the machine started."""
        with suppress(OSError, ValueError, IndexError):
            user, nice, system, _, _, irq, softirq = map(int, (self.root / "proc/stat").read_text().split()[1:8])
            return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK") - time.process_time()
        return None


load: Load | None = None  # None: the number of threads is the user's


def follow_load() -> None:
    """Adapt the number of threads to the load, unless the user fixed it."""
    if load is not None:
        load.follow()


def usable_cpus(root: Path = Path("/")) -> int:
    """CPUs that this process may keep busy at once: its affinity mask and its container's quota, at least 1."""
    return max(1, int(min([_cpus(), *_quota(root)])))


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quota(root: Path) -> Iterator[float]:
    """Yield the CPU quota of each cgroup above this process, for Linux cgroups v2 and v1."""
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
    """Quota over period, in CPUs, if the group has one."""
    with suppress(OSError, ValueError, ZeroDivisionError):  # "max": no limit
        quota, period = (group / "cpu.max").read_text().split()
        yield int(quota) / int(period)
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        if int(quota) > 0:  # -1: no limit
            yield int(quota) / int(period)


def _fast_cores(root: Path) -> Iterator[int]:
    """Yield the physical performance cores, if Linux reports two kinds: slow ones would keep the others waiting.

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
    """Parse a list of CPUs: "0-3,8" -> {0, 1, 2, 3, 8}."""
    ends = (part.split("-") for part in ranges.strip().split(","))
    return {number for end in ends for number in range(int(end[0]), int(end[-1]) + 1)}
