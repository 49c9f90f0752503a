"""Several processes are one: 2 to 4 of them on this machine, against a single one.

torchrun itself starts them where what it does is tested: that one fails, is stopped, dies, or is on another machine.
"""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from functools import partial

import pytest
import torch

from bytepixels.distributed.process_group import SINGLE_PROCESS, ProcessGroup, join, own_device
from bytepixels.errors import InputError
from tests.processes import PATIENCE, as_torchrun, open_store, run_together
from tests.tiny import checkpoints, cli, log_of, pixels_of, read_json, tensors, words
from tests.training.tampered import tamper

FLAGS = words(
    """
    --preset digits --width 16 --multipliers 1 2 --attention 1 --blocks 1 --dropout 0.2 --label-dropout 0.3 --flip yes
    --batch 30 --precision float32 --device cpu --log-seconds 0 --previews 1 --preview-images 5
    --sampler ddim --steps 3 --lr 0.001 --warmup 100 --lr-decay none
    """
)
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


PIPED = {"env": ENVIRONMENT, "stderr": subprocess.PIPE, "text": True}


def command(processes, *line, agent=("--standalone",), module="bytepixels"):
    launch = [sys.executable, "-m", "torch.distributed.run", *agent, "--nproc-per-node", processes]
    return [str(word) for word in (*launch, "-m", module, "--", *line)]


def torchrun(processes, *line):
    return subprocess.run(command(processes, *line), env=ENVIRONMENT, capture_output=True, text=True)


def together(processes, *line, before=None):
    """What several processes said that all went well."""
    codes, said = run_together(processes, *line, before=before)
    assert codes == [0] * processes, said
    return said


def train(run, processes, *flags, steps):
    line = ("train", "digits", *FLAGS, "--run", run, "--images", 30 * steps, *flags)
    if processes == 1:
        assert cli(*line) == 0
        return ""
    return together(processes, *line)


def losses(run):
    return torch.tensor([(line["loss"], line["grad_norm"]) for line in log_of(run)], dtype=torch.float64)


def apart(one, other):
    """The largest difference of a weight, and of an average, between the last checkpoints of two runs."""
    one, other = (tensors(checkpoints(run)[-1]) for run in (one, other))
    return max((one[k] - other[k]).abs().max().item() for k in one if k.startswith(("model", "ema")))


@pytest.mark.parametrize("batch", [1, 7, 64])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_rows_share_a_batch_out_evenly_and_in_order(batch, size):
    rows = [ProcessGroup(rank, size).local_rows(batch) for rank in range(size)]
    assert [k for part in rows for k in range(batch)[part]] == list(range(batch))
    counts = [part.stop - part.start for part in rows]
    assert max(counts) - min(counts) <= 1


def test_alone_everything_is_as_it_was():
    values = torch.arange(6.0)
    assert SINGLE_PROCESS.gather(values, 6) is values
    assert SINGLE_PROCESS.sum(values) is values
    assert SINGLE_PROCESS.all_max(3, 0) == [3, 0]
    assert SINGLE_PROCESS.broadcast_from_rank0(lambda: {"any": object}) == {"any": object}  # not even through JSON
    model = torch.nn.Linear(1, 1)
    assert SINGLE_PROCESS.wrapped(model) is model
    with join(torch.device("cpu")) as world:
        assert (world.rank, world.size) == (0, 1)


@pytest.mark.parametrize("batch", [4, 7, 30, 64])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("micro", [0, 1, 2, 5, 7, 99])
def test_turns_cover_a_share_and_a_sharded_world_takes_as_many_everywhere(batch, size, micro):
    shares = [len(range(batch)[ProcessGroup(rank, size).local_rows(batch)]) for rank in range(size)]
    for sharded in (False, True):
        turns = [ProcessGroup(rank, size, sharded=sharded).micro_batches(batch, micro) for rank in range(size)]
        for share, own in zip(shares, turns, strict=True):
            assert [k for turn in own for k in range(share)[turn]] == list(range(share))
            lengths, over = [turn.stop - turn.start for turn in own], sharded and micro == 1
            assert min(lengths) >= 1
            assert max(lengths) <= (micro or share) + (over and min(shares) < max(shares))
        if sharded:
            assert len({len(own) for own in turns}) == 1
    assert ProcessGroup(0, size).micro_batches(batch, 2)[:-1] == [slice(k, k + 2) for k in range(0, shares[0] - 2, 2)]


