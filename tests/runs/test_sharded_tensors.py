"""Shards: two processes write them, anybody puts them together; complete or absent, whatever happens to one of them."""

import hashlib
import json
import os
import resource
import signal

import pytest
import torch
from safetensors.torch import load_file
from torch import distributed, nn
from torch.utils._python_dispatch import TorchDispatchMode

from bytepixels.config.training import TrainConfig
from bytepixels.distributed.process_group import ProcessGroup
from bytepixels.errors import InputError
from bytepixels.files import DamagedError
from bytepixels.runs import sharded_tensors as shards
from bytepixels.runs.checkpoints import STEMS, check_files, drop_optimizer, read_state, read_tensors, save_checkpoint
from bytepixels.runs.overview import inspect_checkpoint
from bytepixels.training.loop import TrainState, train_step
from bytepixels.training.sharded_checkpoints import ShardWriter
from tests.processes import FORKS
from tests.sharded import split

ID = "0123456789abcdef0123456789abcdef"
CONFIG = TrainConfig(images=100, batch=4, micro_batch=1, lr=0.01, warmup=0, ema_half_life=10)


class Layers(nn.Module):
    """A list of layers, and a last one with fewer rows than there are processes."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(5, 7)
        self.layers = nn.ModuleList([nn.Linear(7, 7), nn.ModuleList([nn.Conv2d(7, 9, 1)])])
        self.last = nn.Linear(9, 1)

    def forward(self, x):
        h = self.layers[0](self.first(x))
        return self.last(self.layers[1][0](h[:, :, None, None])[:, :, 0, 0])


class Memory(nn.Module):
    """What a loss may keep, in types that are not float32."""

    def __init__(self):
        super().__init__()
        self.register_buffer("losses", torch.arange(6, dtype=torch.float64).reshape(2, 3) / 7)
        self.register_buffer("counts", torch.tensor([1 << 40, 3]))

    def settle(self, gather):
        pass


def loss(network, x):
    return (network(x) - 1).square().sum(dim=1)


def trained(world, steps):
    torch.manual_seed(0)
    state = TrainState.fresh(Layers(), CONFIG, Memory(), world)
    batch = torch.linspace(-1, 1, 20).reshape(4, 5)[world.local_rows(4)]
    results = [train_step(state, (batch,), loss, CONFIG) for _ in range(steps)]
    assert {type(result.grad_norm) for result in results} == {torch.Tensor}  # the whole norm, not a share in it
    return state, [result.grad_norm.item() for result in results]


def sizes(tensors):
    """Elements that this process holds, and that there are in all."""
    local = sum(getattr(t, "to_local", lambda t=t: t)().numel() for t in tensors)
    return local, sum(t.numel() for t in tensors)


def size_limit(count):
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def refusal(work):
    try:
        work()
    except OSError as error:
        return str(error)


class Calls(TorchDispatchMode):
    """Notes the names of the functions that torch calls."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.seen.append(str(function))
        return function(*args, **(kwargs or {}))


def member(folder, rank, act):
    """One of two processes: act(world, folder) -> what is kept in a file."""
    store = distributed.FileStore(str(folder / "store"), 2)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    (folder / f"{rank}.json").write_text(json.dumps(act(ProcessGroup(rank, 2, sharded=True), folder)))
    distributed.destroy_process_group()


def run_two(folder, act):
    """What both said, and their exit codes."""
    folder.mkdir(exist_ok=True)
    members = [FORKS.Process(target=member, args=(folder, rank, act)) for rank in range(2)]
    for one in members:
        one.start()
    for one in members:
        one.join(600)
    return [json.loads(p.read_text()) for p in sorted(folder.glob("?.json"))], [one.exitcode for one in members]


def write(world, folder):
    state, norms = trained(world, 3)
    writer = ShardWriter(world, folder / "sharded", ID, keep=2)
    tensors = state.tensors()
    writer.submit(3, 12, tensors)
    whole = {stem: {name: world.gather_full(t) for name, t in named.items()} for stem, named in tensors.items()}
    if world.rank == 0:
        save_checkpoint(folder / "plain", ID, 3, 12, whole, keep=2)
    held = {stem: sizes([t for t in named.values() if t.dtype == torch.float32]) for stem, named in tensors.items()}
    held["gradients"] = sizes([p.grad for p in state.model.parameters()])
    with Calls() as calls:
        train_step(state, (torch.ones(2, 5),), loss, CONFIG)
    with torch.no_grad():
        network = [type(p).__name__ for p in state.ema.parameters() if state.ema(torch.ones(1, 5)).isfinite().all()]
    return {"norms": norms, "held": held, "after a call": network, "calls": calls.seen}


