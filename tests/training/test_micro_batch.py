"""A batch that does not fit in memory is taken in parts; which parts, changes nothing but rounding."""

import resource

import pytest
import torch

from bytepixels.networks import DiT
from bytepixels.training import micro_batch as memory
from bytepixels.training.micro_batch import (
    StepMemory,
    corners,
    is_out_of_memory,
    kept_bytes,
    largest_micro_batch,
    step_memory,
)
from bytepixels.training.nonfinite import TrainingError
from tests.processes import run_in_process
from tests.tiny import STEP, cli, log_of, read_json, train, words

LARGE = words(
    """
    train digits --preset digits --batch 2048 --images 2048 --previews 0 --log-seconds 0 --device cpu
    --precision float32
    """
)


def little_memory():
    """For `before`: 1.2 GB more than the process has now, of which the whole batch alone would take 1.5."""
    with open("/proc/self/status") as file:
        size = next(1024 * int(line.split()[1]) for line in file if line.startswith("VmSize"))
    resource.setrlimit(resource.RLIMIT_AS, (size + int(1.2e9),) * 2)
    torch.set_num_threads(1)


def little_memory_and_no_probe():
    little_memory()
    from bytepixels.training import trainer

    trainer.largest_micro_batch = lambda state, loss, batch, micro: micro


@pytest.mark.slow
def test_a_process_that_may_take_little_memory_trains_the_same(tmp_path):
    code, said = run_in_process(tmp_path, *LARGE, "--run", tmp_path / "little", before=little_memory)
    assert code == 0, said
    assert "note: a batch of 2048 does not fit in memory; using micro-batches of" in said
    micro = read_json(tmp_path / "little/config.json")["config"]["train"]["micro_batch"]
    assert micro in (256, 512, 1024)
    assert cli(*LARGE, "--run", tmp_path / "much") == 0
    assert read_json(tmp_path / "much/config.json")["config"]["train"]["micro_batch"] == 0
    for little, much in zip(log_of(tmp_path / "little"), log_of(tmp_path / "much"), strict=True):
        assert little["loss"] == pytest.approx(much["loss"], rel=1e-5)
        assert little["grad_norm"] == pytest.approx(much["grad_norm"], rel=1e-4)


@pytest.mark.slow
def test_without_the_probe_it_would_have_ended(tmp_path):
    code, said = run_in_process(tmp_path, *LARGE, "--run", tmp_path / "run", before=little_memory_and_no_probe)
    assert code == 1
    assert "out of memory; try train --micro-batch" in said


def test_a_run_keeps_its_micro_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda device: 5e6)
    run = tmp_path / "run"

    def micro_batch(steps, *flags):
        assert train(run, *flags, steps=steps) == 0
        return read_json(run / "config.json")["config"]["train"]["micro_batch"]

    first = micro_batch(1)
    assert 1 <= first < STEP
    monkeypatch.undo()
    assert micro_batch(2) == first
    assert micro_batch(3, "--micro-batch", 0) == 0  # on a machine with more memory


def test_corners():
    batch = (torch.zeros(3, 1, 100, 65), None, torch.arange(3), torch.zeros(3, 1, 100, 65))
    images, none, t, noise = corners(batch, 2)
    assert (images.shape, none, t.tolist(), noise.shape) == ((2, 1, 64, 64), None, [0, 1], (2, 1, 64, 64))


def test_memory_of_a_step():
    assert StepMemory(weights=100, fixed=10, each=4).of(3) == 500 + 1.5 * 22


class Device:
    """A device, as far as fitting() can see, that holds so many images at a time."""

    def __init__(self, images):
        self.images, self.asked, self.sharded = images, [], False
        self.world, self.network, self.model = self, "network", torch.nn.Linear(1, 1)
        self.device = torch.device("meta")
        self.optimizer = torch.optim.Adam(self.model.parameters())

    def synchronising(self, network, now):
        assert now is False  # other processes may need another number of tries
        return torch.enable_grad()

    def loss(self, network, x, nothing):
        self.asked.append(len(x))
        if len(x) > self.images:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.model(x)


@pytest.mark.parametrize(("images", "expected"), [(100, 64), (64, 64), (63, 32), (16, 16), (1, 1)])
def test_on_a_gpu_a_pass_is_tried(images, expected):
    device = Device(images)
    assert largest_micro_batch(device, device.loss, (torch.zeros(64, 1), None), 64) == expected
    assert device.asked == [64 >> k for k in range(7) if 64 >> k >= expected]
    assert all(p.grad is None for p in device.model.parameters())


def test_where_one_image_is_too_much():
    device = Device(0)
    with pytest.raises(TrainingError, match="one image at a time is too much for the memory of meta"):
        largest_micro_batch(device, device.loss, (torch.zeros(5, 1), None), 5)
    assert device.asked == [5, 3, 2, 1]


def test_other_errors_are_not_swallowed():
    device = Device(9)
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes"):
        largest_micro_batch(device, device.loss, (torch.zeros(5, 2), None), 5)


@pytest.mark.parametrize(
    "said", ["MPS backend out of memory", "DefaultCPUAllocator: can't allocate memory", "could not create a primitive"]
)
def test_errors_of_other_allocators(said):
    assert is_out_of_memory(RuntimeError(said))
    assert not is_out_of_memory(RuntimeError("shapes"))


def test_corners_of_a_network_of_patches():
    """Its own size where 64 pixels do not divide into patches; reckoned from it, memory grows with the area."""
    torch.manual_seed(0)
    network = DiT(channels=1, patch=5, width=16, depth=1, heads=1)
    images, t = torch.randn(2, 1, 120, 120), torch.zeros(2)
    loss = lambda model, x, t: model(x, t).square().mean(dim=(1, 2, 3))  # noqa: E731
    found = step_memory(network, loss, (images, t))
    whole = kept_bytes(network, loss, (images, t)) - kept_bytes(network, loss, (images[:1], t[:1]))
    assert found.each == pytest.approx(whole, rel=0.05)
    large = DiT(channels=1, patch=70, width=16, depth=1, heads=1)
    assert step_memory(large, loss, (torch.randn(2, 1, 140, 70), t)).each > 0
