"""bench.loading from end to end, on a few images: what it counts, and that its parts fit together."""

import json
import sys

import pytest

from bench import loading
from tests.data.fixtures import as_tar, write_all


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_packing_and_loading_are_measured(tmp_path, monkeypatch, capsys, kind):
    write_all(tmp_path / "in", [f"{k}.png" for k in range(70)], height=8, width=8)
    source = as_tar(tmp_path / "in", tmp_path / "x.tar.xz") if kind == "tar" else tmp_path / "in"
    line = ["loading", source, "--preset", "digits", "--rounds", 2, "--steps", 3, "--json", tmp_path / "found.json"]
    monkeypatch.setattr(sys, "argv", [str(word) for word in line])
    loading.main()
    (row,) = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert (row["pictures"], row["packed_bytes"]) == (70, 70 * 3 * 8 * 8)
    assert row["source_bytes"] == sum(file.stat().st_size for file in (tmp_path / "in").iterdir())
    assert len(row["reading"]) == 2
    for what in ("pack", "decoder"):
        assert all(len(times) == 2 and min(map(min, times)) > 0 for times in row[what].values())
    for times in row["loading"].values():
        assert [len(values) for values in times.values()] == [6, 6, 6]
        for step, data, waits in zip(times["step"], times["data"], times["waits"], strict=True):
            assert step > data > waits > 0
    assert sum("of the decoder's rate" in said for said in capsys.readouterr().out.splitlines()) == len(row["pack"])
