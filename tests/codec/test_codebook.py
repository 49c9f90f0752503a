"""The codes of a vq autoencoder: moving means by hand, revival, and what is no latent at all."""

import copy
import math

import pytest
import torch
from torch import nn

from bytepixels.codec.codebook import DEAD, DECAY, CodebookEMA
from bytepixels.networks.quantizer import Quantizer
from bytepixels.training.ema import update_ema


def memory_of(counts, seed=0):
    """One that has taken steps: three codes of two numbers, each with its count."""
    memory = CodebookEMA(quantizer := Quantizer(3, 2), seed)
    quantizer.codes.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0], [-4.0, -4.0]]))
    memory.counts.copy_(torch.tensor(counts))
    memory.sums.copy_(memory.counts[:, None] * quantizer.codes)
    memory.steps.fill_(7)
    return memory, quantizer


VECTORS = torch.tensor([[1.0, 1.0], [3.0, -1.0], [0.5, 0.5], [-5.0, -3.0], [-6.0, -2.0], [2.0, 0.0]])
INDEX = torch.tensor([0, 0, 1, 2, 2, 0])


def everything(values):
    return values


def test_moving_means_by_hand():
    memory, quantizer = memory_of([4.0, 2.0, 3.0])
    memory.update(VECTORS, INDEX)
    counts = [0.99 * 4 + 0.01 * 3, 0.99 * 2 + 0.01, 0.99 * 3 + 0.01 * 2]
    sums = [[0.99 * 4 + 0.06, 0.0], [0.005, 0.99 * 4 + 0.005], [-0.99 * 12 - 0.11, -0.99 * 12 - 0.05]]
    torch.testing.assert_close(memory.counts, torch.tensor(counts))
    torch.testing.assert_close(memory.sums, torch.tensor(sums), atol=1e-6, rtol=1e-6)
    codes = [[total / count for total in row] for row, count in zip(sums, counts, strict=True)]
    torch.testing.assert_close(quantizer.codes, torch.tensor(codes), atol=1e-6, rtol=1e-6)
    assert memory.steps == 8


def test_codes_reach_the_means_of_their_latents():
    memory, quantizer = memory_of([1.0, 2.0, 3.0])
    for _ in range(2000):
        memory.update(VECTORS, INDEX)
    means = torch.stack([VECTORS[k == INDEX].mean(0) for k in range(3)])
    torch.testing.assert_close(quantizer.codes, means, atol=1e-4, rtol=0)
    torch.testing.assert_close(memory.counts, torch.tensor([3.0, 1.0, 2.0]), atol=1e-4, rtol=0)


def test_a_code_that_stands_for_few_becomes_a_latent_with_an_even_share():
    share, found = len(VECTORS) / 3, set()
    for seed in range(40):
        memory, quantizer = memory_of([4.0, 0.9 * DEAD * share, 3.0], seed)
        memory.update(VECTORS, torch.where(INDEX == 1, 0, INDEX))
        assert memory.counts[1] == share
        assert quantizer.codes[1].tolist() in VECTORS.tolist()
        torch.testing.assert_close(quantizer.codes[2], torch.tensor([-11.99, -11.93]) / 2.99, atol=1e-5, rtol=0)
        found.add(tuple(quantizer.codes[1].tolist()))
    assert len(found) == len(VECTORS)  # any of them, as the seed says
    memory, quantizer = memory_of([4.0, 1.1 * DEAD * share / DECAY, 3.0])
    memory.update(VECTORS, torch.where(INDEX == 1, 0, INDEX))
    assert quantizer.codes[1].tolist() == pytest.approx([0, 2])


def test_the_choice_is_a_function_of_seed_and_step():
    def chosen(seed, step):
        memory, quantizer = memory_of([4.0, 0.0, 0.0], seed)
        memory.steps.fill_(step)
        memory.update(VECTORS, INDEX * 0)
        return tuple(quantizer.codes[1:].flatten().tolist())

    assert chosen(0, 3) == chosen(0, 3)
    assert len({chosen(0, step) for step in range(20)}) > 5
    assert len({chosen(seed, 3) for seed in range(20)}) > 5


