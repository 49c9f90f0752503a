"""Draws are functions of their keys, and are normal."""

from itertools import product

import pytest
import torch
from scipy.stats import kstest

from bytepixels import SeededNoise
from bytepixels.randomness import DROPOUT, FLIP, INIT, LABELS, LATENT, NOISE, ORDER, TIMES, derived_seed, seeded


def test_seeds_differ_in_every_component():
    keys = [*product(range(4), repeat=3), (0, 0, 10**6), (10**6, 0, 0), (2**31, 0, 1)]
    assert len({derived_seed(*key) for key in keys}) == len(keys)


@pytest.mark.parametrize(
    ("one", "other"),
    [((1,), (1, 0)), ((1, 2), (1, 2, 0)), ((2**32, 3), (0, 1, 3)), ((5, 2, 3), (5, 2 + 3 * 2**32))],
)
def test_seeds_of_keys_of_different_length_differ(one, other):
    assert derived_seed(*one) != derived_seed(*other)


def test_a_seed_is_a_stable_function_of_its_key():
    assert derived_seed(1, 2, 3) == derived_seed(1, 2, 3)
    assert 0 <= derived_seed(1, 2, 3) < 2**64
    assert torch.equal(torch.randn(5, generator=seeded(1, 2)), torch.randn(5, generator=seeded(1, 2)))
    assert not torch.equal(torch.randn(5, generator=seeded(1, 2)), torch.randn(5, generator=seeded(2, 1)))


def test_purposes_have_streams_of_their_own():
    assert len({ORDER, FLIP, TIMES, NOISE, LABELS, DROPOUT, INIT, LATENT}) == 8


def test_image_k_depends_on_seed_k_alone():
    shape = (3, 5, 4)
    together, alone = SeededNoise([7, 8, 9]), SeededNoise([8])
    for _ in range(3):  # and on the number of the call
        assert torch.equal(together(torch.empty(3, *shape))[1], alone(torch.empty(1, *shape))[0])
    first, second = SeededNoise([7, 8])(torch.empty(2, *shape))
    assert not torch.equal(first, second)


def test_successive_calls_differ():
    noise = SeededNoise([1])
    x = torch.empty(1, 1, 4, 4)
    assert not torch.equal(noise(x), noise(x))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_same_numbers_whatever_the_precision(dtype):
    x = torch.empty(2, 1, 8, 8)
    noise = SeededNoise([1, 2])(x.to(dtype))
    assert noise.dtype == dtype
    assert torch.equal(noise, SeededNoise([1, 2])(x).to(dtype))


@pytest.mark.parametrize("side", [3, 20])  # torch draws fewer than 16 numbers in another way
def test_noise_is_standard_normal(side):
    draws = SeededNoise(range(400))(torch.empty(400, 1, side, side))
    assert kstest(draws.flatten().numpy(), "norm").pvalue > 1e-3
    between = torch.corrcoef(draws.flatten(1)[:, :9].T) - torch.eye(9)
    assert between.abs().max() < 5 / 400**0.5


@pytest.mark.parametrize("batch", [1, 3])
def test_another_batch_size_is_refused(batch):
    with pytest.raises(ValueError, match=r"2 .*seeds|seeds.* 2"):
        SeededNoise([1, 2])(torch.empty(batch, 1, 2, 2))


@pytest.mark.parametrize("seed", [-1, 2**32, 3 + 2**32, 0.5])
def test_seeds_that_torch_would_take_for_others_are_refused(seed):
    with pytest.raises(ValueError, match="seed must be"):
        SeededNoise([seed])
