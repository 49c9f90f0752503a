"""The timestep embedding against the formulas written out in numpy."""

import numpy as np
import pytest
import torch

from bytepixels.errors import InputError
from bytepixels.networks import ddpm_timestep_embedding, timestep_embedding

TIMES = np.array([0.0, 1.0, 17.25, 500.0, 999.0])


def article(t, dim):
    half = dim // 2
    waves = np.array([[time / 10000 ** (i / half) for i in range(half)] for time in t])
    return np.concatenate([np.cos(waves), np.sin(waves), np.zeros((len(t), dim % 2))], axis=1)


def ddpm(t, dim):
    half = dim // 2
    waves = np.array([[time / 10000 ** (i / (half - 1)) for i in range(half)] for time in t])
    return np.concatenate([np.sin(waves), np.cos(waves), np.zeros((len(t), dim % 2))], axis=1)


PAIRS = [(timestep_embedding, article), (ddpm_timestep_embedding, ddpm)]


@pytest.mark.parametrize(("embed", "formula"), PAIRS)
@pytest.mark.parametrize("dim", [4, 5, 64, 127, 128])
def test_formula(embed, formula, dim):
    exact = embed(torch.from_numpy(TIMES), dim)
    assert exact.shape == (len(TIMES), dim)
    assert exact.dtype == torch.float64
    np.testing.assert_allclose(exact, formula(TIMES, dim), rtol=0, atol=1e-12)
    single = embed(torch.from_numpy(TIMES).float(), dim)
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single, formula(TIMES, dim), rtol=0, atol=2e-4)  # 999 * float32's 6e-8, and a margin


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.float16, torch.bfloat16])
def test_other_types_become_float32(dtype):
    t = torch.tensor([0, 1, 100, 128], dtype=dtype)
    assert torch.equal(timestep_embedding(t, 32), timestep_embedding(t.float(), 32))


def test_two_columns_are_the_fastest_wave():
    np.testing.assert_allclose(timestep_embedding(torch.tensor([2.0]), 2)[0], [np.cos(2), np.sin(2)], rtol=1e-6)


@pytest.mark.parametrize(("embed", "dim", "least"), [(timestep_embedding, 1, 2), (ddpm_timestep_embedding, 3, 4)])
def test_too_few_columns(embed, dim, least):
    with pytest.raises(InputError, match=f"dim must be at least {least}, got {dim}"):
        embed(torch.zeros(1), dim)
    assert embed(torch.zeros(1), least).isfinite().all()


def test_an_empty_batch():
    assert timestep_embedding(torch.zeros(0), 8).shape == (0, 8)
