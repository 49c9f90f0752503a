"""evaluate: exact ideals, a copyist and a trivial guess that must read as what they are, and the verb end to end."""

import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from bytepixels import Denoiser, EDMProcess, GaussianDiffusion, Level, PixelCodec, RectifiedFlow, SeededNoise
from bytepixels.codec.codec import LatentCodec
from bytepixels.core.likelihood import Measured, ode_bits, variational_bound
from bytepixels.core.schedules import cosine_schedule, linear_schedule, zero_terminal_snr
from bytepixels.data import pack
from bytepixels.metrics import bits_per_dim as bits_of
from bytepixels.metrics import optimal_denoiser
from bytepixels.metrics.loss_analysis import Errors, levels_of, loss_verdict, measure_errors
from bytepixels.metrics.loss_report import sentences
from bytepixels.metrics.optimal_denoiser import EmpiricalImages, LatentMixture, OptimalDenoiser, WienerDenoiser
from tests.codec.autoencoders import Shuffled
from tests.tiny import cli, pixels_of, plain, train, words

CPU = torch.device("cpu")
PROCESS = GaussianDiffusion(1000, cosine_schedule)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """uint8 [1797, 1, 8, 8] and their labels, shuffled: any part of them is of the same law as any other."""
    packed = pack("digits", cache=tmp_path_factory.mktemp("digits"))
    order = np.random.default_rng(0).permutation(len(packed))
    return packed.images[order], torch.from_numpy(packed.labels[order])


def known(digits, count=200, mirrored=False, labels=True):
    return EmpiricalImages(digits[0][:count], digits[1][:count] if labels else None, mirrored)


def x0_of(images):
    return PixelCodec().to_model(torch.from_numpy(np.array(images)))


# ---- the two it is compared with


@pytest.mark.parametrize("labels", [False, True], ids=["all", "own class"])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_the_ideal_is_the_softmax_over_its_images(digits, monkeypatch, rows, mirrored, labels):
    """Against the definition in float64, over whatever blocks; the entropy too."""
    monkeypatch.setattr(optimal_denoiser, "BLOCK_NUMBERS", rows * 64 * (1 + mirrored))
    images = known(digits, mirrored=mirrored)
    level = Level(0.0, 0.8, 0.6)
    label = digits[1][:20] if labels else None
    x = 0.8 * x0_of(digits[0][:20]) + 0.6 * SeededNoise(range(20))(torch.empty(20, 1, 8, 8))
    got, entropy = OptimalDenoiser(images, WienerDenoiser(images, CPU).mean).posterior(x, level, label)
    for k in range(20):
        rows_of_class = images.labels == label[k] if labels else slice(None)
        every = x0_of(images.images[rows_of_class]).double()
        every = torch.cat([every, every.flip(-1)]) if mirrored else every
        logit = -(x[k].double() - 0.8 * every).square().sum((1, 2, 3)) / (2 * 0.36)
        share = torch.softmax(logit, 0)
        torch.testing.assert_close(got[k].double(), (share.view(-1, 1, 1, 1) * every).sum(0), rtol=0, atol=1e-4)
        assert entropy[k].item() == pytest.approx(torch.special.entr(share).sum().item(), abs=1e-3)


