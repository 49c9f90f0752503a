"""Checkpoints: complete or absent, checked by their sums."""

import hashlib
import json

import pytest
import torch

from bytepixels.errors import InputError
from bytepixels.files import DamagedError
from bytepixels.runs import checkpoints as module
from bytepixels.runs.checkpoints import check_files, list_checkpoints, read_state, read_tensors, save_checkpoint

TENSORS = {
    "model": {"a.weight": torch.randn(3, 4), "b": torch.randn(2, 5, 3, 3).to(memory_format=torch.channels_last)},
    "ema": {"a.weight": torch.zeros(3, 4)},
    "optimizer": {"a.weight.step": torch.tensor(7.0)},
}


ID = "0123456789abcdef0123456789abcdef"


def save(folder, step=5, keep=3, run=ID):
    return save_checkpoint(folder, run, step, step * 32, TENSORS, keep)


def check(path, run=ID):
    """Everything about one checkpoint."""
    state = read_state(path, run)
    check_files(path, state)
    return state


def test_what_is_written_reads_back_bit_for_bit(tmp_path):
    path = save(tmp_path)
    assert sorted(p.name for p in path.iterdir()) == [
        "ema.safetensors",
        "model.safetensors",
        "optimizer.safetensors",
        "state.json",
    ]
    state = check(path)
    assert (state["step"], state["images"]) == (5, 160)
    for stem, named in TENSORS.items():
        read = read_tensors(path, stem, state)
        assert read.keys() == named.keys()
        assert all(torch.equal(read[name], named[name]) for name in named)


def test_every_file_has_its_checksum(tmp_path):
    path = save(tmp_path)
    sums = json.loads((path / "state.json").read_text())["sha256"]
    assert sums == {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in path.glob("*.safetensors")}
    assert len(sums) == 3


def test_the_last_ones_are_kept(tmp_path):
    for step in (1, 2, 10, 9):
        save(tmp_path, step, keep=2)
    assert [p.name for p in list_checkpoints(tmp_path)] == ["step-00000002", "step-00000009"]  # 10 was left behind


def test_the_same_step_again_replaces_it(tmp_path):
    (save(tmp_path) / "model.safetensors").write_bytes(b"damaged")
    check(save(tmp_path))
    assert len(list_checkpoints(tmp_path)) == 1


def test_a_save_that_is_cut_short_leaves_no_checkpoint_and_keeps_the_old_one(tmp_path, monkeypatch):
    save(tmp_path, 1, keep=1)

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_sealed", full_disk)
    with pytest.raises(OSError, match=r"step-00000002 could not be written \(No space left on device\)$"):
        save(tmp_path, 2, keep=1)
    assert [p.name for p in list_checkpoints(tmp_path)] == ["step-00000001"]
    check(tmp_path / "step-00000001")


@pytest.mark.parametrize("name", ["model.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "empty"])
def test_every_damage_is_found_and_said(tmp_path, name, damage):
    file = save(tmp_path) / name
    content = bytearray(file.read_bytes())
    if damage == "delete":
        file.unlink()
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "truncate":
        file.write_bytes(content[:-7])
    elif name == "state.json":
        file.write_bytes(content.replace(b'safetensors": "', b'safetensors": "0'))
    else:
        content[-1] ^= 1
        file.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        check(tmp_path / "step-00000005")


def rewrite(path, **changes):
    """state.json with other values, sealed as if they had been meant."""
    values = json.loads((path / "state.json").read_text()) | changes
    values.pop("seal")
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"))
    (path / "state.json").write_text(json.dumps(values | {"seal": hashlib.sha256(canonical.encode()).hexdigest()}))


def test_a_later_format_is_refused(tmp_path):
    path = save(tmp_path)
    rewrite(path, format=3)
    with pytest.raises(InputError, match="format 3, this version reads 1 and 2") as refused:
        check(path)
    assert not isinstance(refused.value, DamagedError)


def test_a_seal_that_was_meant_opens(tmp_path):
    path = save(tmp_path)
    rewrite(path, note="mine")
    assert check(path)["note"] == "mine"


def test_a_checkpoint_of_another_run_is_found(tmp_path):
    path = save(tmp_path, run="f" * 32)
    with pytest.raises(DamagedError, match=rf"of another run \(its id is {'f' * 32}, this run's {ID}\)$"):
        check(path)
    with pytest.raises(DamagedError, match="of another run"):
        check(path, run=None)


def test_a_checkpoint_under_another_steps_name_is_found(tmp_path):
    path = save(tmp_path).rename(tmp_path / "step-00000007")
    with pytest.raises(DamagedError, match="step-00000007 is step-00000005 under another name"):
        check(path)


def test_one_without_a_seal_is_of_an_early_version(tmp_path):
    path = save(tmp_path)
    state = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps({k: v for k, v in state.items() if k not in ("run", "seal")}))
    with pytest.raises(DamagedError, match=r"it has no seal \(runs of early versions"):
        check(path)


def test_bytes_that_change_after_they_were_checked_are_not_loaded(tmp_path):
    path = save(tmp_path)
    state = check(path)
    (path / "model.safetensors").write_bytes((path / "ema.safetensors").read_bytes())
    with pytest.raises(DamagedError, match="checksum"):
        read_tensors(path, "model", state)


@pytest.mark.parametrize("own", [ID, None])
@pytest.mark.parametrize("other", ["f" * 32, None])
def test_a_checkpoint_of_another_run_is_not_removed(tmp_path, own, other):
    """Neither a later one, nor an older one, nor one that lies where ours is to go."""
    for step in (1, 5, 9):
        save(tmp_path, step, run=other, keep=9)
    written = {path.name: (path / "state.json").read_bytes() for path in list_checkpoints(tmp_path)}
    check(save(tmp_path, 5, run=own, keep=1), run=own)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000005"]
    aside = {path.name[len("other-run-") : -9]: path for path in tmp_path.glob("other-run-*")}
    assert aside.keys() == (set() if own == other else written.keys())
    assert all((path / "state.json").read_bytes() == written[name] for name, path in aside.items())
