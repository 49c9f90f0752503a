"""A pack in the making: taken up where it was interrupted, shared between processes, never taken for whole."""

import os
import shutil
import signal
import sys
import time
from errno import ENOSPC

import pytest
from filelock import FileLock

from bytepixels.data import making, pack, parallel
from bytepixels.data import pack_writer as module
from bytepixels.data.locks import claim
from bytepixels.data.rows import Rows
from bytepixels.data.sources import archives
from bytepixels.data.sources import source as pictures
from bytepixels.data.sources import tar as tars
from bytepixels.errors import InputError

from .fixtures import FORK, as_tar, as_zip, tar_of, write_all

NAMES = [f"{kind}/{number}.png" for kind in ("cat", "dog") for number in range(6)]
TYPES = {"folder": lambda root, path: root, "zip": as_zip, "tar.gz": as_tar}


@pytest.fixture
def folder(tmp_path):
    """Twelve images of two classes, and two files that are none."""
    write_all(tmp_path / "in", NAMES)
    (tmp_path / "in/cat/2b.png").write_text("no image")
    (tmp_path / "in/dog/0b.png").write_bytes((tmp_path / "in/dog/0.png").read_bytes()[:90])
    return tmp_path / "in"


@pytest.fixture(params=TYPES)
def source(request, folder, tmp_path):
    return TYPES[request.param](folder, tmp_path / f"in.{request.param}")


@pytest.fixture
def decoded(monkeypatch):
    """Grows with every image that this process decodes."""
    seen, original = [], making.to_pixels
    monkeypatch.setattr(making, "to_pixels", lambda *args: seen.append(1) or original(*args))
    return seen


def contents(path):
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


def drafts(cache):
    return sorted((cache / "packs").glob(".packing-*"))


def uninterrupted(source, tmp_path):
    return contents(pack(source, cache=tmp_path / "reference").path)


def interrupted(source, cache, after=5):
    def progress(done, total):
        if done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(source, cache=cache, progress=progress)


# taken up again


def test_an_interrupted_pack_goes_on_where_it_was(tmp_path, source, decoded):
    expected, cache = uninterrupted(source, tmp_path), tmp_path / "cache"
    decoded.clear()
    interrupted(source, cache, after=5)
    assert [path.name for path in (cache / "packs").iterdir()] == [drafts(cache)[0].name]
    before, steps = len(decoded), []
    result = pack(source, cache=cache, progress=lambda *step: steps.append(step))
    assert steps == [(done, 14) for done in range(5, 15)]
    assert len(decoded) - before in (8, 9)  # the file of text, which comes early or late, is not decoded
    assert contents(result.path) == expected
    assert drafts(cache) == []
    assert result.notes[-1] == "5 of 14 images lay packed already when this command began: it went on from there."
    assert result.notes[-1] not in pack(source, cache=cache).notes


def test_a_full_disk_loses_nothing(tmp_path, folder, monkeypatch):
    expected, original, left = uninterrupted(folder, tmp_path), Rows.write, [4]

    def write_until_full(self, position, row):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(ENOSPC, "No space left on device")
        original(self, position, row)

    monkeypatch.setattr(Rows, "write", write_until_full)
    with pytest.raises(OSError, match="No space left"):
        pack(folder, cache=tmp_path / "cache")
    monkeypatch.undo()
    result = pack(folder, cache=tmp_path / "cache")
    assert "4 of 14 images lay packed already" in result.notes[-1] or "5 of 14" in result.notes[-1]
    assert contents(result.path) == expected


def killed(source, cache, event):
    """Pack in another process that is killed at its event number `event`; whether it came so far."""

    def child():
        left = event

        def count(name, arguments):
            nonlocal left
            left -= name.startswith(("open", "os.", "shutil.", "bytepixels."))
            if left < 0 and name != "os.kill":
                os.kill(os.getpid(), signal.SIGKILL)

        original = Rows.write
        Rows.write = lambda *arguments: sys.audit("bytepixels.write") or original(*arguments)
        sys.addaudithook(count)
        pack(source, cache=cache)
        os._exit(0)

    process = FORK.Process(target=child)
    process.start()
    process.join()
    return process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("source", ["folder"], indirect=True)
