"""Captions encoded once: the cache, and the rows that a training step reads."""

import numpy as np
import pytest
import torch

from bytepixels.text import TextRows, store_captions
from bytepixels.text import caption_cache as captions

CAPTIONS = ["ab", "", "c", "ab", "defgh"]


class Letters:
    """Vectors that say which letter stands where."""

    name, hash, dim, length = "letters", "0", 3, 8

    def __init__(self):
        self.asked = []

    def __call__(self, texts):
        self.asked += texts
        longest = max(map(len, texts))
        mask = torch.tensor([[k < len(text) for k in range(longest)] for text in texts])
        vectors = [[expected(text[k], k) if k < len(text) else [9.0] * 3 for k in range(longest)] for text in texts]
        return torch.tensor(vectors, dtype=torch.float32), mask


def expected(letter, place):
    return [float(ord(letter)), float(place), 1.0]


def check(rows, texts, index):
    vectors, mask = rows(np.array(index))
    for vector, known, k in zip(vectors, mask, index, strict=True):
        assert known.sum() == len(texts[k])
        assert vector[known].tolist() == [expected(letter, place) for place, letter in enumerate(texts[k])]
        assert (vector[~known] == 0).all()


def test_rows_have_the_tokens_of_their_captions(tmp_path):
    encoder = Letters()
    encoded = store_captions(CAPTIONS, encoder, tmp_path)
    assert len(encoded) == 5
    assert sorted(encoder.asked) == ["ab", "c", "defgh"]  # equal captions once, none for ""
    rows = TextRows(encoded)
    check(rows, CAPTIONS, [4, 0, 1, 3, 2, 0])
    check(rows, CAPTIONS, [1])
    assert rows(np.array([1]))[0].shape == (1, 5, 3)  # whatever the batch, so that nothing is compiled anew


def test_they_are_encoded_once(tmp_path):
    store_captions(CAPTIONS, Letters(), tmp_path)
    again = Letters()
    check(TextRows(store_captions(CAPTIONS, again, tmp_path)), CAPTIONS, [0, 4])
    assert again.asked == []
    other = Letters()
    store_captions([*CAPTIONS[:4], "x"], other, tmp_path)
    assert "x" in other.asked
    other.hash, other.asked = "1", []
    store_captions(CAPTIONS, other, tmp_path)
    assert len(other.asked) == 3


@pytest.mark.parametrize("damage", ["tokens", "spans.npy"])
def test_damaged_ones_are_encoded_again(tmp_path, damage):
    store_captions(CAPTIONS, Letters(), tmp_path)
    (file,) = tmp_path.glob(f"texts/*/{damage}")
    file.write_bytes(file.read_bytes()[:-4])
    check(TextRows(store_captions(CAPTIONS, Letters(), tmp_path)), CAPTIONS, range(5))


def test_an_interruption_leaves_nothing_half_done(tmp_path):
    class Broken(Letters):
        def __call__(self, texts):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store_captions(CAPTIONS, Broken(), tmp_path)
    assert list((tmp_path / "texts").glob("[!.]*")) == []
    check(TextRows(store_captions(CAPTIONS, Letters(), tmp_path)), CAPTIONS, range(5))
    assert len(list((tmp_path / "texts").iterdir())) == 1


def test_many_captions_and_tokens_that_do_not_fit_in_memory(tmp_path, monkeypatch):
    texts = [f"{k:04}"[: k % 5] for k in range(700)]
    seen = []
    encoded = store_captions(texts, Letters(), tmp_path, lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] == len({*texts} - {""})
    monkeypatch.setattr(captions, "free_memory", lambda device: 0)
    rows = TextRows(encoded)
    assert rows.resident is None
    check(rows, texts, [699, 3, 0, 256, 257])
