"""--label and --prompt: each class by its name, whatever the name looks like, and a text as it was typed."""

from unicodedata import normalize

import pytest

from bytepixels.cli.parsing import Line
from bytepixels.errors import InputError
from bytepixels.requests.edit import Vary
from bytepixels.requests.sample import Sample
from bytepixels.runs.labels import find_class, find_label

ODD = ["None", "-1", "+1", "True", "a=b", "{x}", "null", "--gif", "", " ", "caf\u00e9", "\U0001f600", "1.5"]


def parsed(kind, *line):
    return Line("sample", kind, list(line)).request()


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("flag", ["--label", "--prompt"])
def test_a_text_is_what_was_typed(name, flag):
    for kind, line in ((Sample, ["RUN"]), (Vary, ["RUN", "IMAGE"])):
        assert getattr(parsed(kind, *line, f"{flag}={name}"), flag[2:]) == name
        assert getattr(parsed(kind, *line), flag[2:]) is None


@pytest.mark.parametrize("name", ["None", "-1", "+1", "True", "a=b", "{x}"])
def test_a_class_is_found_by_its_name_in_two_words_too(name):
    assert find_label("--label", parsed(Sample, "RUN", "--label", name).label, ODD) == ODD.index(name)


@pytest.mark.parametrize(
    ("classes", "label", "found"),
    [
        (["001", "002", "003"], "002", 1),
        (["1", "2", "3"], "1", 0),
        (["10", "9", "8"], "8", 2),
        (["-1", "+1"], "+1", 1),
        (["cat", "dog", "emu"], "2", 2),
        (["cat", "dog", "emu"], "0", 0),
        (["cat", "dog", "2 emus"], "2", 2),
        ([normalize("NFD", "caf\u00e9"), "th\u00e9"], "caf\u00e9", 0),
        (["caf\u00e9", "th\u00e9"], normalize("NFD", "th\u00e9"), 1),
        ([normalize("NFD", "caf\u00e9"), "caf\u00e9"], "caf\u00e9", 1),
    ],
)
def test_which_class_a_label_means(classes, label, found):
    assert find_label("--label", label, classes) == found


@pytest.mark.parametrize(
    ("classes", "label", "sentence"),
    [
        (["001", "002", "003"], "1", "--label 1: no class has this name; did you mean '001'?"),
        (["001", "002", "003"], "0", "--label must be one of 001, 002, 003; got '0'"),
        (["1", "2", "3"], "0", "--label must be one of 1, 2, 3; got '0'"),
        (["cat", "1"], "0", "--label must be one of cat, 1; got '0'"),
        (["cat", "dog"], "2", "--label must be one of cat, dog; got '2'"),
        (["cat", "dog"], "-1", "--label must be one of cat, dog; got '-1'"),
        (["cat", "dog"], "None", "--label must be one of cat, dog; got 'None'"),
        (["cat", "dog"], "cot", "did you mean 'cat'?"),
        ([f"bird {k}" for k in range(200)], "bird199", "bird 39 and 160 more; got 'bird199'; did you mean 'bird 199'?"),
    ],
)
def test_a_label_that_no_class_has(classes, label, sentence):
    with pytest.raises(InputError) as error:
        find_label("--label", label, classes)
    assert sentence in str(error.value)


def test_held_out_classes_are_matched_by_name_alone():
    """A class called 0 there is not the first class here."""
    assert find_class("a class", normalize("NFD", "caf\u00e9"), ["th\u00e9", "caf\u00e9"]) == 1
    with pytest.raises(InputError):
        find_class("a class", "0", ["th\u00e9", "caf\u00e9"])