def test_killed_at_any_file_operation(tmp_path, source):
    """Every open, rename, removal and written row in turn is the last thing that a process does."""
    expected, event = uninterrupted(source, tmp_path), 0
    while killed(source, tmp_path / f"cache{event}", event):
        cache = tmp_path / f"cache{event}"
        whole = list((cache / "packs").glob("[!.]*"))
        assert [contents(path) for path in whole] in ([], [expected])
        assert contents(pack(source, cache=cache).path) == expected, event
        assert drafts(cache) == [] or whole
        event += 1
    assert event > 100


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        ("whole/images.npy", lambda path: flip(path, 128 + 3 * 6 * 6 * 2)),  # a row that is done
        ("whole/images.npy", lambda path: os.truncate(path, 300)),
        ("whole/images.npy", lambda path: flip(path, 3)),
        ("whole/images.npy", os.unlink),
        ("rows", lambda path: flip(path, 8 * 2 + 5)),  # the checksum of that row
        ("rows", lambda path: flip(path, 8 * 4)),  # a row counts as done that is not
        ("rows", lambda path: os.truncate(path, 20)),
        ("rows", os.unlink),
        ("headers", os.unlink),
        ("headers", lambda path: os.truncate(path, 20)),
        ("skipped", os.unlink),
        ("skipped", lambda path: os.truncate(path, 12)),
        ("skipped", lambda path: path.write_bytes(path.read_bytes() + b'\n[3, "anoth')),
        ("skipped", lambda path: path.write_bytes(path.read_bytes().replace(b"Pillow", b"Yellow"))),
        ("whole/meta.json", lambda path: path.write_text("{")),
        ("whole/labels.npy", lambda path: path.write_bytes(b"half")),
    ],
)
def test_what_a_power_cut_may_leave_is_found(tmp_path, folder, name, harm):
    expected, cache = uninterrupted(folder, tmp_path), tmp_path / "cache"
    interrupted(folder, cache, after=6)
    harm(drafts(cache)[0] / name)
    assert contents(pack(folder, cache=cache).path) == expected


@pytest.mark.parametrize("some_skipped", [False, True])
def test_a_pack_is_on_the_disk_before_it_is_in_its_place(tmp_path, folder, synced, monkeypatch, some_skipped):
    if not some_skipped:
        (folder / "cat/2b.png").unlink()
        (folder / "dog/0b.png").unlink()
    before, rename = [], os.rename
    monkeypatch.setattr(os, "rename", lambda *paths: before.append(list(synced)) or rename(*paths))
    pack(folder, cache=tmp_path / "cache")
    images = "shorter.npy" if some_skipped else "whole/images.npy"
    assert len(before[-1]) == 3
    assert before[-1][0].endswith(images)  # then labels.npy and meta.json, under the names that they have until then
    assert all(path.endswith(".part") for path in before[-1][1:])


def test_a_changed_source_or_decoder_begins_anew(tmp_path, folder, decoded, monkeypatch):
    cache = tmp_path / "cache"
    interrupted(folder, cache)
    decoded.clear()
    with monkeypatch.context() as patch:
        patch.setattr(module, "_MAKER", "another")
        pack(folder, cache=cache)
        assert len(decoded) == 13
    os.utime(folder / "cat/0.png", (1, 1))
    decoded.clear()
    assert pack(folder, cache=cache).notes[-1].startswith("Skipped 2 of 14 files")
    assert len(decoded) == 13


def after_the_headers(monkeypatch, change):
    """Do something, once, when the headers have been read and the pixels have not."""
    original, changes = making.find_layout, [change]

    def then_change(*arguments):
        layout = original(*arguments)
        if changes:
            changes.pop()()
        return layout

    monkeypatch.setattr(making, "find_layout", then_change)


def test_a_picture_that_vanishes_meanwhile_is_named(tmp_path, folder, monkeypatch):
    after_the_headers(monkeypatch, (folder / "dog/5.png").unlink)
    result = pack(folder, cache=tmp_path / "cache")
    assert "dog/5.png" in [name for name, _ in result.meta["skipped"]]
    assert len(result) == 11


def test_a_tar_that_shrinks_meanwhile_is_refused(tmp_path, folder, monkeypatch):
    path, shorter = as_tar(folder, tmp_path / "in.tar"), as_tar(folder / "cat", tmp_path / "cat.tar")
    after_the_headers(monkeypatch, lambda: os.replace(shorter, path))
    with pytest.raises(OSError, match="went missing while they were packed"):
        pack(path, cache=tmp_path / "cache")


def test_a_draft_that_another_process_has_just_finished_is_not_touched(tmp_path, folder, monkeypatch):
    expected, cache = uninterrupted(folder, tmp_path), tmp_path / "cache"

    def interrupt(draft):
        raise KeyboardInterrupt

    def finish_without_publishing():
        with monkeypatch.context() as patch:
            patch.setattr(module.Draft, "publish", interrupt)
            with pytest.raises(KeyboardInterrupt):
                pack(folder, cache=cache)

    after_the_headers(monkeypatch, finish_without_publishing)
    assert contents(pack(folder, cache=cache).path) == expected


