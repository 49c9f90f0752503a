"""Only as many threads compute as there are fast cores that nobody else uses; what the user has set stays."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from bytepixels import threads
from bytepixels.events import Work
from bytepixels.threads import Load, set_up_threads, usable_cpus


def set_up(environment: dict[str, str], root: Path) -> dict[str, str]:
    set_up_threads(environment, root)
    return environment


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which this process may use eight CPUs."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


class Machine:
    """Two processors and a clock; torch's number of threads is kept here."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch):
        self.root, self.now, self.others, self.own, self.threads = root, 100.0, 50.0, 7.0, 2
        monkeypatch.setattr(os, "cpu_count", lambda: 2)
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "process_time", lambda: self.own)
        monkeypatch.setattr(torch, "get_num_threads", lambda: self.threads)
        monkeypatch.setattr(torch, "set_num_threads", lambda count: setattr(self, "threads", count))
        self.write()

    def write(self) -> None:
        ticks = round((self.own + self.others) * os.sysconf("SC_CLK_TCK"))
        write(self.root / "proc/stat", f"cpu  {ticks - 30} 10 10 987654 321 5 5 99 0 0\ncpu0 1 2 3\n")

    def passes(self, seconds: float, others: float) -> None:
        """Time in which other programs keep so many processors busy and this one the rest."""
        self.now, self.others, self.own = self.now + seconds, self.others + others * seconds, self.own + 1.9 * seconds
        self.write()


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


@pytest.mark.parametrize(("others", "threads"), [(0.0, 2), (0.4, 2), (0.5, 1), (1.0, 1), (2.0, 1)])
def test_fewer_threads_compute_beside_others(others: float, threads: int, two: Machine) -> None:
    load = Load(two.root)
    two.passes(1.0, others)
    load.follow()
    assert two.threads == threads


def test_all_threads_compute_again_once_the_others_have_been_still_for_a_while(two: Machine) -> None:
    load, seen = Load(two.root), []
    for others in [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]:
        two.passes(0.6, others)
        load.follow()
        seen.append(two.threads)
    assert seen == [1, 1, 1, 1, 1, 1, 1, 2, 2]


def test_on_many_processors_the_others_are_given_theirs(two: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    two.threads = 4
    load = Load(two.root)
    for others, left in [(3.0, 4), (5.9, 2), (9.0, 1)]:
        two.passes(1.0, others)
        load.follow()
        assert two.threads == left


def test_the_load_is_looked_at_now_and_then(two: Machine) -> None:
    load = Load(two.root)
    two.passes(0.2, 2.0)
    load.follow()
    assert two.threads == 2
    two.passes(0.4, 2.0)
    load.follow()
    assert two.threads == 1


def test_a_system_that_does_not_tell_keeps_its_threads(two: Machine, tmp_path: Path) -> None:
    load = Load(tmp_path / "elsewhere")
    two.passes(1.0, 2.0)
    load.follow()
    assert two.threads == 2


@pytest.mark.parametrize(("environment", "ours"), [({}, True), ({"OMP_NUM_THREADS": "7"}, False)])
def test_long_work_follows_the_load_unless_the_user_chose_the_threads(
    environment: dict[str, str], ours: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    looks: list[Load] = []
    monkeypatch.setattr(threads, "load", None)
    monkeypatch.setattr(Load, "follow", lambda load: looks.append(load))
    set_up(environment, tmp_path)
    Work("work", 2).update(1)
    assert bool(looks) is ours


def test_a_new_process_knows_before_torch_loads(tmp_path: Path) -> None:
    code = "import sys, bytepixels; print('torch' in sys.modules, bytepixels.threads.load is not None)"
    own = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", code], env=own, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_a_machine_of_equal_cores_keeps_torchs_own_number_of_threads(eight: None, tmp_path: Path) -> None:
    assert set_up({}, tmp_path) == {}


@pytest.mark.parametrize(
    ("file", "text", "threads"),
    [
        ("sys/fs/cgroup/cpu.max", "350000 100000", "3"),
        ("sys/fs/cgroup/box/cpu.max", "50000 100000", "1"),  # half a CPU is one thread
        ("sys/fs/cgroup/box/own/cpu.max", "200000 100000", "2"),
        ("sys/fs/cgroup/box/own/cpu.max", "max 100000", None),
        ("sys/fs/cgroup/box/own/cpu.max", "900000 100000", None),  # more than there are
        ("sys/fs/cgroup/other/cpu.max", "100000 100000", None),  # somebody else's
    ],
)
def test_a_containers_quota_is_the_number_of_threads(
    file: str, text: str, threads: str | None, eight: None, tmp_path: Path
) -> None:
    write(tmp_path / "proc/self/cgroup", "0::/box/own\n")
    write(tmp_path / file, text)
    assert set_up({}, tmp_path).get("OMP_NUM_THREADS") == threads
    assert usable_cpus(tmp_path) == int(threads or 8)


@pytest.mark.parametrize(("quota", "threads"), [("250000", "2"), ("-1", None)])
def test_quotas_of_the_first_cgroups(quota: str, threads: str | None, eight: None, tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "4:memory:/docker/a\n3:cpu,cpuacct:/docker/a\n")
    write(tmp_path / "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", quota)  # where a container sees its own as the root
    write(tmp_path / "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000")
    assert set_up({}, tmp_path).get("OMP_NUM_THREADS") == threads


def siblings(root: Path, cores: list[str]) -> None:
    for core in cores:
        for cpu in range(int(core.split("-")[0]), int(core.split("-")[-1]) + 1):
            write(root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list", core + "\n")


def test_slow_cores_of_a_hybrid_processor_do_not_compute(eight: None, tmp_path: Path) -> None:
    siblings(tmp_path, ["0-1", "2-3", "4", "5", "6", "7"])  # two fast cores of two threads each, four slow ones
    write(tmp_path / "sys/devices/cpu_core/cpus", "0-3\n")
    assert set_up({}, tmp_path)["OMP_NUM_THREADS"] == "2"


def test_slow_cores_by_their_capacity(eight: None, tmp_path: Path) -> None:
    siblings(tmp_path, [str(cpu) for cpu in range(8)])
    for cpu in range(8):
        write(tmp_path / f"sys/devices/system/cpu/cpu{cpu}/cpu_capacity", "400" if cpu < 4 else "1024")
    assert set_up({}, tmp_path)["OMP_NUM_THREADS"] == "4"


def test_the_users_number_of_threads_stays(eight: None, tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "0::/\n")
    write(tmp_path / "sys/fs/cgroup/cpu.max", "100000 100000")
    assert set_up({"OMP_NUM_THREADS": "7"}, tmp_path)["OMP_NUM_THREADS"] == "7"
