"""A pack in the making: taken up where it was interrupted, made by one process while others wait, never half."""

import os
import signal
import sys
import time
from errno import ENOSPC

import pytest
from filelock import FileLock, Timeout

from bytepixels.data import make_pack as making
from bytepixels.data import pack, parallel
from bytepixels.data import pack_writer as module
from bytepixels.data.rows import NpyRows
from bytepixels.errors import InputError
from tests.data.fixtures import FORK, as_tar, as_zip, write_all

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
    before_this = steps[0][0]
    assert before_this in (4, 5)  # one of the five was perhaps no image: it is looked at once more
    assert steps == [(done, 14) for done in range(before_this, 15)]
    assert len(decoded) - before == 12 - before_this + 1  # and one that is cut short is decoded in vain
    assert contents(result.path) == expected
    assert drafts(cache) == []
    assert result.notes[-1] == f"{before_this} of 14 images lay packed already: it went on from there."
    assert result.notes[-1] not in pack(source, cache=cache).notes


def test_a_full_disk_loses_nothing(tmp_path, folder, monkeypatch):
    expected, original, left = uninterrupted(folder, tmp_path), NpyRows.write, [4]

    def write_until_full(self, position, row):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(ENOSPC, "No space left on device")
        original(self, position, row)

    monkeypatch.setattr(NpyRows, "write", write_until_full)
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

        original = NpyRows.write
        NpyRows.write = lambda *arguments: sys.audit("bytepixels.write") or original(*arguments)
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
        ("finished/images.npy", lambda path: os.truncate(path, 300)),
        ("finished/images.npy", lambda path: flip(path, 3)),
        ("finished/images.npy", os.unlink),
        ("done", lambda path: os.truncate(path, 6)),
        ("done", os.unlink),
        ("layout.json", os.unlink),
        ("layout.json", lambda path: os.truncate(path, 6)),
        ("finished/meta.json", lambda path: path.write_text("{")),
        ("finished/labels.npy", lambda path: path.write_bytes(b"half")),
    ],
)
def test_what_a_power_cut_may_leave_is_found(tmp_path, folder, name, harm):
    expected, cache = uninterrupted(folder, tmp_path), tmp_path / "cache"
    interrupted(folder, cache, after=6)
    harm(drafts(cache)[0] / name)
    assert contents(pack(folder, cache=cache).path) == expected


def test_rows_are_on_the_disk_before_they_count_as_done(tmp_path, folder, synced, monkeypatch):
    monkeypatch.setattr(module, "SAVE_SECONDS", 0)
    counts, fsync = [], os.fsync

    def looked_at(file):
        (draft,) = drafts(tmp_path / "cache")
        if os.readlink(f"/proc/self/fd/{file}").endswith("finished/images.npy"):
            counts.append(int((module._read_flags(draft) > 0).sum()))
        fsync(file)

    monkeypatch.setattr(os, "fsync", looked_at)
    pack(folder, cache=tmp_path / "cache")
    assert counts == [*range(13)]  # before each of the twelve is noted, and when all are


@pytest.mark.parametrize("some_skipped", [False, True])
def test_a_pack_is_on_the_disk_before_it_is_in_its_place(tmp_path, folder, synced, monkeypatch, some_skipped):
    if not some_skipped:
        (folder / "cat/2b.png").unlink()
        (folder / "dog/0b.png").unlink()
    before, rename = [], os.rename
    monkeypatch.setattr(os, "rename", lambda *paths: before.append(list(synced)) or rename(*paths))
    pack(folder, size=(6, 6), channels=3, cache=tmp_path / "cache")
    names = ["images.npy", *["shorter.npy"] * some_skipped, "labels.npy", "meta.json"]
    assert [path.rsplit("/", 1)[-1] for path in before[-1]] == names


@pytest.mark.parametrize("source", TYPES, indirect=True)
def test_the_number_of_threads_changes_no_byte(tmp_path, source, monkeypatch):
    monkeypatch.setattr(parallel, "CHUNK", 1)
    made = []
    for threads in (1, 2, 8):
        monkeypatch.setattr(parallel, "usable_cpus", lambda threads=threads: threads)
        made.append(contents(pack(source, cache=tmp_path / str(threads)).path))
    assert made[0] == made[1] == made[2]


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


def test_an_image_that_vanishes_meanwhile_is_named(tmp_path, folder, monkeypatch):
    after_the_headers(monkeypatch, (folder / "dog/5.png").unlink)
    result = pack(folder, cache=tmp_path / "cache")
    assert "dog/5.png" in [name for name, _ in result.meta["skipped"]]
    assert len(result) == 11


def test_a_tar_that_shrinks_meanwhile_is_refused(tmp_path, folder, monkeypatch):
    path, shorter = as_tar(folder, tmp_path / "in.tar"), as_tar(folder / "cat", tmp_path / "cat.tar")
    after_the_headers(monkeypatch, lambda: os.replace(shorter, path))
    with pytest.raises(OSError, match="went missing while they were packed"):
        pack(path, cache=tmp_path / "cache")


def test_what_was_finished_and_not_moved_to_its_place_is_not_made_again(tmp_path, folder, decoded, monkeypatch):
    expected, cache = uninterrupted(folder, tmp_path), tmp_path / "cache"

    def interrupt(*paths):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", interrupt)
        with pytest.raises(KeyboardInterrupt):
            pack(folder, cache=cache)
    decoded.clear()
    assert contents(pack(folder, cache=cache).path) == expected
    assert decoded == []