# several processes


def overtaken(monkeypatch, act):
    """What another process does to a compressed tar, once, while this one waits for it."""
    acts = [act]

    def claim_late(path):
        if acts and path.name == "alone.lock":
            acts.pop()()
            return None
        return claim(path)

    monkeypatch.setattr(module, "claim", claim_late)


def joined(processes):
    """Wait until all have ended well; none is left."""
    try:
        for process in processes:
            process.join(600)
        assert [process.exitcode for process in processes] == [0] * len(processes)
    finally:
        for process in processes:
            process.kill()


def packing(results, source, cache, progress=None, barrier=None):
    """Start a process that packs and puts (decoded images, contents of the pack) into `results`. It waits at the
    barrier when it has its first image in hand."""

    def child():
        seen, original = [], making.to_pixels

        def to_pixels(*arguments):
            if barrier and not seen:
                barrier.wait(600)
            seen.append(1)
            return original(*arguments)

        making.to_pixels = to_pixels
        path = pack(source, cache=cache, progress=progress).path
        results.put((len(seen), contents(path)))

    process = FORK.Process(target=child)
    process.start()
    return process


@pytest.mark.parametrize("source", ["folder", "zip"], indirect=True)
def test_processes_share_the_work(tmp_path, source, monkeypatch):
    expected = uninterrupted(source, tmp_path)
    monkeypatch.setattr(pictures, "PART", 1)
    monkeypatch.setattr(parallel, "CHUNK", 1)
    monkeypatch.setattr(
        os, "sched_getaffinity", lambda pid: {0}, raising=False
    )  # little under way: none takes all the parts at once
    barrier, results = FORK.Barrier(3), FORK.SimpleQueue()
    joined([packing(results, source, tmp_path / "cache", barrier=barrier) for _ in range(3)])
    counts, made = zip(*(results.get() for _ in range(3)), strict=True)
    assert all(one == expected for one in made)
    assert sum(counts) == 13
    assert min(counts) > 0
    assert drafts(tmp_path / "cache") == []


def test_what_a_killed_process_was_at_is_done_by_another(tmp_path, folder):
    expected, results = uninterrupted(folder, tmp_path), FORK.SimpleQueue()
    reached = FORK.Event()

    def hang(done, total):
        if done == 5:
            reached.set()
            time.sleep(600)

    hanging = packing(results, folder, tmp_path / "cache", hang)
    assert reached.wait(600)
    waiting = packing(results, folder, tmp_path / "cache")
    waiting.join(1)
    assert waiting.is_alive()  # the part is taken
    hanging.kill()
    waiting.join(600)
    count, made = results.get()
    assert made == expected
    assert count in (8, 9)  # what the killed one had done is not done again


def test_a_compressed_tar_is_unpacked_by_one_process_while_others_wait(tmp_path, folder, monkeypatch):
    path = as_tar(folder, tmp_path / "in.tar.gz")
    expected, unpacked, read_tar = uninterrupted(path, tmp_path), tmp_path / "unpacked", tars.read_tar

    def noted(*arguments):
        with unpacked.open("a") as file:
            file.write("once\n")
        return read_tar(*arguments)

    monkeypatch.setattr(archives, "read_tar", noted)
    results, seen, reached = FORK.SimpleQueue(), FORK.Event(), FORK.Event()

    def until_seen(done, total):
        if done == 5:
            reached.set()
            assert seen.wait(600)  # by one of those who wait

    def look(done, total):
        if (done, total) == (5, 14):
            seen.set()

    first = packing(results, path, tmp_path / "cache", until_seen)
    assert reached.wait(600)
    joined([first, *(packing(results, path, tmp_path / "cache", look) for _ in range(2))])
    found = [results.get() for _ in range(3)]
    assert sorted(count for count, _ in found) == [0, 0, 13]
    assert all(made == expected for _, made in found)
    assert unpacked.read_text() == "once\n"


def test_a_compressed_tar_whose_process_was_killed_is_gone_on_with_by_another(tmp_path, folder):
    path, reached = as_tar(folder, tmp_path / "in.tar.gz"), FORK.Event()
    expected, results = uninterrupted(path, tmp_path), FORK.SimpleQueue()

    def hang(done, total):
        if done == 5:
            reached.set()
            time.sleep(600)

    hanging = packing(results, path, tmp_path / "cache", hang)
    assert reached.wait(600)
    waiting = packing(results, path, tmp_path / "cache")
    waiting.join(1)
    assert waiting.is_alive()
    hanging.kill()
    waiting.join(600)
    count, made = results.get()
    assert made == expected
    assert count in (8, 9)


