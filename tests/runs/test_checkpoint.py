"""Checkpoints: complete or absent, checked by their sums."""

import hashlib
import json

import pytest
import torch

from bytepixels.errors import InputError
from bytepixels.runs import checkpoint as module
from bytepixels.runs.checkpoint import list_checkpoints, read_state, read_tensors, save_checkpoint

TENSORS = {
    "model": {"a.weight": torch.randn(3, 4), "b": torch.randn(2, 5, 3, 3).to(memory_format=torch.channels_last)},
    "ema": {"a.weight": torch.zeros(3, 4)},
    "optimizer": {"a.weight.step": torch.tensor(7.0)},
}


def save(folder, step=5, keep=3):
    return save_checkpoint(folder, step, step * 32, TENSORS, keep)


def test_what_is_written_reads_back_bit_for_bit(tmp_path):
    path = save(tmp_path)
    assert sorted(p.name for p in path.iterdir()) == [
        "ema.safetensors",
        "model.safetensors",
        "optimizer.safetensors",
        "state.json",
    ]
    state = read_state(path)
    assert (state["step"], state["images"]) == (5, 160)
    for stem, named in TENSORS.items():
        read = read_tensors(path, stem)
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
    read_state(save(tmp_path))
    assert len(list_checkpoints(tmp_path)) == 1


def test_a_save_that_is_cut_short_leaves_no_checkpoint_and_keeps_the_old_one(tmp_path, monkeypatch):
    save(tmp_path, 1, keep=1)

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_json", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, 2, keep=1)
    assert [p.name for p in list_checkpoints(tmp_path)] == ["step-00000001"]
    read_state(tmp_path / "step-00000001")


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
        read_state(tmp_path / "step-00000005")


def test_a_later_format_is_refused(tmp_path):
    path = save(tmp_path)
    state = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps(state | {"format": 2}))
    with pytest.raises(InputError, match="format 2, this version reads 1"):
        read_state(path)