@pytest.mark.parametrize("labels", [False, True], ids=["all", "own class"])
@pytest.mark.parametrize("rows", [1, 7, 1000])
@pytest.mark.parametrize("level", [Level(0.0, 0.8, 0.6), Level(0.0, 0.1, 0.995), Level(0.0, 0.999, 0.03)])
def test_the_ideal_of_gaussians_is_the_mixtures(digits, monkeypatch, rows, labels, level):
    """Against torch.distributions in float64: which one it was, and what each makes of x_t."""
    monkeypatch.setattr(optimal_denoiser, "BLOCK_NUMBERS", rows * 2 * 2 * 3 * 4)
    generator = torch.Generator().manual_seed(0)
    moments = torch.randn(50, 2, 6, 2, 2, generator=generator)
    moments[:, :, 3:] = 0.3 * moments[:, :, 3:].abs() + 0.01
    codec = LatentCodec(Shuffled(), [1.0] * 12, [2.0] * 12, [-1.0] * 12, [1.0] * 12)
    codec._mean, codec._scale = codec._mean[:3], codec._scale[:3]  # of three channels
    known = LatentMixture(moments.numpy(), digits[1][:50] if labels else None, codec)
    label = digits[1][:20] if labels else None
    mean, std = moments.double().flatten(0, 1).chunk(2, dim=1)
    mean, std = (mean - 1) / 2, std / 2  # [100, 3, 2, 2]
    x0 = mean[:40:2] + std[:40:2] * torch.randn(20, 3, 2, 2, generator=generator)
    x = (level.alpha * x0 + level.sigma * torch.randn(20, 3, 2, 2, generator=generator)).float()
    guess = WienerDenoiser(known, CPU)
    every = torch.distributions.Normal(level.alpha * mean, (level.alpha**2 * std**2 + level.sigma**2).sqrt())
    logit = every.log_prob(x[:, None].double()).sum((2, 3, 4))  # [20, 100]
    if labels:
        logit[label[:, None] != digits[1][:50].repeat_interleave(2)] = -math.inf
    share = logit.softmax(1)
    gain = level.alpha * std**2 / every.variance
    own = mean + gain * (x[:, None] - level.alpha * mean)  # [20, 100, 3, 2, 2]
    got, entropy = OptimalDenoiser(known, guess.mean).posterior(x, level, label)
    torch.testing.assert_close(got.double(), torch.einsum("bk,bkchw->bchw", share, own), atol=2e-4, rtol=0)
    torch.testing.assert_close(entropy.double(), torch.special.entr(share).sum(1), atol=2e-3, rtol=0)
    whole = mean.var(0, correction=0) + (std**2).mean(0)
    torch.testing.assert_close(guess.variance[0].double(), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("level", [Level(0.0, 0.999, 0.001), Level(0.0, 0.8, 0.6)])
def test_of_gaussians_that_overlap_the_ideal_knows_little(level):
    """At any noise; in float32, with a thousand numbers each. Against torch.distributions in float64."""
    generator = torch.Generator().manual_seed(0)
    mean, std = 0.05 * torch.randn(64, 12, 9, 9, generator=generator), 0.9 + 0.01 * torch.rand(64, 12, 9, 9)
    codec = LatentCodec(Shuffled(), [0.0] * 12, [1.0] * 12, [-5.0] * 12, [5.0] * 12)
    known = LatentMixture(torch.cat([mean, std], 1)[:, None].numpy(), None, codec)
    x0 = mean[:20] + std[:20] * torch.randn(20, 12, 9, 9, generator=generator)
    x = level.alpha * x0 + level.sigma * torch.randn(20, 12, 9, 9, generator=generator)
    spread = (level.alpha**2 * std.double() ** 2 + level.sigma**2).sqrt()
    logit = torch.distributions.Normal(level.alpha * mean.double(), spread).log_prob(x[:, None].double()).sum((2, 3, 4))
    entropy = OptimalDenoiser(known, WienerDenoiser(known, CPU).mean).posterior(x, level)[1]
    expected = torch.special.entr(logit.softmax(1)).sum(1)
    assert expected.mean() > 1
    torch.testing.assert_close(entropy.double(), expected, atol=0.01, rtol=0)


def test_at_the_ends_the_ideal_knows_nothing_or_all(digits):
    images = known(digits, labels=False)
    ideal, x0 = OptimalDenoiser(images, WienerDenoiser(images, CPU).mean), x0_of(digits[0][:5])
    noisy, entropy = ideal.posterior(torch.randn(5, 1, 8, 8), Level(0.0, 1e-4, 1.0))
    torch.testing.assert_close(
        noisy, x0_of(digits[0][:200]).mean(0, keepdim=True).expand(5, -1, -1, -1), atol=0.01, rtol=0
    )
    torch.testing.assert_close(entropy, torch.full((5,), math.log(200)), rtol=1e-3, atol=0)
    clean, entropy = ideal.posterior(x0 + 0.006 * torch.randn(5, 1, 8, 8), Level(0.0, 1.0, 0.006))
    torch.testing.assert_close(clean, x0, atol=1e-5, rtol=0)
    assert entropy.abs().max() < 1e-5


@pytest.mark.parametrize("mirrored", [False, True])
def test_the_trivial_guess_is_the_regression_of_every_pixel(digits, mirrored):
    """Against numpy's least squares on many noisy copies, pixel by pixel."""
    images, level = known(digits, 100, mirrored), Level(0.0, 0.6, 0.8)
    x0 = x0_of(images.images)
    x0 = torch.cat([x0, x0.flip(-1)]) if mirrored else x0
    copies = x0.repeat(400, 1, 1, 1)
    x = 0.6 * copies + 0.8 * torch.randn(copies.shape, generator=torch.Generator().manual_seed(0))
    guess = WienerDenoiser(images, CPU)
    for row, column in ((3, 4), (5, 2), (0, 3)):
        slope, offset = np.polyfit(x[:, 0, row, column].double(), copies[:, 0, row, column].double(), 1)
        got = (
            guess(torch.zeros(1, 1, 8, 8), level)[0, 0, row, column],
            guess(torch.ones(1, 1, 8, 8), level)[0, 0, row, column],
        )
        assert got[0].item() == pytest.approx(offset, abs=0.02)
        assert (got[1] - got[0]).item() == pytest.approx(slope, abs=0.02)
    still = x0.var(0) == 0
    assert still.sum() > 3
    torch.testing.assert_close(guess(x[:1], level)[0][still], x0[0][still])  # a pixel that never changes is known


# ---- the verdict


def verdict_of(predict, digits, n=100):
    images = known(digits, 300)
    trivial = WienerDenoiser(images, CPU)
    ideal, levels = OptimalDenoiser(images, trivial.mean), levels_of(PROCESS, 12)
    predict = predict(trivial, ideal)
    measured = []
    for first, best in ((0, ideal), (1000, None)):
        x0, label = x0_of(digits[0][first : first + n]), digits[1][first : first + n]
        measured.append(measure_errors(predict, trivial, best, levels, x0, label, range(n), 64))
    return levels, loss_verdict(*measured), measured


def test_a_copyist_has_learnt_all_and_memorises(digits):
    levels, verdict, (training, _) = verdict_of(lambda trivial, ideal: ideal, digits)
    assert verdict.learnt == pytest.approx((1, 0), abs=1e-6)  # batches of another size round otherwise
    assert verdict.copied == pytest.approx((1, 0), abs=1e-6)
    assert verdict.memorised[0] > 0.3
    assert verdict.memorises
    assert len(verdict.lower_on_training) > 3
    assert verdict.worse_than_trivial == []
    torch.testing.assert_close(training.run, training.ideal)
    said = " ".join(sentences(levels, verdict, held_out=True))
    assert "Learnt 100.0%" in said
    assert "memorised" in said


def test_the_trivial_guess_has_learnt_nothing_and_memorises_nothing(digits):
    levels, verdict, _ = verdict_of(lambda trivial, ideal: trivial, digits)
    for share in (verdict.learnt, verdict.learnt_held_out, verdict.copied, verdict.memorised):
        assert share[0] == pytest.approx(0, abs=1e-9)
    assert not verdict.memorises
    assert verdict.worse_than_trivial == []
    assert "no sign of memorising" in " ".join(sentences(levels, verdict, held_out=True))


def test_one_that_knows_less_than_the_trivial_guess_is_told_so(digits):
    levels, verdict, _ = verdict_of(lambda trivial, ideal: lambda x, level, label: torch.zeros_like(x), digits)
    assert verdict.learnt[0] < -0.5
    assert set(verdict.worse_than_trivial) == set(range(len(levels)))


def test_a_generaliser_gains_as_much_on_images_it_never_saw(digits):
    """A linear guess that knows how pixels go together, from images that neither set has."""
    others = x0_of(digits[0][600:1000]).flatten(1)
    mean, covariance = others.mean(0), torch.cov(others.T)

    def linear(x, level, label):
        total = level.alpha**2 * covariance + level.sigma**2 * torch.eye(64)
        moved = torch.linalg.solve(total, (x.flatten(1) - level.alpha * mean).T).T @ covariance
        return (mean + level.alpha * moved).view_as(x)

    _, verdict, _ = verdict_of(lambda trivial, ideal: linear, digits)
    assert verdict.copied[0] > 0.1  # it does gain something there
    assert not verdict.memorises
    assert abs(verdict.memorised[0]) < 3 * verdict.memorised[1] < 0.15


def test_the_ideal_has_the_least_error_and_the_perplexity_falls(digits):
    _, verdict, (training, held_out) = verdict_of(lambda trivial, ideal: trivial, digits)
    assert held_out.ideal is None
    assert (training.ideal.mean(1) <= training.trivial.mean(1) + 1e-9).all()
    assert all(coarse >= fine - 0.05 for coarse, fine in pairwise(verdict.perplexity))
    per_class = torch.bincount(digits[1][:300], minlength=10)
    noisiest = per_class[digits[1][:100]].double().log().mean().exp().item()
    assert verdict.perplexity[0] == pytest.approx(noisiest, rel=1e-3)
    assert verdict.perplexity[-1] == pytest.approx(1, abs=1e-3)


def test_the_shares_and_their_errors_by_hand():
    """Two free levels and one copy; four images."""
    trivial, ideal = torch.full((3, 4), 2.0), torch.tensor([[1.0], [1.0], [0.0]]).expand(3, 4)
    entropy = torch.tensor([[3.0], [1.0], [0.1]]).expand(3, 4)
    run = torch.tensor([[1.0, 1.5, 1.5, 2.0], [1.5, 1.5, 1.5, 1.5], [1.0, 1.0, 1.0, 1.0]])
    held = Errors(torch.tensor([[1.5] * 4, [1.7, 1.8, 1.8, 1.9], [1.5] * 4]), trivial, None, None)
    verdict = loss_verdict(Errors(run, trivial, ideal, entropy), held)
    assert verdict.learnt == pytest.approx((0.5, math.sqrt(1 / 6) / 2 / 2))  # of 4 / 8; the gaps are all alike
    assert verdict.learnt_held_out[0] == pytest.approx((2 + 0.8) / 8)
    assert verdict.copied == pytest.approx((0.5, 0))
    assert verdict.memorised == pytest.approx((0.25, 0))
    assert verdict.lower_on_training == [1, 2]
    assert verdict.perplexity == pytest.approx(np.exp([3, 1, 0.1]))


def test_held_out_images_are_measured_against_their_own_trivial_errors():
    """One that goes half of the way on every held-out image has no standard error, however unlike the images are.

    The ideal has a quarter of the trivial error at the free level and none at the copy: the ways are 3/4 and 1.
    """
    entropy = torch.tensor([[3.0], [0.1]]).expand(2, 3)
    trivial, ideal = torch.tensor([1.0, 2.0, 3.0]).expand(2, 3), torch.tensor([[0.9, 0.4, 0.2], [0.0, 0.0, 0.0]])
    held_trivial = torch.tensor([[1.0, 5.0, 3.0, 7.0], [4.0, 2.0, 9.0, 1.0]])
    half = held_trivial * (1 - 0.5 * torch.tensor([[0.75], [1.0]]))
    verdict = loss_verdict(Errors(trivial, trivial, ideal, entropy), Errors(half, held_trivial, None, None))
    assert verdict.learnt_held_out == pytest.approx((0.5, 0), abs=1e-9)
    assert verdict.memorised == pytest.approx((-0.5, 0), abs=1e-9)


def test_without_held_out_images_it_does_not_say_that_it_memorises():
    entropy = torch.tensor([[3.0], [0.1]]).expand(2, 4)
    training = Errors(torch.ones(2, 4), torch.full((2, 4), 2.0), torch.zeros(2, 4), entropy)
    verdict = loss_verdict(training, None)
    assert verdict.memorised is None
    assert not verdict.memorises
    levels = [Level(1.0, 0.1, 1.0), Level(0.0, 1.0, 0.1)]
    assert "cannot be told" in " ".join(sentences(levels, verdict, held_out=False))


def test_the_errors_do_not_depend_on_the_batch(digits):
    images = known(digits)
    trivial = WienerDenoiser(images, CPU)
    ideal, levels, counts = OptimalDenoiser(images, trivial.mean), levels_of(PROCESS, 5), []
    x0, label = x0_of(digits[0][:10]), digits[1][:10]
    run = lambda x, level, label: (x + label.view(-1, 1, 1, 1)) / 10  # noqa: E731
    whole = measure_errors(run, trivial, ideal, levels, x0, label, range(10), 64)
    parts = measure_errors(run, trivial, ideal, levels, x0, label, range(10), 3, counts.append)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert sum(counts) == 10 * len(levels)


def test_every_level_and_every_seed_has_its_own_noise(digits):
    """What the run is shown, less the image, is standard normal: other at every level, and for every other seed."""
    images, levels, n = known(digits), levels_of(PROCESS, 6), 30
    x0, seeds, seen = x0_of(digits[0][:n]), [*range(7, 7 + n - 1), 7], []

    def run(x, level, label):
        seen.append(((x - level.alpha * x0) / level.sigma).flatten(1))
        return x

    measure_errors(run, WienerDenoiser(images, CPU), None, levels, x0, None, seeds, n)
    noise = torch.stack(seen).double()  # [levels, images, numbers]
    assert noise.mean().abs() < 4 / math.sqrt(noise.numel())
    assert noise.std().item() == pytest.approx(1, abs=4 / math.sqrt(2 * noise.numel()))
    torch.testing.assert_close(noise[:, 0], noise[:, -1], rtol=0, atol=2e-4)  # seed 7, twice
    rows = noise[:, :-1].flatten(0, 1)
    alike = (rows @ rows.T / rows.shape[1]).fill_diagonal_(0)
    assert alike.abs().max() < 6 / math.sqrt(rows.shape[1])


@pytest.mark.parametrize(
    "process",
    [
        PROCESS,
        GaussianDiffusion(10),
        GaussianDiffusion(50, lambda T: zero_terminal_snr(linear_schedule(T))),
        EDMProcess(),
        RectifiedFlow(),
    ],
    ids=["cosine", "short", "zero snr", "edm", "flow"],
)
def test_the_levels_are_even_in_log_snr(process):
    levels = levels_of(process, 24)
    at = [level.half_log_snr for level in levels]
    assert all(coarse < fine for coarse, fine in pairwise(at))
    assert all(math.isfinite(one) for one in at)
    if process.whole_times:
        assert all(level in process.levels() for level in levels)
        assert len(levels) >= min(process.T, 24) // 2
    else:
        np.testing.assert_allclose(np.diff(at), (at[-1] - at[0]) / 23, rtol=1e-6)


# ---- bits


def tiny_network(x, t, label=None):
    return 0.5 * x + 0.1 * torch.sin(t).view(-1, 1, 1, 1) + (0 if label is None else 0.02 * label.view(-1, 1, 1, 1))


def test_the_bits_of_batches_are_those_of_the_core(digits):
    process = GaussianDiffusion(8, cosine_schedule)
    x0, label, seeds = x0_of(digits[0][:5]), digits[1][:5], range(10, 15)
    plan = bits_of.BitsPlan(process, process.levels(), ("small", "large"), 4, 2, "noise", 2, clip=False)
    counts = []
    got = bits_of.measure_bits(Denoiser(tiny_network, "v"), plan, x0, label, seeds, counts.append)
    denoiser = Denoiser(tiny_network, "v", label=label)
    for variance in ("small", "large"):
        bound = variational_bound(x0, process.levels(), denoiser.estimate, SeededNoise(seeds), variance)
        torch.testing.assert_close(got.bounds[variance].total, bound.total.double(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(got.bounds[variance].terms, bound.terms.double(), rtol=1e-4, atol=1e-5)
    ode = ode_bits(x0, process, denoiser, 4, 2, SeededNoise(seeds))
    torch.testing.assert_close(got.ode.value, ode.value.double(), rtol=1e-4, atol=1e-5)
    assert sum(counts) == 5 * plan.evaluations


def test_the_probes_share_is_the_error_of_a_mean_of_independent_numbers():
    """Errors 3 and 4 of two images: their mean has sqrt(3^2 + 4^2) / 2."""
    value, errors = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
    found = bits_of.numbers(bits_of.Bits({}, Measured(value, errors)))["ode"]
    assert found == pytest.approx({"total": 1.5, "standard_error": 0.5, "of_it_probes": 2.5})


def test_clipping_lowers_the_chains_bits_of_a_wild_network(digits):
    process, x0 = GaussianDiffusion(8, cosine_schedule), x0_of(digits[0][:5])
    totals = []
    for clip in (False, True):
        plan = bits_of.BitsPlan(process, process.levels(), ("large",), 0, 1, "noise", 5, clip)
        wild = Denoiser(lambda x, t: 3 * x)
        totals.append(bits_of.measure_bits(wild, plan, x0, None, range(5)).bounds["large"].total.mean())
    assert totals[1] < totals[0]


# ---- the verb


def evaluations(run):
    return [json.loads(line) for line in (run / "eval.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def source(digits, tmp_path_factory):
    """300 digits to train on and 60 held out, in one file."""
    path = tmp_path_factory.mktemp("evaluate") / "few.npz"
    images, labels = digits[0][:, 0], digits[1].numpy()
    splits = {"train": slice(300), "test": slice(1000, 1060)}
    np.savez(
        path, **{f"{n}_{s}": a[rows] for s, rows in splits.items() for n, a in (("images", images), ("labels", labels))}
    )
    return path


@pytest.fixture(scope="module")
def run(source, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    assert train(path, *words("--warmup 0 --lr-decay none --timesteps 40"), steps=30, source=source) == 0
    return path


def test_bits_and_loss_in_one_line(run, source, capsys):
    flags = words("--bits --loss -n 20 --ode-steps 4 --probes 2")
    assert cli("evaluate", run, *flags) == 0
    said = plain(capsys.readouterr().out)
    assert "20 images of" in said
    assert "split test (not trained on)" in said
    assert "chain of 40 steps, x0 clipped; ODE of 4 RK4 steps, 2 probes, dequantised by noise; 57 evaluations" in said
    assert "Learnt nothing yet" in said
    bits, loss = evaluations(run)[-2:]
    for row in (bits, loss):
        assert row["checkpoint"] == "step-00000030"
        assert row["weights"] == "ema"
        assert row["seed"] == 0
        assert row["made_by"]["torch"] == torch.__version__
    test = pack(source, split="test").meta["sha256"]["images"]
    assert bits["data"] == {"source": str(source), "split": "test", "trained_on": False, "sha256": test}
    assert bits["n"] == 20
    for variance in ("small", "large"):
        row = bits["bits_per_dimension"][variance]
        assert row["total"] == pytest.approx(row["L_T"] + row["L_t"] + row["L_0"])
        assert f"{row['total']:.4f} {row['standard_error']:.4f}" in said
    ode = bits["bits_per_dimension"]["ode"]
    assert 0 < ode["of_it_probes"] < ode["standard_error"] < 1
    assert [one["trained_on"] for one in loss["data"]] == [True, False]
    assert loss["errors"].keys() == {"training", "trivial", "ideal", "held_out", "held_out_trivial"}
    assert all(len(curve) == len(loss["log_snr"]) for curve in loss["errors"].values())
    for name in ("bits.png", "loss.png"):
        assert pixels_of(run / "evaluate" / name).std() > 10  # something is drawn


def test_the_batch_changes_nothing_and_the_seed_does(run):
    totals = []
    for flags in (words("--batch 64"), words("--batch 3"), words("--seed 5")):
        assert cli("evaluate", run, *words("--bits -n 8 --ode-steps 2 --probes 1"), *flags) == 0
        found = evaluations(run)[-1]["bits_per_dimension"]
        totals.append((found["large"]["total"], found["ode"]["total"]))
    assert totals[0] == pytest.approx(totals[1], rel=1e-4)
    assert totals[0] != pytest.approx(totals[2], rel=1e-4)


def test_a_shorter_chain_other_weights_and_another_dequantisation(run):
    usual = words("--bits -n 8 --ode-steps 2")
    found = []
    for flags in (
        [],
        words("--steps 5"),
        words("--weights model"),
        words("--dequantisation uniform"),
        words("--split train"),
    ):
        assert cli("evaluate", run, *usual, *flags) == 0
        found.append(evaluations(run)[-1])
    totals = [(one["bits_per_dimension"]["large"]["total"], one["bits_per_dimension"]["ode"]["total"]) for one in found]
    assert (found[0]["steps"], found[1]["steps"]) == (40, 5)
    assert totals[1][0] != totals[0][0]
    assert totals[1][1] == totals[0][1]  # the ODE knows nothing of the chain
    assert totals[2] != totals[0]
    assert totals[3][0] == totals[0][0]
    assert totals[3][1] != totals[0][1]
    assert found[4]["data"]["trained_on"] is True


def test_without_a_test_split_it_says_what_it_measured(tmp_path, capsys):
    assert train(tmp_path / "run", "--timesteps", 10, steps=1) == 0
    assert cli("evaluate", tmp_path / "run", *words("--bits --loss -n 4 --ode-steps 1")) == 0
    said = plain(capsys.readouterr().out)
    assert "no held-out images: digits has no test split" in said
    assert "split train (the images it was trained on)" in said
    assert "cannot be told" in said
    bits, loss = evaluations(tmp_path / "run")
    assert bits["data"]["trained_on"] is True
    assert len(loss["data"]) == 1
    assert loss["memorised"] is None


@pytest.mark.parametrize("diffusion", ["edm", "flow"])
def test_a_process_without_a_chain_has_the_ode_alone(source, tmp_path, capsys, diffusion):
    assert train(tmp_path / "run", "--diffusion", diffusion, steps=2, source=source) == 0
    assert cli("evaluate", tmp_path / "run", *words("--bits --loss -n 4 --ode-steps 2")) == 0
    assert f"{diffusion} has no chain of steps to bound" in plain(capsys.readouterr().out)
    bits, _ = evaluations(tmp_path / "run")
    assert bits["bits_per_dimension"].keys() == {"ode"}
    assert not (tmp_path / "run" / "evaluate" / "bits.png").exists()
    assert cli("evaluate", tmp_path / "run", "--bits", "--ode-steps", 0) == 2
    assert "has no chain to bound" in capsys.readouterr().err


def test_a_learned_variance_is_the_one_reported(source, tmp_path):
    assert train(tmp_path / "run", *words("--objective hybrid --variance learned --timesteps 10"), source=source) == 0
    assert cli("evaluate", tmp_path / "run", *words("--bits --loss -n 4 --ode-steps 2")) == 0
    bits, _ = evaluations(tmp_path / "run")
    assert bits["bits_per_dimension"].keys() == {"learned", "ode"}


def test_a_source_that_moved_and_one_that_changed(run, source, digits, tmp_path, capsys):
    moved, other = tmp_path / "moved.npz", tmp_path / "other.npz"
    moved.write_bytes(source.read_bytes())
    np.savez(other, images_train=digits[0][300:400, 0], labels_train=digits[1][300:400].numpy())
    assert cli("evaluate", run, "--loss", "-n", 4, "--source", moved) == 0
    assert cli("evaluate", run, "--loss", "-n", 4, "--source", other) == 2
    assert f"{other} does not hold the 300 images that {run} was trained on" in capsys.readouterr().err
    assert cli("evaluate", run, *words("--loss -n 4 --split train")) == 2
    assert "the run was trained on split train" in capsys.readouterr().err
    assert cli("evaluate", run, *words("--bits -n 4 --ode-steps 1"), "--source", other) == 0
    assert evaluations(run)[-1]["data"]["source"] == str(other)


def test_one_probe_has_no_error_and_one_image_is_too_few(run, digits, tmp_path, capsys):
    assert cli("evaluate", run, *words("--bits -n 4 --ode-steps 1 --probes 1")) == 0
    assert evaluations(run)[-1]["bits_per_dimension"]["ode"]["of_it_probes"] is None
    assert "nan" not in plain(capsys.readouterr().out)
    save(tmp_path / "one.png", digits[0][0, 0])
    assert cli("evaluate", run, "--bits", "--source", tmp_path / "one.png") == 2
    assert "holds one image: its loss has no standard error" in capsys.readouterr().err


def test_classes_are_matched_by_name(run, digits, tmp_path, capsys):
    """A file whose only classes are 7 and 8 numbers them 0 and 1; the run calls them 7 and 8."""
    from bytepixels.runs.image_sets import other_set
    from bytepixels.runs.run_directory import open_run

    chosen = (digits[1] == 7) | (digits[1] == 8)
    two, labels = tmp_path / "two", digits[1][chosen].numpy()
    images = digits[0][chosen, 0]
    for k, (image, label) in enumerate(zip(images[:20], labels[:20], strict=True)):
        save(two / str(label) / f"{k:02}.png", image)
    found = other_set(open_run(run), str(two), "train")
    assert sorted(found.labels.tolist()) == sorted(labels[:20].tolist())
    save(two / "cat" / "1.png", images[0])
    assert cli("evaluate", run, "--bits", "--source", two) == 2
    assert "a class of the images must be one of 0, 1, 2" in capsys.readouterr().err


def save(path, image):
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--bits", "-n", 1], "-n must be at least 2, got 1"),
        (["--bits", "--probes", 0], "--probes must be at least 1, got 0"),
        (["--loss", "--steps", 5], "--steps belongs to --bits, got --steps 5 without it"),
        (["--bits", "--ode-steps", -1], "--ode-steps must be at least 0, got -1"),
        (["--bits", "--steps", 41], "steps must be in 1..40, got 41"),
        (["--bits", "--batch", 0], "--batch must be at least 1, got 0"),
        (["--bits", "--split", "tset"], "did you mean 'test'"),
        (["--bits", "--checkpoint", "step-1"], "--checkpoint must be one of step-00000030"),
        (["--bits", "--source", "nowhere"], "'nowhere' is no file"),
    ],
    ids=lambda value: " ".join(map(str, value))[:20],
)
def test_what_is_refused(run, capsys, flags, sentence):
    before = (run / "eval.jsonl").read_bytes() if (run / "eval.jsonl").exists() else None
    assert cli("evaluate", run, *flags) == 2
    assert sentence in plain(capsys.readouterr().err)
    assert ((run / "eval.jsonl").read_bytes() if before else None) == before


@pytest.mark.parametrize("flags", ["--ode-steps 3", "--probes 3", "--dequantisation uniform", "--steps 5"])
def test_flags_of_bits_are_refused_without_it(run, capsys, flags):
    assert cli("evaluate", run, "--loss", *words(flags)) == 2
    flag, value = words(flags)
    assert f"{flag} belongs to --bits, got {flag} {value} without it" in plain(capsys.readouterr().err)
