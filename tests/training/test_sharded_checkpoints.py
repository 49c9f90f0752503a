"""--shard with torchrun: processes that share a network out train what one does, and go on from one another."""

import shutil

import pytest
import torch

from bytepixels.runs.checkpoints import read_state, read_tensors
from bytepixels.runs.run_directory import open_run
from bytepixels.sampling.load_weights import find_checkpoint
from tests.processes import run_together
from tests.tiny import checkpoints, cli, pixels_of, words
from tests.training.test_distributed import FLAGS, losses, stop_by_sigterm, train, train_with_a_death

pytestmark = pytest.mark.slow
STEPS = 15
SIZES = {2: {"shard-00001", "shard-00002"}, 3: {"shard-00001", "shard-00002", "shard-00003"}}


def weights(run):
    """{"model/first.weight": tensor, ...} of the newest checkpoint, weights and average."""
    opened = open_run(run)
    checkpoint = find_checkpoint(opened, None)
    state = read_state(checkpoint, opened.id)
    stems = ("model", "ema")
    return {f"{stem}/{name}": t for stem in stems for name, t in read_tensors(checkpoint, stem, state).items()}


def apart(one, other):
    one, other = weights(one), weights(other)
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)


def shards(run, stem="model"):
    """Who wrote the newest checkpoint: the beginnings of its files' names, or nobody where it is plain."""
    return {path.name[:11] for path in (checkpoints(run)[-1] / stem).glob("*")}


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """One process, never interrupted."""
    folder = tmp_path_factory.mktemp("straight")
    train(folder / "run", 1, steps=STEPS)
    return folder / "run"


def test_two_sharded_processes_train_what_one_does(straight, tmp_path):
    said = train(tmp_path / "two", 2, "--shard", steps=STEPS)
    one, two = losses(straight), losses(tmp_path / "two")
    assert len(one) == STEPS
    torch.testing.assert_close(two, one, rtol=1e-5, atol=0)
    assert apart(straight, tmp_path / "two") < 1e-4
    assert shards(tmp_path / "two") == shards(tmp_path / "two", "optimizer") == SIZES[2]
    assert said.count("done in") == 1
    assert "Warning" not in said
    (preview,) = (tmp_path / "two/samples").iterdir()
    gap = abs(pixels_of(preview).astype(int) - pixels_of(straight / "samples" / preview.name)).max()
    assert gap <= 1


def test_micro_batches_of_unequal_shares_and_fewer_images_than_processes(tmp_path):
    """15 images are 7 and 8, which in micro-batches of 7 are one and two; 1 preview image leaves one idle."""
    flags = ("--batch", 15, "--preview-images", 1)
    train(tmp_path / "one", 1, *flags, steps=4)
    train(tmp_path / "two", 2, *flags, "--shard", "--micro-batch", 7, steps=4)
    torch.testing.assert_close(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=1e-5, atol=0)
    assert len(losses(tmp_path / "two")) == 8
    assert len(list((tmp_path / "two" / "samples").iterdir())) == 1


def test_two_then_three_then_one_is_never_interrupted(straight, tmp_path):
    run = tmp_path / "run"
    train(run, 2, "--shard", "--previews", 0, steps=5)
    assert shards(run) == SIZES[2]
    train(run, 3, "--shard", "--previews", 0, steps=10)
    assert shards(run) == SIZES[3]
    train(run, 1, "--no-shard", steps=STEPS)
    assert shards(run) == set()
    torch.testing.assert_close(losses(run), losses(straight), rtol=1e-5, atol=0)
    assert apart(straight, run) < 1e-4


def test_one_then_copies_then_shards_is_never_interrupted(straight, tmp_path):
    run = tmp_path / "run"
    train(run, 1, steps=3)
    train(run, 2, "--shard", "--previews", 0, steps=7)
    train(run, 2, "--no-shard", "--previews", 0, steps=STEPS)
    assert shards(run) == set()
    torch.testing.assert_close(losses(run), losses(straight), rtol=1e-5, atol=0)
    assert apart(straight, run) < 1e-4


def test_times_by_importance_are_kept_with_the_shards(tmp_path):
    flags = words("--objective vlb --variance learned --times importance --timesteps 4 --previews 0")
    train(tmp_path / "one", 1, *flags, steps=10)
    train(tmp_path / "two", 2, *flags, "--shard", steps=5)
    train(tmp_path / "two", 2, *flags, "--shard", steps=10)
    torch.testing.assert_close(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=1e-4, atol=0)


def test_a_damaged_shard_is_said_once_and_the_checkpoint_before_taken(straight, tmp_path):
    run = tmp_path / "run"
    train(run, 2, "--shard", "--checkpoint-minutes", 0, "--previews", 0, steps=3)
    assert [path.name[-1] for path in checkpoints(run)] == ["1", "2", "3"]
    damaged = sorted((checkpoints(run)[-1] / "optimizer").iterdir())[1]
    damaged.write_bytes(damaged.read_bytes()[:-8])
    shutil.rmtree(checkpoints(run)[-2] / "ema")
    said = train(run, 2, "--shard", "--previews", 0, steps=6)
    assert said.count("looking for an older one") == 2
    assert "step-00000003/optimizer/shard-00002-model-00001-of-00001.safetensors is damaged" in said
    assert "resuming at 30 images" in said
    torch.testing.assert_close(losses(run), losses(straight)[:6], rtol=1e-5, atol=0)


def test_when_no_checkpoint_is_whole_all_processes_end_with_one_sentence(tmp_path):
    run = tmp_path / "run"
    train(run, 2, "--shard", "--previews", 0, steps=1)
    for file in checkpoints(run)[0].rglob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:-8])
    codes, said = run_together(2, "train", "digits", *FLAGS, "--run", run, "--images", 90, "--shard")
    assert codes == [2, 2]
    assert said.count("none of the 1 checkpoints in") == 1  # by one of the two
    assert "Traceback" not in said


@pytest.mark.parametrize("rank", [0, 1])
def test_a_sharded_worker_that_dies_is_replaced_and_training_ends_right(straight, tmp_path, rank):
    run = tmp_path / "restarted"
    train_with_a_death(run, rank, "--shard", steps=STEPS)
    torch.testing.assert_close(losses(run), losses(straight), rtol=1e-4, atol=0)
    assert apart(straight, run) < 1e-3


def test_sigterm_to_torchrun_saves_shards_at_one_step_and_one_process_goes_on(tmp_path):
    run = tmp_path / "run"  # it comes in the middle of a preview, or near it
    step = stop_by_sigterm(run, "--shard", "--checkpoint-minutes", 0.01, "--previews", 10**6)
    assert shards(run) == SIZES[2]
    assert cli("train", "digits", "--run", run, "--images", 30 * (step + 2), "--previews", 0, "--no-shard") == 0
