"""Shared by all tests: none touches the user's cache or depends on other tests, the machine or its other work."""

import os
import random

os.environ["OMP_NUM_THREADS"] = "1"  # before torch reads it, and for the processes that a test starts

import hypothesis
import numpy as np
import pytest
import torch

from bytepixels.console import Console
from bytepixels.data import pack
from bytepixels.events import listening
from bytepixels.metrics import imagenet
from bytepixels.threads import usable_cpus
from tests.tiny import train, words

# The networks are tiny: threads that wait for one another on a busy machine take a hundred times as long.
torch.set_num_threads(1)

# Where nothing is said of features they are the random ones, which take no time; before any fixture asks.
imagenet.installed = lambda: False

# The same examples each time, however long one takes.
hypothesis.settings.register_profile("same", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("same")


def pytest_xdist_auto_num_workers(config):
    """For -n auto: one process for each CPU that we may keep busy."""
    return usable_cpus()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """Packed images go to a folder of the test session, also from the processes that a test starts."""
    monkeypatch.setenv("BYTEPIXELS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(autouse=True)
def _wide(monkeypatch):
    """Tables have all their columns, whatever the width of the terminal that the tests run in."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture
def console():
    """What is called here and not by the command line is shown as there."""
    with listening(Console()):
        yield


@pytest.fixture(autouse=True)
def _same_draws():
    """What a test draws does not depend on the tests before it."""
    random.seed(0)
    torch.manual_seed(0)


# A small trained run, for tests that measure; a file with fixtures of its own under these names has those.


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """600 digits to train on and 200 held out, as one file."""
    packed = pack("digits", cache=tmp_path_factory.mktemp("digits"))
    order = np.random.default_rng(0).permutation(len(packed))
    images, labels, path = packed.images[order, 0], packed.labels[order], tmp_path_factory.mktemp("source") / "some.npz"
    train_, test = slice(600), slice(1000, 1200)
    arrays = {"images_train": images[train_], "labels_train": labels[train_]}
    np.savez(path, **arrays, images_test=images[test], labels_test=labels[test])
    return path


@pytest.fixture(scope="module")
def run(source, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    assert train(path, *words("--warmup 0 --lr-decay none --timesteps 20"), steps=20, source=source) == 0
    return path