@pytest.mark.parametrize("codes", [2, 64])
def test_all_codes_begin_among_the_latents(codes):
    """Also one that all latents became, whose count is not small."""
    quantizer = Quantizer(codes, 3)
    latents = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0)) + 5
    memory = CodebookEMA(quantizer)
    memory.note(latents, torch.zeros(4, 5, 5, dtype=torch.int64))
    memory.settle(everything)
    known = latents.movedim(1, -1).reshape(-1, 3)
    assert (quantizer.codes[:, None] - known).abs().amax(2).amin(1).max() < 1e-5
    torch.testing.assert_close(memory.counts, torch.full((codes,), 100 / codes))


def noted(parts, gather=everything):
    memory, quantizer = memory_of([4.0, 0.0, 3.0])
    for latents, index in parts:
        memory.note(latents, index)
    memory.settle(gather)
    assert memory.noted == []
    return quantizer.codes, memory.counts, memory.sums


def test_micro_batches_and_processes_are_one():
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(6, 2, 3, 4, generator=generator, requires_grad=True)
    index = torch.randint(3, (6, 3, 4), generator=generator)
    whole, halves = noted([(latents, index)]), zip(latents.split(4), index.split(4), strict=True)
    assert all(torch.equal(*pair) for pair in zip(whole, noted(halves), strict=True))
    others = iter((latents[4:].detach(), index[4:]))

    def gather(own):
        return torch.cat([own, next(others)])

    assert all(torch.equal(*pair) for pair in zip(whole, noted([(latents[:4], index[:4])], gather), strict=True))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_latent_that_is_not_finite_counts_nowhere(bad):
    with_it, without = (memory_of([4.0, 2.0, 3.0]) for _ in range(2))
    with_it[0].update(torch.cat([VECTORS, torch.tensor([[0.0, bad]])]), torch.cat([INDEX, INDEX[:1]]))
    without[0].update(VECTORS, INDEX)
    assert torch.equal(with_it[0].counts, without[0].counts)
    assert torch.equal(with_it[1].codes, without[1].codes)


def test_no_code_comes_alive_from_a_latent_that_is_not_finite():
    memory, quantizer = memory_of([4.0, 0.0, 0.0])
    vectors = torch.full((6, 2), math.nan)
    vectors[2] = torch.tensor([7.0, 8.0])
    for _ in range(60):
        memory.update(vectors, INDEX * 0)
        assert quantizer.codes.isfinite().all()
    assert quantizer.codes[1:].tolist() == [pytest.approx([7, 8])] * 2


def test_a_step_without_any_latent_that_is_finite_leaves_the_codes():
    memory, quantizer = memory_of([4.0, 2.0, 3.0])
    before = quantizer.codes.clone()
    memory.update(torch.full((6, 2), math.nan), INDEX)
    torch.testing.assert_close(quantizer.codes, before)


def test_what_a_checkpoint_holds_is_all_it_needs():
    memory, quantizer = memory_of([4.0, 0.0, 3.0])
    assert set(memory.state_dict()) == {"counts", "sums", "steps"}
    again = CodebookEMA(copy.deepcopy(quantizer))
    again.load_state_dict(copy.deepcopy(memory.state_dict()))
    for one in (memory, again):
        one.update(VECTORS, INDEX)
    assert torch.equal(again._quantizer[0].codes, quantizer.codes)


def test_an_average_has_the_codes_themselves():
    model = nn.Sequential(nn.Linear(2, 2), Quantizer(3, 2))
    average = copy.deepcopy(model)
    for tensor in model.state_dict().values():
        tensor.add_(1)
    before = average[0].weight.clone()
    update_ema(average, model, 0.75)
    assert torch.equal(average[1].codes, model[1].codes)
    torch.testing.assert_close(average[0].weight, before + 0.25)
