"""Shared by all tests: no test touches the user's cache, and none waits for the machine's other work."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """Packed pictures go to a folder of the test session, also from the processes that a test starts."""
    monkeypatch.setenv("BYTEPIXELS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """The networks are tiny, and threads that wait for one another on a busy machine take a hundred times as long."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # for the processes that a test starts
        yield
