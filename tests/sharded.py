"""Shards without the library that writes them: safetensors files whose header says where their rows begin."""

import json

from safetensors import safe_open
from safetensors.torch import save_file

from bytepixels.files import read_sealed, sha256, write_sealed


def rows(count, parts):
    """How torch.chunk shares rows out: the last parts may have none."""
    size = -(-count // parts)
    return [slice(min(k * size, count), min((k + 1) * size, count)) for k in range(parts)]


def split(checkpoint, parts):
    """Turn a plain checkpoint into what `parts` processes would have written."""
    for file in sorted(checkpoint.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            whole = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        (checkpoint / file.stem).mkdir()
        for k in range(parts):
            own = {name: t[rows(len(t), parts)[k]].contiguous() for name, t in whole.items() if t.dim()}
            begins = {n: [rows(len(whole[n]), parts)[k].start] + [0] * (t.dim() - 1) for n, t in own.items()}
            if k == 0:  # what every process has, one writes
                own |= {name: t for name, t in whole.items() if not t.dim()}
            header = {name: {"saved_offsets": begins.get(name, [])} for name in own}
            name = f"shard-{k + 1:05d}-model-00001-of-00001.safetensors"
            save_file(own, checkpoint / file.stem / name, {"DCP_SHARDING_INFO": json.dumps(header), "format": "pt"})
        file.unlink()
    sums = {path.relative_to(checkpoint).as_posix(): sha256(path) for path in checkpoint.rglob("*.safetensors")}
    state = read_sealed(checkpoint / "state.json")
    write_sealed(checkpoint / "state.json", state | {"format": 2, "sha256": sums})
