"""Memory kept from step to step."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable

import pytest

from bytepixels.cli.main import COMPUTING, main
from bytepixels.verbs import VERBS
from tests.tiny import verb_that

CODE = """
import resource, sys
import numpy as np
from bytepixels.heap import keep_memory
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
done = sys.argv[1] == "keep" and keep_memory()
for step in range(12):
    if step == 2:
        before = faults()
    blocks = [np.ones(40 * 2**20, np.uint8) for _ in range(2)]
    del blocks
print(done, faults() - before)
"""
OWN = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")


def little_address_space() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (20 * 2**30, 20 * 2**30))


def allocate(mode: str, before: Callable[[], None] | None = None, **variables: str) -> tuple[str, int]:
    """What keep_memory said, and the page faults of 20 blocks of 40 MiB."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith(OWN)}
    ran = subprocess.run(
        [sys.executable, "-c", CODE, mode],
        env=bare | variables,
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=before,
    )
    said, faults = ran.stdout.split()
    return said, int(faults)


def test_large_blocks_are_not_mapped_anew_every_time():
    """20 blocks of 40 MiB are 204,800 pages of 4 KiB, or 400 huge ones: as a rule each is faulted in again."""
    assert allocate("leave")[1] > 300
    assert allocate("keep") == ("True", pytest.approx(0, abs=100))


@pytest.mark.parametrize("name", ["MALLOC_TOP_PAD_", "GLIBC_TUNABLES", "LD_PRELOAD"])
def test_an_allocator_that_was_set_up_is_left_alone(name):
    said, faults = allocate("keep", **{name: {"GLIBC_TUNABLES": "glibc.malloc.top_pad=0"}.get(name, "")})
    assert said == "False"
    assert faults > 300


def test_address_space_that_is_limited_is_left_alone():
    """ulimit -v: half of it would be taken by what is only reserved."""
    assert allocate("keep", before=little_address_space)[0] == "False"


def test_the_verbs_that_call_networks_keep_their_memory(monkeypatch):
    kept = []
    monkeypatch.setattr("bytepixels.cli.main.keep_memory", lambda: kept.append(verb))
    for verb in VERBS:
        monkeypatch.setitem(VERBS, verb, verb_that(lambda: 0))
        assert main(verb.split()) == 0
    assert {verb.split()[0] for verb in kept} == COMPUTING < {verb.split()[0] for verb in VERBS}
