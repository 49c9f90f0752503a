"""CIFAR-10's pickles: what a crafted one could do with numpy's own classes is refused; what real ones hold is read."""

import io
import pickle

import numpy as np
import pytest

from bytepixels.data.sources.official_files import _ArrayUnpickler, _numbers

KINDS = ("u1", "i1", "<i2", "<i4", "<i8", ">i2", ">i4", ">i8")


def load(content):
    return _ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_arrays_of_whole_numbers_read_as_they_are(kind, protocol):
    array = np.arange(24).astype(kind).reshape(2, 3, 4)
    for one in (array, np.asfortranarray(array[0])):
        read = _numbers(load(pickle.dumps({"data": one}, protocol=protocol))["data"], np.int64)
        np.testing.assert_array_equal(read, one)


class Kind:
    """Pickles as a numpy dtype with whatever is said of its inside."""

    def __init__(self, name, inside):
        self.made = (np.dtype, (name, False, True), inside)

    def __reduce__(self):
        return self.made


class Array:
    """Pickles as a numpy array with whatever state."""

    def __init__(self, state):
        self.state = state

    def __reduce__(self):
        return np._core.multiarray._reconstruct, (np.ndarray, (0,), b"b"), self.state


HOSTILE = {  # numpy's own unpickling crashes on both
    "memory beyond the array": (Kind("V1", (3, "|", None, ("a",), {"a": (np.dtype("O"), 10**5)}, 1, 1, 0)), b"abcd"),
    "numbers as addresses": (Kind("O8", (3, "|", None, None, None, -1, -1, 0)), b"abcdefgh" * 4),
}


@pytest.mark.parametrize(("kind", "raw"), HOSTILE.values(), ids=HOSTILE)
def test_an_array_that_would_reach_into_memory_is_refused(kind, raw):
    content = pickle.dumps({"data": Array((1, (4,), kind, False, raw)), "labels": [1]}, protocol=2)
    with pytest.raises(pickle.UnpicklingError, match="it asks for an array of"):
        load(content)


BYTES = np.dtype("u1")
STATES = {
    "nothing": (),
    "too little": (1,),
    "no kind": (1, (2,), None, False, b"ab"),
    "fewer bytes than the shape": (1, (3,), BYTES, False, b"ab"),
    "an endless shape": (1, (2**40, 2**40), BYTES, False, b"ab"),
    "no bytes": (1, (2,), BYTES, False, [1, 2]),
    "a text": "text",
}


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_a_state_that_is_no_arrays(state):
    with pytest.raises((ValueError, TypeError, AttributeError)):
        load(pickle.dumps(Array(state), protocol=2))
