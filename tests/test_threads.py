"""Idle threads sleep, and only as many compute as there are fast cores to use; what the user has set stays."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bytepixels.threads import SPINS, set_up_threads, usable_cpus


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


def running(root: Path, count: int) -> Path:
    """A machine on which so many processes run, this one counted."""
    write(root / "proc/loadavg", f"0.50 0.40 0.30 {count}/321 12345")
    return root


def test_a_new_process_has_it_set_before_torch_loads(tmp_path: Path) -> None:
    code = """
import builtins, os
from pathlib import Path
true_import = builtins.__import__

def watching(name, *rest):
    if name == "torch":
        print(os.environ.get("GOMP_SPINCOUNT"))
        raise SystemExit
    return true_import(name, *rest)

import bytepixels.threads
os.environ.pop("GOMP_SPINCOUNT", None), os.environ.pop("OMP_WAIT_POLICY", None)
bytepixels.threads.others_are_busy = lambda root: True
builtins.__import__ = watching
import importlib; importlib.reload(bytepixels)
import bytepixels.samplers
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [SPINS]


@pytest.mark.parametrize(
    ("count", "cpus", "busy"),
    [(1, 8, False), (2, 8, True), (9, 8, True), (50, 64, False), (60, 64, True)],
)
def test_threads_sleep_only_beside_others(
    count: int, cpus: int, busy: bool, eight: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cpus)
    asleep = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": SPINS}
    assert set_up({}, running(tmp_path, count)) == (asleep if busy else {})


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_how_the_user_lets_threads_wait_stays(name: str, tmp_path: Path) -> None:
    assert set_up({name: "as it was"}, running(tmp_path, 99)) == {name: "as it was"}


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


def test_torch_that_is_loaded_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        monkeypatch.delenv(name, raising=False)
    set_up_threads()  # torch is loaded in the tests
    assert "GOMP_SPINCOUNT" not in os.environ
