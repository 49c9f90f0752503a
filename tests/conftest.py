"""Shared by all tests: no test touches the user's cache, and results do not depend on the machine's cores."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """Packed pictures go to a folder of the test session, also from the processes that a test starts."""
    monkeypatch.setenv("BYTEPIXELS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session", autouse=True)
def _two_threads():
    torch.set_num_threads(min(2, torch.get_num_threads()))