def fill_a_disk(world, folder):
    """Only the second process' disk is full, then it is not any more."""
    state, _ = trained(world, 1)
    writer = ShardWriter(world, folder / "run", ID, keep=2)
    writer.submit(1, 4, state.tensors())
    if world.rank == 1:
        size_limit(100)
    said = refusal(lambda: writer.submit(2, 8, state.tensors()))
    there = sorted(p.name for p in (folder / "run").iterdir())
    if world.rank == 1:
        size_limit(resource.RLIM_INFINITY)
    together = refusal(lambda: world.run_everywhere(lambda: os.listdir(folder / ("run" if world.rank else "nowhere"))))
    writer.submit(3, 12, state.tensors())
    writer.submit(4, 16, state.tensors())
    return {"said": said, "there": there, "then": sorted(p.name for p in (folder / "run").iterdir()), "all": together}


def die_in_the_middle(world, folder):
    """The second process is killed when it has written the model."""
    state, _ = trained(world, 1)
    writer = ShardWriter(world, folder / "run", ID, keep=2)
    writer.submit(1, 4, state.tensors())
    write_shards = shards.write_shards

    def struck(folder, named):
        if folder.name == "ema" and world.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        write_shards(folder, named)

    shards.write_shards = struck  # in this process, which ends here
    try:
        writer.submit(2, 8, state.tensors())
    except RuntimeError as error:
        return str(error)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A checkpoint in shards, the same one in the plain format, and what the two processes said."""
    folder = tmp_path_factory.mktemp("written")
    said, codes = run_two(folder, write)
    assert codes == [0, 0]
    return folder, said


@pytest.fixture
def checkpoint(written, tmp_path):
    """A copy to damage."""
    copy = tmp_path / "step-00000003"
    for file in (written[0] / "sharded" / "step-00000003").rglob("*.*"):
        target = copy / file.relative_to(written[0] / "sharded" / "step-00000003")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    return copy


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert (one[name].dtype, one[name].shape) == (other[name].dtype, other[name].shape)
        assert torch.equal(one[name], other[name])


def test_what_two_wrote_reads_as_what_one_would_have_written(written):
    plain, sharded = (written[0] / name / "step-00000003" for name in ("plain", "sharded"))
    for stem in STEMS:
        assert_equal(read_tensors(sharded, stem, read_state(sharded, ID)), load_file(plain / f"{stem}.safetensors"))


def test_two_sharded_processes_train_what_one_does(written):
    state, norms = trained(ProcessGroup(), 3)
    for said in written[1]:
        assert said["norms"] == pytest.approx(norms, rel=1e-5)
    sharded = written[0] / "sharded" / "step-00000003"
    for stem, named in state.tensors().items():
        found = read_tensors(sharded, stem, read_state(sharded, ID))
        assert found.keys() == named.keys()
        for name, tensor in named.items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-7, msg=f"{stem}/{name}")


def test_a_process_holds_half_of_everything(written):
    """But for rows that cannot be halved: 4 of 7, 5 of 9, 1 of 1. Steps of Adam, one number each, are everywhere."""
    first, second = (said["held"] for said in written[1])
    for stem in ("model", "ema", "gradients"):
        (own, total), (other, _) = first[stem], second[stem]
        assert own + other == total == 5 * 7 + 7 + 7 * 7 + 7 + 7 * 9 + 9 + 9 + 1
        assert own / total < 0.62
    (own, total), (other, _) = first["optimizer"], second["optimizer"]
    assert own + other == total + 8
    assert {*written[1][0]["after a call"]} == {"DTensor"}  # nothing stays gathered


def test_gradients_meet_once_a_step(written):
    """Two micro-batches: each gathers three groups of parameters forward and back, the second alone sends gradients."""
    for said in written[1]:
        sent = [call for call in said["calls"] if "c10d." in call]
        assert sum("gather" in call for call in sent) == 2 * 2 * 3, sent
        assert sum("scatter" in call for call in sent) == 3, sent


def test_every_process_has_its_file_and_every_file_its_sum(written):
    path = written[0] / "sharded" / "step-00000003"
    state, files = read_state(path, ID), sorted(p.relative_to(path).as_posix() for p in path.rglob("*.*"))
    parts = [f"{stem}/shard-0000{k}-model-00001-of-00001.safetensors" for stem in STEMS for k in (1, 2)]
    assert files == sorted([*parts, "state.json"])  # and no pickle of metadata
    assert state["sha256"] == {name: hashlib.sha256((path / name).read_bytes()).hexdigest() for name in parts}
    assert (state["format"], state["step"], state["images"]) == (2, 3, 12)
    held = [sum(t.numel() for t in load_file(path / name).values()) for name in parts[:2]]
    assert held == [said["held"]["model"][0] for said in written[1]]


@pytest.mark.parametrize("parts", [1, 3, 5, 20])
def test_any_number_of_shards_is_put_together(written, tmp_path, parts):
    state, _ = trained(ProcessGroup(), 2)
    path = save_checkpoint(tmp_path, ID, 2, 8, state.tensors(), keep=1)
    plain = {stem: load_file(path / f"{stem}.safetensors") for stem in STEMS}
    split(path, parts)
    found = read_state(path, ID)
    check_files(path, found)
    for stem in STEMS:
        assert_equal(read_tensors(path, stem, found), plain[stem])


@pytest.mark.parametrize(
    "name", [f"{stem}/shard-0000{k}-model-00001-of-00001.safetensors" for stem in STEMS for k in (1, 2)]
)
@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "empty", "exchange"])
def test_every_damage_is_found_and_said(checkpoint, name, damage):
    file = checkpoint / name
    one, two = sorted(path.name for path in file.parent.iterdir())
    content = bytearray(file.read_bytes())
    if damage == "delete":
        file.unlink()
    elif damage == "exchange":
        file.write_bytes((file.parent / {one: two, two: one}[file.name]).read_bytes())
    else:
        content[-1] ^= 1
        file.write_bytes({"flip": content, "truncate": content[:-9], "empty": b""}[damage])
    state = read_state(checkpoint, ID)
    with pytest.raises(DamagedError, match=f"{name}.*(is missing|is damaged)"):
        check_files(checkpoint, state)
    stem = name.split("/")[0]
    with pytest.raises(DamagedError, match=name):
        read_tensors(checkpoint, stem, state)
    for other in {*STEMS} - {stem}:
        read_tensors(checkpoint, other, state)
    assert name in inspect_checkpoint(checkpoint, ID, thorough=True).damage
    quick = inspect_checkpoint(checkpoint, ID, thorough=False).damage
    assert (quick is None) == (damage in ("flip", "exchange"))


def test_a_folder_that_is_gone_and_a_file_too_many_are_found(checkpoint):
    state, model = read_state(checkpoint, ID), checkpoint / "model"
    first = sorted(model.iterdir())[0]
    (model / "shard-00003-model-00001-of-00001.safetensors").write_bytes(first.read_bytes())  # it would be read too
    with pytest.raises(DamagedError, match=r"model/shard-00003-.* is not one of its files"):
        read_tensors(checkpoint, "model", state)
    for file in model.iterdir():
        file.unlink()
    model.rmdir()
    with pytest.raises(DamagedError, match=r"model/shard-00001-.*: it is missing"):
        check_files(checkpoint, state)


def test_the_optimizer_can_be_pruned(checkpoint):
    before = read_tensors(checkpoint, "ema", read_state(checkpoint, ID))
    drop_optimizer(checkpoint, read_state(checkpoint, ID))
    state = read_state(checkpoint, ID)
    check_files(checkpoint, state)
    assert sorted(p.name for p in checkpoint.iterdir()) == ["ema", "model", "state.json"]
    assert_equal(read_tensors(checkpoint, "ema", state), before)
    with pytest.raises(InputError, match="no optimizer since it was pruned"):
        read_tensors(checkpoint, "optimizer", state)


def test_a_disk_that_is_full_in_one_process_is_said_in_all_and_nothing_is_left(tmp_path):
    said, codes = run_two(tmp_path, fill_a_disk)
    assert codes == [0, 0]
    for one in said:
        assert one["said"] == f"{tmp_path}/run/step-00000002 could not be written (File too large)"
        assert one["there"] == ["step-00000001"]
        assert one["then"] == ["step-00000003", "step-00000004"]  # and the last two are kept
        assert "No such file or directory" in one["all"]
    for path in (tmp_path / "run").iterdir():
        check_files(path, read_state(path, ID))


def test_a_process_killed_in_the_middle_leaves_the_checkpoint_before(tmp_path):
    said, codes = run_two(tmp_path, die_in_the_middle)
    assert codes == [0, -signal.SIGKILL]
    assert "onnection" in said[0] or "gloo" in said[0]  # what the command line makes a sentence of
    run = tmp_path / "run"
    assert sorted(p.name for p in run.iterdir()) == [".tmp-step-00000002", "step-00000001"]
    check_files(run / "step-00000001", read_state(run / "step-00000001", ID))


def test_a_torch_without_such_files_is_said(monkeypatch):
    class Older:
        def __init__(self, path, save_sharded=False): ...

    monkeypatch.setattr("torch.distributed.checkpoint.HuggingFaceStorageWriter", Older)
    with pytest.raises(InputError, match=r"^--shard and its checkpoints need torch 2.9 or newer, this is "):
        shards.library()
    monkeypatch.delattr("torch.distributed.checkpoint.HuggingFaceStorageWriter")
    with pytest.raises(InputError, match=r"need torch 2.9 or newer"):
        shards.library()
