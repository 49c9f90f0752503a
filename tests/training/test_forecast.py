"""How long a training takes is one sentence, the same from train and the doctor."""

import pytest
import torch

from bytepixels.training.autotune.precision import _compared
from bytepixels.training.forecast import forecast, in_words

CPU = torch.device("cpu")


def test_the_sentence(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    said = "About 2 h 50 min for 400,000 images at 39 images/s on 2 CPU threads; --budget 20m for a first look"
    assert forecast(400_000, 39.0, CPU) == said
    assert forecast(640, 64.0, torch.device("cuda")) == "About 10 s for 640 images at 64 images/s on cuda"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "1 s"), (89, "89 s"), (90, "2 min"), (3599, "1 h"), (7300, "2 h"), (400_000, "4.6 days")],
)
def test_times_in_words(seconds, said):
    assert in_words(seconds) == said


@pytest.mark.parametrize(
    ("gain", "said"),
    [
        (14.0, "bf16 is 14.0 times as fast as float32"),
        (0.07, "bf16 is 14 times slower"),
        (1.0, "bf16 is about as fast"),
        (0.0, "bf16 is more than 100 times slower"),
    ],
)
def test_bf16_in_words(gain, said):
    assert _compared(gain) == said
