"""Writing through to the disk is for power cuts, and takes minutes where others use the disk: the tests do without."""

import os

import pytest


@pytest.fixture(autouse=True)
def synced(monkeypatch):
    """The paths of the files that were to be written through, in order."""
    paths = []
    monkeypatch.setattr(os, "fsync", lambda file: paths.append(os.readlink(f"/proc/self/fd/{file}")))
    return paths