def test_to_be_sharded_takes_several_processes():
    with pytest.raises(
        InputError, match=r"^--shard needs several processes: torchrun .*; one alone goes on with --no-"
    ):
        join(torch.device("cpu"), sharded=True).__enter__()


def test_devices_under_torchrun(monkeypatch):
    assert own_device("cuda:1") == "cuda:1"
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert own_device("cpu") == "cpu"
    with pytest.raises(InputError, match="gives every process a device of its own: --device cuda or cpu, got cuda:1"):
        own_device("cuda:1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert own_device("auto") == "cpu"
    with pytest.raises(InputError, match="process 2 of this machine has no GPU: there are 0; lower --nproc-per-node"):
        own_device("cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert own_device("auto") == own_device("cuda") == "cuda:2"


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The same run on one process and on two, and what the two said."""
    folder = tmp_path_factory.mktemp("two")
    train(folder / "one", 1, steps=12)
    return folder, train(folder / "two", 2, steps=12)


def test_two_processes_train_what_one_does(two):
    folder, said = two
    one, both = losses(folder / "one"), losses(folder / "two")
    assert len(one) == 12
    torch.testing.assert_close(both, one, rtol=1e-5, atol=0)
    assert apart(folder / "one", folder / "two") < 1e-5
    assert said.count("done in") == 1  # the first process speaks, the other is silent
    (preview,) = (folder / "two/samples").iterdir()
    gap = abs(pixels_of(preview).astype(int) - pixels_of(folder / "one/samples" / preview.name)).max()
    assert gap <= 1


def test_two_processes_draw_and_measure_what_one_does(two, tmp_path):
    run = two[0] / "one"
    draw = ("sample", run, "-n", 7, "--seed", 5, "--batch", 2, "--gif", "--out")
    assert cli(*draw, tmp_path / "one") == 0
    together(2, *draw, tmp_path / "two")
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "two").iterdir())
    for name in files:
        if name.endswith(".png"):
            assert abs(pixels_of(tmp_path / "one" / name).astype(int) - pixels_of(tmp_path / "two" / name)).max() <= 1
    assert (
        read_json(tmp_path / "one/manifest.json")["pictures"] == read_json(tmp_path / "two/manifest.json")["pictures"]
    )


def test_a_mistake_is_said_once_and_everywhere_the_end(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "letter.txt").write_text("mine")
    done = torchrun(2, "train", "digits", *FLAGS, "--run", tmp_path / "run")
    assert "exitcode  : 2" in done.stderr
    assert "run exists and is not a run; choose another --run" in done.stderr
    assert 'Traceback (most recent call last):\n  File "<frozen runpy>"' not in done.stderr.split("bytepixels:")[0]
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["letter.txt"]


def ended(how, run, *flags):
    """The exit codes of six steps on two processes, and the threads that each had at its end."""
    line = ("train", "digits", *FLAGS, "--previews", 0, "--run", run, "--images", 180, *flags)
    words, store, workers = (
        [sys.executable, "-m", "tests.training.ending", how, "--", *map(str, line)],
        open_store(),
        [],
    )
    for rank in range(2):  # whole interpreters, whose end it is about
        own = ENVIRONMENT | as_torchrun(2, rank, store.port)
        workers.append(subprocess.Popen(words, env=own, stderr=subprocess.PIPE, text=True))
    said = "".join(worker.communicate()[1] for worker in workers)
    return [worker.returncode for worker in workers], re.findall(r"(?m)^threads at the end: (.*)$", said)


@pytest.mark.slow
def test_the_threads_of_the_process_group_end_before_the_interpreter(tmp_path):
    """Else one may ask for it at its end, which aborts the process: in 2 of 60 runs where they had little time."""
    codes, threads = ended("well", tmp_path / "run")
    assert codes == [0, 0]
    assert len(threads) == 2
    assert "gloo" not in " ".join(threads)


# Slow: more processes, restarts, several machines


@pytest.mark.slow
def test_one_two_and_four_processes_any_micro_batch_before_and_after_a_resume(tmp_path):
    """20 steps. Losses, gradients and weights equal to rounding; dropout, flips and label dropout on."""
    train(tmp_path / "one", 1, steps=20)
    train(tmp_path / "two", 2, "--micro-batch", 4, steps=20)
    train(tmp_path / "four", 4, steps=20)
    train(tmp_path / "turns", 4, steps=4)
    train(tmp_path / "turns", 1, steps=10)
    train(tmp_path / "turns", 2, steps=20)
    one = losses(tmp_path / "one")
    assert len(one) == 20
    for name in ("two", "four", "turns"):
        torch.testing.assert_close(losses(tmp_path / name), one, rtol=1e-5, atol=0)
        assert apart(tmp_path / "one", tmp_path / name) < 1e-4


@pytest.mark.slow
def test_muons_steps_are_the_same_on_two_processes(tmp_path):
    """As losses see it: in directions without a gradient an orthogonal step is its rounding, made large."""
    for name, processes in (("one", 1), ("two", 2)):
        train(tmp_path / name, processes, "--optimizer", "muon", steps=12)
    torch.testing.assert_close(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=2e-3, atol=0)


@pytest.mark.slow
def test_times_by_importance_are_the_same_on_two_processes(tmp_path):
    """Their memory of losses is everybody's."""
    flags = words("--objective vlb --variance learned --times importance --timesteps 4 --previews 0")
    train(tmp_path / "one", 1, *flags, steps=20)
    train(tmp_path / "two", 2, *flags, steps=20)
    torch.testing.assert_close(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=1e-4, atol=0)
    one, two = (tensors(checkpoints(tmp_path / name)[-1]) for name in ("one", "two"))
    assert (one["optimizer/memory: counts"] >= 10).all()  # the draws are uniform no more
    assert torch.equal(one["optimizer/memory: counts"], two["optimizer/memory: counts"])


@contextlib.contextmanager
def job(line, processes=2, agent=("--standalone",), module="bytepixels"):
    """torchrun, which at the end of the block has ended."""
    with subprocess.Popen(command(processes, *line, agent=agent, module=module), **PIPED) as started:
        try:
            yield started
        finally:
            started.terminate()


def wait_for(job, what):
    """Until something is so, as long as the job lives."""
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert job.poll() is None, job.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def train_with_a_death(run, rank, *flags, steps):
    """The process of that rank kills itself in the middle of training, and torchrun begins again."""
    flags = ("--images", 30 * steps, "--checkpoint-minutes", 0, "--keep", 2, "--previews", 0, *flags)
    line = (rank, "--", "train", "digits", *FLAGS, "--run", run, *flags)
    with job(line, agent=("--standalone", "--max-restarts", 2), module="tests.training.dying") as started:
        _, said = started.communicate(timeout=PATIENCE)
    assert started.returncode == 0, said
    assert checkpoints(run)[-1].name == f"step-{steps:08d}"
    assert not list((run / "checkpoints").glob(".tmp-*"))
    assert len(read_json(run / "config.json")["made_by"]) == 2


def stop_by_sigterm(run, *flags):
    """SIGTERM to torchrun once there are two checkpoints; the step at which it was saved."""
    with job(("train", "digits", *FLAGS, "--run", run, "--images", 10**9, *flags)) as started:
        wait_for(started, lambda: run.is_dir() and len(list((run / "checkpoints").glob("step-*"))) >= 2)
        started.send_signal(signal.SIGTERM)
        _, said = started.communicate(timeout=PATIENCE)
    assert "saved. Repeat the command to resume." in said
    step = int(checkpoints(run)[-1].name.removeprefix("step-"))
    assert [line["step"] for line in log_of(run)][-1] == step > 0
    return step


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_worker_that_dies_is_replaced_and_training_ends_right(two, tmp_path, rank):
    run = tmp_path / "restarted"
    train_with_a_death(run, rank, steps=12)
    torch.testing.assert_close(losses(run), losses(two[0] / "one"), rtol=1e-4, atol=0)
    assert apart(two[0] / "one", run) < 1e-3


def tampered(how, run, *flags):
    """Six steps on two processes, with something wrong in the second one."""
    line = ("train", "digits", *FLAGS, "--run", run, "--images", 180, "--previews", 0, *flags)
    return together(2, *line, before=partial(tamper, how))


@pytest.mark.slow
def test_a_loss_that_is_not_finite_in_one_process_is_left_out_in_all(tmp_path):
    """Copies or shards of the network: the same steps are left out, and the same losses come after."""
    for name, flags in (("copies", ()), ("shards", ("--shard",))):
        assert "1 step skipped" in tampered("loss", tmp_path / name, "--on-nonfinite", "skip", *flags)
        assert [line.get("skipped", 0) for line in log_of(tmp_path / name)] == [0, 0, 0, 1, 0, 0]
    kept = [[line["loss"] for line in log_of(tmp_path / name) if "loss" in line] for name in ("copies", "shards")]
    assert kept[1] == pytest.approx(kept[0], rel=1e-5)
    assert all(value.isfinite().all() for value in tensors(checkpoints(tmp_path / "copies")[-1]).values())


@pytest.mark.slow
@pytest.mark.parametrize(("how", "flags"), [("well", ["--shard"]), ("loss", []), ("loss", ["--shard"])])
def test_they_end_as_well_where_networks_are_sharded_and_where_training_fails(tmp_path, how, flags):
    codes, threads = ended(how, tmp_path / "run", *flags)
    assert (codes == [0, 0]) == (how == "well")
    assert len(list((tmp_path / "run").rglob("nonfinite*"))) == (how == "loss")
    assert len(threads) == 2
    assert "gloo" not in " ".join(threads)


@pytest.mark.slow
def test_the_process_with_the_least_memory_decides(tmp_path):
    said = tampered("memory", tmp_path / "little")
    assert "note: a batch of 15 does not fit in memory; using micro-batches of" in said
    assert read_json(tmp_path / "little/config.json")["config"]["train"]["micro_batch"] < 15
    train(tmp_path / "much", 1, "--previews", 0, steps=6)
    torch.testing.assert_close(losses(tmp_path / "little"), losses(tmp_path / "much"), rtol=1e-5, atol=0)


@pytest.mark.slow
def test_the_first_process_measures_the_arithmetic_and_the_other_follows(tmp_path):
    said = tampered("gain", tmp_path / "measured", "--precision", "auto")
    name = read_json(tmp_path / "measured/config.json")["config"]["train"]["precision"]
    assert said.count(f"Using {name}: bf16 is ") == 1
    train(tmp_path / "named", 2, "--precision", name, "--previews", 0, steps=6)
    assert torch.equal(losses(tmp_path / "measured"), losses(tmp_path / "named"))


@pytest.mark.slow
def test_a_budget_of_time_ends_everywhere_at_once(tmp_path):
    together(2, "train", "digits", *FLAGS, "--run", tmp_path / "run", "--budget", "20s", "--lr-decay", "linear")
    log, config = log_of(tmp_path / "run"), read_json(tmp_path / "run/config.json")["config"]["train"]
    assert log[-1]["seconds"] > 14
    assert config["images"] <= log[-1]["images"] < config["images"] + 30


@pytest.mark.slow
def test_sigterm_to_torchrun_saves_at_one_step_and_the_job_goes_on(tmp_path):
    run = tmp_path / "run"
    step = stop_by_sigterm(run, "--checkpoint-minutes", 0.005)
    assert cli("train", "digits", "--run", run, "--images", 30 * (step + 2), "--previews", 0) == 0


@pytest.mark.slow
def test_two_machines_meet_by_rendezvous(two, tmp_path):
    """Two torchrun agents on loopback, one process each: the two-machine example of docs/cluster.md."""
    run = tmp_path / "two"
    line = ("train", "digits", *FLAGS, "--run", run, "--images", 360)
    with socket.create_server(("localhost", 0)) as free:
        endpoint = f"localhost:{free.getsockname()[1]}"
    where = ("--nnodes", 2, "--rdzv-id", "job", "--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint)
    with job(line, 1, agent=where) as one, job(line, 1, agent=where) as other:
        for started in (one, other):
            _, said = started.communicate(timeout=PATIENCE)
            assert started.returncode == 0, said
    torch.testing.assert_close(losses(run), losses(two[0] / "one"), rtol=1e-5, atol=0)
