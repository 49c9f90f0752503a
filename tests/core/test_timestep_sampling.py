"""Times drawn where the loss is large: uniform at first, unbiased always, and the same after a resume."""

import os
import signal

import pytest
import torch
from torch import nn

from bytepixels.config.training import TrainConfig
from bytepixels.core.timestep_sampling import HISTORY, UNIFORM, ImportanceSampler
from bytepixels.data.batches import Batches
from bytepixels.randomness import TIMES, seeded
from bytepixels.training.loop import TrainState, train_step
from tests.tiny import checkpoints, read_json, same_bits, tensors, train, words

T = 5
LEARNED = words("--objective vlb --variance learned --times importance --timesteps 4 --previews 0")


def filled(losses):
    """What remembers these losses [T, n], in that order."""
    times = ImportanceSampler(len(losses))
    for column in torch.as_tensor(losses).T:
        times.update(torch.arange(len(losses)), column)
    return times


def losses_of(n, seed=0):
    """[T, n], of very different sizes from one timestep to the next."""
    return torch.rand(T, n, generator=torch.Generator().manual_seed(seed)) * 10.0 ** torch.arange(T)[:, None]


def test_uniform_until_every_timestep_has_ten_losses():
    times, even = ImportanceSampler(T), torch.full((T,), 1 / T, dtype=torch.float64)
    assert torch.equal(times.probabilities(), even)
    for column in losses_of(HISTORY - 1).T:
        times.update(torch.arange(T), column)
    times.update(torch.arange(1, T), torch.full((T - 1,), 1e6))  # all but t = 0 have their ten
    assert torch.equal(times.probabilities(), even)
    t, weight = times.draw(1000, torch.Generator().manual_seed(0))
    assert set(t.tolist()) == set(range(T))
    assert torch.equal(weight, torch.ones(1000))
    times.update(torch.tensor([0]), torch.tensor([1.0]))
    assert not torch.allclose(times.probabilities(), even)


def test_then_by_the_root_mean_square_of_the_last_ten():
    """Nichol & Dhariwal 2021, eq. 18, with a share that stays uniform."""
    losses = losses_of(HISTORY + 7)
    root = losses[:, 7:].double().square().mean(dim=1).sqrt()  # the seven first are forgotten
    expected = (1 - UNIFORM) * root / root.sum() + UNIFORM / T
    got = filled(losses).probabilities()
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=0)
    assert got.min() > UNIFORM / T  # though its losses are 10,000 times smaller


def test_losses_of_zero_leave_the_draws_uniform():
    times = filled(torch.zeros(T, HISTORY))
    torch.testing.assert_close(times.probabilities(), torch.full((T,), 1 / T, dtype=torch.float64))
    t, weight = times.draw(1000, torch.Generator().manual_seed(0))
    assert set(t.tolist()) == set(range(T))
    torch.testing.assert_close(weight, torch.ones(1000))
    times.update(torch.tensor([3]), torch.tensor([1e-9]))  # one loss that is not, however small, decides again
    expected = torch.full((T,), UNIFORM / T, dtype=torch.float64)
    expected[3] += 1 - UNIFORM
    torch.testing.assert_close(times.probabilities(), expected)


@pytest.mark.parametrize("n", [3, HISTORY + 2])
def test_the_weights_make_the_mean_loss_what_it_was(n):
    """sum_t p_t w_t L_t = mean L_t, exactly, for any losses; and draws fall as their probabilities say."""
    times = filled(losses_of(n))
    p, count = times.probabilities(), 200_000
    t, weight = times.draw(count, torch.Generator().manual_seed(0))
    of_each = torch.full((T,), float("nan"), dtype=torch.float64)
    of_each[t] = weight.double()
    assert of_each.isfinite().all()
    assert torch.equal(of_each[t].float(), weight)  # one weight for every timestep
    torch.testing.assert_close(p * of_each, torch.full((T,), 1 / T, dtype=torch.float64), rtol=1e-6, atol=0)
    share = torch.bincount(t, minlength=T) / count
    assert ((share - p).abs() <= 5 * (p * (1 - p) / count).sqrt()).all()


def test_draws_where_the_loss_is_vary_less():
    """What it is for: the variance of weight * loss falls, here where losses are all but constant at each t, to 0."""
    losses = 10.0 ** torch.arange(T)
    times = filled(losses[:, None].expand(T, HISTORY))
    t, weight = times.draw(50_000, torch.Generator().manual_seed(0))
    even = losses[torch.randint(T, (50_000,), generator=torch.Generator().manual_seed(0))]
    assert (weight * losses[t]).mean() == pytest.approx(losses.mean().item(), rel=1e-2)
    assert (weight * losses[t]).std() < 0.1 * even.std()


