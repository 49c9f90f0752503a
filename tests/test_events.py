"""Events: who hears them, and that nobody has to."""

from contextlib import suppress
from threading import Thread

from bytepixels import events
from bytepixels.events import Began, Ended, Note, Progress, Work, listening


def work(name):
    with Work(name, 2, "images") as one:
        one.update(1, "half of it")
        events.note(f"{name} goes on")
        one.update(2)
    events.say(f"{name} is done")


def test_work_says_how_far_it_is_and_when_it_ends():
    seen = []
    with listening(seen.append):
        work("a")
    assert [type(one) for one in seen] == [Began, Progress, Note, Progress, Ended, Note]
    assert (seen[1].what, seen[1].unit, seen[1].done, seen[1].total) == ("a", "images", 1, 2)
    assert seen[1].note == "half of it"
    assert seen[2] == Note("a goes on", aside=True)
    assert seen[-1] == Note("a is done")


def test_without_a_listener_nothing_is_shown(capsys):
    work("a")
    assert capsys.readouterr() == ("", "")


def test_each_thread_has_its_own_listener():
    heard = {"a": [], "b": []}

    def run(name):
        with listening(heard[name].append):
            for _ in range(50):
                work(name)

    threads = [Thread(target=run, args=(name,)) for name in heard]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, seen in heard.items():
        assert len(seen) == 300
        assert {one.text.split()[0] for one in seen if isinstance(one, Note)} == {name}


def test_the_listener_before_is_back_afterwards():
    outer, inner = [], []
    with listening(outer.append):
        with suppress(ValueError), listening(inner.append):
            events.say("in")
            raise ValueError
        events.say("out")
    assert (outer, inner) == ([Note("out")], [Note("in")])


def test_an_interruption_takes_along_what_is_kept():
    interrupted = KeyboardInterrupt()
    with suppress(KeyboardInterrupt), Work("sample", 9) as one:
        one.kept = "3 images kept"
        raise interrupted
    assert interrupted.__notes__ == ["3 images kept"]
