"""A DiT on two processes, as copies and in shards: what one does."""

import pytest
import torch

from tests.tiny import checkpoints, cli, words
from tests.training.test_distributed import losses, together
from tests.training.test_sharded_checkpoints import apart

pytestmark = pytest.mark.slow
FLAGS = words(
    """
    train digits --preset digits --backbone dit --patch 2 --width 16 --depth 2 --heads 2 --registers 2 --dropout 0.2
    --label-dropout 0.3 --batch 30 --images 360 --precision float32 --device cpu --log-seconds 0 --previews 1
    --preview-images 5 --sampler ddim --steps 3 --lr 0.001 --warmup 100 --lr-decay none
    """
)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    run = tmp_path_factory.mktemp("one") / "run"
    assert cli(*FLAGS, "--run", run) == 0
    return run


@pytest.mark.parametrize("flags", [(), ("--shard",), ("--shard", "--micro-batch", "4")], ids=" ".join)
def test_two_processes_train_what_one_does(one, tmp_path, flags):
    together(2, *FLAGS, *flags, "--run", tmp_path / "two")
    two = losses(tmp_path / "two")
    assert len(two) == 12
    torch.testing.assert_close(two, losses(one), rtol=1e-5, atol=0)
    assert apart(one, tmp_path / "two") < 1e-4
    if flags:
        assert (checkpoints(tmp_path / "two")[-1] / "model").is_dir()