@pytest.mark.parametrize("repeats", [2, 7, HISTORY, HISTORY + 3, 3 * HISTORY])
def test_one_batch_may_hold_a_timestep_many_times(repeats):
    """It leaves what as many batches of one would."""
    t = torch.tensor([2] + [0, 3] * repeats + [2])
    losses = torch.arange(1.0, len(t) + 1)
    together, apart = ImportanceSampler(T), ImportanceSampler(T)
    for _ in range(2):
        together.update(t, losses)
        for one, loss in zip(t, losses, strict=True):
            apart.update(one[None], loss[None])
    assert torch.equal(together.counts, apart.counts)
    assert together.counts.tolist() == [2 * repeats, 0, 4, 2 * repeats, 0]
    assert torch.equal(together.losses, apart.losses)


def test_a_loss_that_is_not_finite_ends_the_run_elsewhere():
    """The trainer stops at it and says where; until then the draws go on."""
    times = filled(losses_of(HISTORY))
    before = times.losses.clone()
    times.update(torch.tensor([1, 2]), torch.tensor([float("nan"), float("inf")]))
    assert torch.equal(times.losses, before)
    assert times.draw(10)[1].isfinite().all()


def test_the_run_ends_with_the_times_of_the_step_that_was_not_finite(tmp_path, monkeypatch, capsys):
    """Many steps before the loss is read; times that were drawn by importance cannot be drawn again by then."""
    drawn, draw = [], ImportanceSampler.draw

    def remember(times, batch, generator=None):
        t, weight = draw(times, batch, generator)
        drawn.append(t)
        return t, (weight * float("nan") if len(drawn) == 6 else weight)

    monkeypatch.setattr(ImportanceSampler, "draw", remember)
    assert train(tmp_path, *LEARNED, "--log-seconds", 1000, steps=9) == 1
    said = capsys.readouterr().err
    assert "not finite at step 5 with seed 0" in said
    assert "Traceback" not in said
    assert [one["t"] for one in read_json(tmp_path / "nonfinite.json")["batch"]] == drawn[5].tolist()


# ---- resume

CONFIG = TrainConfig(images=16 * 12, batch=16, lr=0.01, warmup=0)


class Drawing:
    """A fit of y = t + noise whose times are drawn by importance."""

    def __init__(self):
        torch.manual_seed(0)
        self.times = ImportanceSampler(T)
        self.state = TrainState.fresh(nn.Linear(1, 1), CONFIG, self.times)
        self.drawn = []

    def draw(self, step):
        t, weight = self.times.draw(16, seeded(0, TIMES, step))
        self.drawn.append((t.tolist(), weight.tolist()))
        return t, weight

    def loss(self, model, t, weight):
        losses = (model(t.float()[:, None]).flatten() - 3.0**t).square()
        self.times.note(t, losses.detach())
        return weight * losses

    def run(self, end):
        while self.state.step < end:
            train_step(self.state, self.draw(self.state.step), self.loss, CONFIG)


def test_a_state_that_was_saved_and_loaded_draws_the_same_times():
    straight, first, second = Drawing(), Drawing(), Drawing()
    straight.run(12)
    first.run(7)
    assert (first.times.counts >= HISTORY).all()  # the draws are uniform no more
    saved = {stem: {name: t.clone() for name, t in named.items()} for stem, named in first.state.tensors().items()}
    assert {"memory: losses", "memory: counts"} <= saved["optimizer"].keys()
    second.state.load(7, saved)
    second.run(12)
    assert first.drawn + second.drawn == straight.drawn
    for stem, named in straight.state.tensors().items():
        for name, value in named.items():
            assert torch.equal(second.state.tensors()[stem][name], value), name


def test_a_run_that_stops_and_goes_on_is_the_run_that_never_stopped(tmp_path, monkeypatch):
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    assert train(straight, *LEARNED, "--micro-batch", 12, steps=9) == 0
    draw, stops = Batches.__call__, {1, 5}

    def draw_and_stop(batches, step):
        if step in stops:
            stops.remove(step)
            os.kill(os.getpid(), signal.SIGTERM)
        return draw(batches, step)

    monkeypatch.setattr(Batches, "__call__", draw_and_stop)
    for code in (143, 143, 0):
        assert train(stopped, *LEARNED, "--micro-batch", 12, steps=9) == code
    assert same_bits(checkpoints(straight)[-1], checkpoints(stopped)[-1]) == []
    memory = tensors(checkpoints(stopped)[-1])
    assert memory["optimizer/memory: counts"].sum() == 9 * 32
    assert memory["optimizer/memory: counts"].min() >= HISTORY
    assert memory["optimizer/memory: losses"].min() > 0


def test_times_by_importance_are_not_the_uniform_ones(tmp_path):
    """One run with and one without: alike while all are uniform, then not."""
    for name, kind in (("importance", "importance"), ("uniform", "uniform")):
        assert train(tmp_path / name, *LEARNED, "--times", kind, steps=9) == 0
    differing = same_model(tmp_path)
    assert "model/first.weight" in differing


def same_model(folder):
    one, other = (tensors(checkpoints(folder / name)[-1]) for name in ("importance", "uniform"))
    return [name for name in other if not torch.equal(one[name], other[name])]
