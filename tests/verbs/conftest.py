"""A small trained run, for tests that measure; a file with fixtures of its own under these names has those."""

import numpy as np
import pytest

from bytepixels.data import pack

from .tiny import train, words


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
