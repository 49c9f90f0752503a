"""What all exports need: a folder of their own, since models that come along are copied to runs/."""

import shutil

import pooch
import pytest

from bytepixels.data.packed import default_cache

USERS = pooch.os_cache("bytepixels") / "downloads" / "onnxruntime-web"  # what make has fetched, 33 MB


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _runtime(_own_cache):
    place = default_cache() / "downloads" / "onnxruntime-web"
    if not place.is_dir() and USERS.is_dir():
        shutil.copytree(USERS, place, dirs_exist_ok=True)