# several processes


def overtaken(monkeypatch, act):
    """What another process does, once, while this one waits for it."""
    acts, acquire = [act], FileLock.acquire

    def late(self, *arguments, **options):
        if acts:
            acts.pop()()
            raise Timeout(self.lock_file)
        return acquire(self, *arguments, **options)

    monkeypatch.setattr(FileLock, "acquire", late)


def joined(processes):
    """Wait until all have ended well; none is left."""
    try:
        for process in processes:
            process.join(600)
        assert [process.exitcode for process in processes] == [0] * len(processes)
    finally:
        for process in processes:
            process.kill()


def packing(results, source, cache, progress=None):
    """Start a process that packs and puts (decoded images, contents of the pack) into `results`."""

    def child():
        seen, original = [], making.to_pixels
        making.to_pixels = lambda *arguments: seen.append(1) or original(*arguments)
        path = pack(source, cache=cache, progress=progress).path
        results.put((len(seen), contents(path)))

    process = FORK.Process(target=child)
    process.start()
    return process


def test_one_process_packs_while_others_wait_and_see_how_far_it_is(tmp_path, source, monkeypatch):
    monkeypatch.setattr(module, "SAVE_SECONDS", 0)
    expected, results, seen, reached = uninterrupted(source, tmp_path), FORK.SimpleQueue(), FORK.Event(), FORK.Event()

    def until_seen(done, total):
        if done == 5:
            reached.set()
            assert seen.wait(600)  # by one of those who wait

    def look(done, total):
        if done in (4, 5) and total == 14:
            seen.set()

    first = packing(results, source, tmp_path / "cache", until_seen)
    assert reached.wait(600)
    joined([first, *(packing(results, source, tmp_path / "cache", look) for _ in range(2))])
    found = [results.get() for _ in range(3)]
    assert sorted(count for count, _ in found) == [0, 0, 13]
    assert all(made == expected for _, made in found)
    assert drafts(tmp_path / "cache") == []


def test_where_a_process_was_killed_another_that_waits_goes_on(tmp_path, source, monkeypatch):
    monkeypatch.setattr(module, "SAVE_SECONDS", 0)
    expected, results, reached = uninterrupted(source, tmp_path), FORK.SimpleQueue(), FORK.Event()

    def hang(done, total):
        if done == 5:
            reached.set()
            time.sleep(600)

    hanging = packing(results, source, tmp_path / "cache", hang)
    assert reached.wait(600)
    waiting = packing(results, source, tmp_path / "cache")
    waiting.join(1)
    assert waiting.is_alive()
    hanging.kill()
    joined([waiting])
    count, made = results.get()
    assert made == expected
    assert count in (8, 9)  # what the killed one had done is not done again


def test_a_budget_ends_waiting_too(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(module, "SAVE_SECONDS", 0)
    reached, cache = FORK.Event(), tmp_path / "cache"

    def hang(done, total):
        if done == 5:
            reached.set()
            time.sleep(600)

    def over(done, total):
        assert 0 < done < total
        raise InputError("the budget is over")

    hanging = packing(FORK.SimpleQueue(), folder, cache, hang)
    assert reached.wait(600)
    with pytest.raises(InputError, match="the budget is over"):
        pack(folder, cache=cache, progress=over)
    hanging.kill()
    hanging.join(600)


def test_where_no_image_can_be_read_all_who_wait_say_so(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    for number in range(4):
        (tmp_path / f"in/{number}.png").write_text("none")

    def refused():
        with pytest.raises(InputError, match=r"holds no readable image: 0\.png "):
            pack(tmp_path / "in", size=(6, 6), channels=3, cache=tmp_path / "cache")

    overtaken(monkeypatch, refused)
    refused()
    assert drafts(tmp_path / "cache") == []


def test_what_a_strict_process_refused_is_packed_by_one_that_is_not(tmp_path, folder, monkeypatch):
    expected, cache = uninterrupted(folder, tmp_path), tmp_path / "cache"
    interrupted(folder, cache)

    def refuse():
        with pytest.raises(InputError, match="without strict it would be skipped"):
            pack(folder, cache=cache, strict=True)
        assert drafts(cache) == []

    overtaken(monkeypatch, refuse)
    result = pack(folder, cache=cache)
    assert contents(result.path) == expected
    assert result.notes[-1].startswith("Skipped 2 of 14 files")  # nothing that lay there is left


# what is left behind


def test_pack_writers_that_nobody_takes_up(tmp_path, folder):
    packs = tmp_path / "cache/packs"
    old, young, busy = (packs / f".packing-{name}" for name in ("old", "young", "busy"))
    for path in (old, young, busy):
        path.mkdir(parents=True)
        (path / "done").write_bytes(b"half")
    for path in (old / "done", old, busy):
        os.utime(path, (time.time() - 30 * 86400,) * 2)
    pack(folder, cache=tmp_path / "cache")
    assert drafts(tmp_path / "cache") == [busy, young]


def test_what_is_refused_leaves_nothing(tmp_path, folder):
    with pytest.raises(InputError, match=r"cat/2b.png cannot be read"):
        pack(folder, cache=tmp_path / "cache", strict=True)
    for path in folder.rglob("*.png"):
        path.write_text("no image")
    with pytest.raises(InputError, match="no readable image"):
        pack(folder, cache=tmp_path / "cache")
    assert list((tmp_path / "cache/packs").iterdir()) == []