def test_where_a_compressed_tar_has_no_picture_all_who_wait_say_so(tmp_path, monkeypatch):
    path, cache = tar_of(tmp_path / "in.tar.gz", {f"{k}.png": b"none" for k in range(4)}), tmp_path / "cache"

    def refused():
        with pytest.raises(InputError, match=f"^{path} holds no readable image: 0.png "):
            pack(path, size=(6, 6), channels=3, cache=cache)

    overtaken(monkeypatch, refused)
    refused()
    assert drafts(cache) == []


def test_a_compressed_tar_that_a_strict_process_refused_is_packed_by_one_that_is_not(tmp_path, folder, monkeypatch):
    path, cache = as_tar(folder, tmp_path / "in.tar.gz"), tmp_path / "cache"
    expected = uninterrupted(path, tmp_path)
    interrupted(path, cache)

    def refuse():
        with pytest.raises(InputError, match="without strict it would be skipped"):
            pack(path, cache=cache, strict=True)
        assert drafts(cache) == []

    overtaken(monkeypatch, refuse)
    result = pack(path, cache=cache)
    assert contents(result.path) == expected
    assert result.notes[-1].startswith("Skipped 2 of 14 files")  # nothing that lay there is left
    assert drafts(cache) == []


def test_what_was_packed_while_a_process_waited_did_not_lie_there_before(tmp_path, folder, decoded, monkeypatch):
    path, cache = as_tar(folder, tmp_path / "in.tar.gz"), tmp_path / "cache"
    overtaken(monkeypatch, lambda: interrupted(path, cache) or decoded.clear())
    assert pack(path, cache=cache).notes[-1].startswith("Skipped 2 of 14 files")
    assert len(decoded) in (8, 9)  # it went on from there


# what is left behind


def test_drafts_that_nobody_takes_up(tmp_path, folder):
    packs = tmp_path / "cache/packs"
    old, young, busy = (packs / f".packing-{name}" for name in ("old", "young", "busy"))
    for path in (old, young, busy):
        path.mkdir(parents=True)
        (path / "images.npy").write_bytes(b"half")
    (old / "part-0.lock").touch()
    lock = claim(busy / "part-0.lock")
    for path in (old, busy):
        os.utime(path, (time.time() - 30 * 86400,) * 2)
    pack(folder, cache=tmp_path / "cache")
    assert drafts(tmp_path / "cache") == [busy, young]
    lock.release()


def test_what_is_refused_leaves_nothing(tmp_path, folder):
    with pytest.raises(InputError, match=r"cat/2b.png cannot be read"):
        pack(folder, cache=tmp_path / "cache", strict=True)
    for path in folder.rglob("*.png"):
        path.write_text("no image")
    with pytest.raises(InputError, match="no readable image"):
        pack(folder, cache=tmp_path / "cache")
    assert list((tmp_path / "cache/packs").iterdir()) == []


def test_what_is_begun_while_a_draft_is_removed_stays(tmp_path, folder, monkeypatch):
    cache, rmtree = tmp_path / "cache", shutil.rmtree
    interrupted(folder, cache)
    (place,) = drafts(cache)

    def late(*arguments, **options):
        place.mkdir(exist_ok=True)  # by another process
        rmtree(*arguments, **options)

    monkeypatch.setattr(shutil, "rmtree", late)
    with pytest.raises(InputError, match=r"0b.png cannot be read"):
        pack(folder, cache=cache, strict=True)
    assert drafts(cache) == [place]


def test_a_lock_whose_folder_is_removed_under_it_is_not_had(tmp_path, monkeypatch):
    def removed(self, **options):
        raise FileNotFoundError

    monkeypatch.setattr(FileLock, "acquire", removed)
    assert claim(tmp_path / "alone.lock") is None


def test_a_refusal_leaves_what_another_process_is_at(tmp_path, folder):
    cache = tmp_path / "cache"
    interrupted(folder, cache)
    lock = claim(drafts(cache)[0] / "part-7.lock")
    with pytest.raises(InputError, match=r"0b.png cannot be read"):
        pack(folder, cache=cache, strict=True)
    assert len(drafts(cache)) == 1
    lock.release()
    assert "lay packed already" in pack(folder, cache=cache).notes[-1]
