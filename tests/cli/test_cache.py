"""The cache is shown, cleared by kind and by age, and kept within a limit: what was unused for longest goes."""

import os

import pytest

from bytepixels.data import pack
from bytepixels.data.cache import RECENT, entries, limit
from bytepixels.errors import InputError
from tests.data.fixtures import write_all
from tests.tiny import cli


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A cache of its own, with three packs that were used one after the other: [path], oldest first."""
    monkeypatch.setenv("BYTEPIXELS_CACHE", str(tmp_path / "cache"))
    paths = [packed(tmp_path, name) for name in "abc"]
    for age, path in zip((30, 20, 10), paths, strict=True):
        aged(path, age)
    return paths


def packed(folder, name):
    write_all(folder / name, [f"{k}.png" for k in range(3)], seed=ord(name))
    return pack(folder / name).path


def aged(path, days):
    for file in [*path.rglob("*"), path]:
        when = file.stat().st_mtime - 86_400 * days
        os.utime(file, (when, when))


def test_it_is_shown_by_kind(home, capsys):
    assert cli("cache", "show") == 0
    said = capsys.readouterr().out
    size = sum(one.size for one in entries(home[0].parents[1]))
    assert f"{home[0].parents[1]}: {size / 1000:.1f} kB (no limit; BYTEPIXELS_CACHE_LIMIT=5GB would set one)" in said
    assert "packs" in said
    assert "latents" not in said


def test_it_is_cleared_by_age_and_by_kind(home, capsys):
    assert cli("cache", "clear", "latents") == 0
    assert cli("cache", "clear", "--older-than", 15, "--dry-run") == 0
    assert all(path.exists() for path in home)
    assert cli("cache", "clear", "--older-than", 15) == 0
    assert [path.exists() for path in home] == [False, False, True]
    assert cli("cache", "clear") == 0
    assert entries(home[0].parents[1]) == []
    assert "freed" in capsys.readouterr().out
    assert cli("cache", "show") == 0  # of an empty one


def test_what_is_in_the_making_stays(home):
    draft = home[0].with_name(".packing-x")
    draft.mkdir()
    assert cli("cache", "clear") == 0
    assert draft.exists()
    when = draft.stat().st_mtime - RECENT - 1
    os.utime(draft, (when, when))
    assert cli("cache", "clear", "packs") == 0
    assert not draft.exists()


def test_a_limit_drops_what_was_not_used_for_longest(home, tmp_path, monkeypatch):
    pack(tmp_path / "a")  # now the newest
    sizes = {one.path: one.size for one in entries(home[0].parents[1])}
    monkeypatch.setenv("BYTEPIXELS_CACHE_LIMIT", str(3 * max(sizes.values())))
    new = packed(tmp_path, "d")
    assert [path.exists() for path in [*home, new]] == [True, False, True, True]
    monkeypatch.setenv("BYTEPIXELS_CACHE_LIMIT", "1")
    newest = packed(tmp_path, "e")
    assert [path.exists() for path in [*home, new, newest]] == [False, False, False, False, True]  # never what is asked


@pytest.mark.parametrize(
    ("text", "size"), [("5GB", 5 * 10**9), ("1.5g", 1.5 * 10**9), ("500 MB", 5 * 10**8), ("10", 10), ("", None)]
)
def test_sizes(monkeypatch, text, size):
    monkeypatch.setenv("BYTEPIXELS_CACHE_LIMIT", text)
    assert limit() == size


def test_what_is_refused(home, capsys, monkeypatch):
    assert cli("cache", "clear", "pictures") == 2
    assert "KIND must be one of packs, latents" in capsys.readouterr().err
    assert cli("cache", "clear", "--older-than", -1) == 2
    assert cli("cache", "empty") == 2
    monkeypatch.setenv("BYTEPIXELS_CACHE_LIMIT", "much")
    with pytest.raises(InputError, match="BYTEPIXELS_CACHE_LIMIT must be a size such as 5GB or 500MB, got 'much'"):
        limit()
    assert cli("cache", "show") == 2
    assert all(path.exists() for path in home)
