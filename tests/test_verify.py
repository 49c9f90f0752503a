"""`bytepixels verify`: it passes as things are, and every check fails when what it checks is broken."""

import math
from itertools import pairwise

import pytest
import torch

from bytepixels import SAMPLERS, EDMProcess, GaussianDiffusion, RectifiedFlow
from bytepixels.console import Console
from bytepixels.core import samplers
from bytepixels.core.exact_denoisers import GAUSSIAN
from bytepixels.events import listening
from bytepixels.verification import bound, common, moments, orders, pictures, processes, seeds
from bytepixels.verification import table as verify
from bytepixels.verification.common import Check, log_snr_grid

from .test_samplers import affine
from .verbs.tiny import cli, picture


def failed(rows):
    return {row.name for row in rows if not row.ok}


def only(monkeypatch, *names):
    """Leave these samplers, to be quick; ddpm and ddim are what others are compared with."""
    for name in set(SAMPLERS) - {"ddpm", "ddim", *names}:
        monkeypatch.delitem(SAMPLERS, name)
    monkeypatch.setattr(samplers, "STOCHASTIC", tuple(n for n in samplers.STOCHASTIC if n in SAMPLERS))
    for module in (orders, moments):
        monkeypatch.setattr(module, "STOCHASTIC", samplers.STOCHASTIC)


# ---- the verb


@pytest.mark.slow
def test_everything_passes_on_this_machine(tmp_path, capsys):
    assert cli("verify", "--out", tmp_path / "out") == 0
    *rows, last = capsys.readouterr().out.splitlines()
    passed = [row for row in rows if "  ok" in row]
    assert not any("FAIL" in row for row in rows)
    assert last.startswith(f"{len(passed)} checks, all passed in ")
    assert last.endswith(f"the plot: {tmp_path / 'out' / 'verify.png'}")
    assert len(passed) > 100
    for name in SAMPLERS:
        assert sum(name in row for row in passed) >= 2
    assert picture(tmp_path / "out" / "verify.png").std() > 10
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["verify.png"]


def test_a_lower_order_than_promised_is_seen_and_the_exit_code_says_so(tmp_path, capsys, monkeypatch):
    only(monkeypatch, "dpmpp_3m")
    monkeypatch.setitem(SAMPLERS, "dpmpp_3m", samplers.dpmpp_2m_step)
    every = verify.sections
    monkeypatch.setattr(verify, "sections", lambda curves: dict(list(every(curves).items())[:1]))  # those of orders
    assert cli("verify", "--out", tmp_path) == 1
    said = capsys.readouterr().out
    names = ("dpmpp_3m, VP", "dpmpp_3m, EDM", "dpmpp_3m, flow")
    assert f"checks, 3 FAILED ({'; '.join(names)}) in " in said
    assert said.count("FAIL ") == 3
    assert (tmp_path / "verify.png").is_file()


def test_a_section_that_breaks_is_a_failure_and_the_others_still_run(tmp_path, capsys, monkeypatch):
    def broken():
        raise RuntimeError("no such thing")

    monkeypatch.setattr(
        verify, "sections", lambda curves: {"One (of two)": broken, "Two": lambda: [Check("fine", 1, 1)]}
    )
    with listening(Console()):
        assert not verify.verify(tmp_path)
    said = capsys.readouterr().out
    assert "FAIL  RuntimeError: no such thing" in said
    assert "2 checks, 1 FAILED (One) in " in said
    assert list(tmp_path.iterdir()) == []  # no curves, no plot


def test_out_that_cannot_be_is_one_sentence(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert cli("verify", "--out", tmp_path / "file") == 2
    assert capsys.readouterr().err.startswith(f"bytepixels: --out: the folder {tmp_path / 'file'} cannot be made")


@pytest.mark.parametrize(
    ("row", "ok"),
    [
        (Check("", 1.1, 1, 0.15), True),
        (Check("", 0.8, 1, 0.15), False),
        (Check("", -1e-9, 0, 1e-10), False),
        (Check("", 0.0), True),
        (Check("", math.nan, 1, 1), False),
        (Check("", 1, math.nan, 1), False),
        (Check("", math.inf, math.inf, 1), False),
    ],
)
def test_what_passes(row, ok):
    assert row.ok is ok
    assert ("FAIL" in verify.line(row)) is not ok


# ---- orders and moments


def test_a_sampler_without_an_expected_order_fails(monkeypatch):
    only(monkeypatch)
    monkeypatch.setitem(SAMPLERS, "mine", samplers.heun_step)
    curves = orders.measure_curves()
    assert failed(orders.order_checks(curves)) == {"mine, VP", "mine, EDM", "mine, flow"}
    assert [curve.order for curve in curves if curve.sampler == "mine"] == pytest.approx([2, 2, 2], abs=0.02)
    assert "no expected order" in orders.order_checks(curves)[-1].note


def test_ipndm_with_three_weights_is_of_order_three(monkeypatch):
    weights = samplers.ipndm_step.__globals__["ADAMS_BASHFORTH"]
    monkeypatch.setitem(samplers.ipndm_step.__globals__, "ADAMS_BASHFORTH", (*weights[:3], (*weights[2], 0.0)))
    curve = orders.measure_curve("ipndm", "VP", even=True)
    assert failed(orders.order_checks([curve])) == {"ipndm (even sigma / alpha), VP"}
    assert curve.order == pytest.approx(3, abs=0.3)


def test_moments_are_those_of_a_recursion():
    """Step by step, for a method without memory: A x + B + C z."""
    levels = log_snr_grid(RectifiedFlow(), 7)
    (mean,), (variance,) = GAUSSIAN.components(levels[0])
    for now, nxt in pairwise(levels):
        A, B, C = affine(SAMPLERS["ddpm"], now, nxt, GAUSSIAN.denoise)
        mean, variance = A * mean + B, A**2 * variance + C**2
    assert moments.moments(SAMPLERS["ddpm"], levels) == pytest.approx((float(mean), float(variance)), rel=1e-12)


def louder(step, by):
    return lambda x, now, nxt, denoise, noise, memory=None, **options: step(
        x, now, nxt, denoise, lambda x: by * noise(x), memory, **options
    )


def shifted(step):
    def moved(*args, **options):
        x, memory = step(*args, **options)
        return x + 1e-6, memory

    return moved


def forgetful(step):
    return lambda x, now, nxt, denoise, noise, memory=None: (step(x, now, nxt, denoise, noise)[0], None)


ALL_PATHS = ("VP", "EDM", "flow")


@pytest.mark.parametrize(
    ("name", "broken", "rows"),
    [
        ("ddpm", lambda step: louder(step, 1.02), {f"ddpm, {p}: order of variance" for p in ALL_PATHS}),
        ("ddpm", shifted, {"ddpm: error of the mean"}),
        ("ddpm", lambda step: louder(step, 1 + 1e-8), {f"ddim with eta 1 is ddpm, {p}" for p in ALL_PATHS}),
        ("ddim", lambda step: louder(step, 1.02), {f"ddim with eta 1, {p}: order of variance" for p in ALL_PATHS}),
        ("dpmpp_sde_2m", forgetful, {f"dpmpp_sde_2m, {p}: order of variance" for p in ALL_PATHS}),
    ],
    ids=["loud ddpm", "shifted ddpm", "ddpm is not ddim", "loud ddim", "forgetful sde"],
)
def test_moments_see_what_is_wrong(monkeypatch, name, broken, rows):
    monkeypatch.setitem(SAMPLERS, name, broken(SAMPLERS[name]))
    assert rows <= failed(moments.moment_checks())


def test_a_noisy_sampler_without_an_expected_order_fails(monkeypatch):
    monkeypatch.setitem(SAMPLERS, "mine", SAMPLERS["ddpm"])
    monkeypatch.setattr(moments, "STOCHASTIC", ("mine",))
    assert failed(moments.moment_checks()) == {f"mine, {p}: order of variance" for p in ALL_PATHS}


# ---- processes


def moved_time(level):
    return lambda self, at: level(self, at)._replace(t=level(self, at).t + 1)


def scaled(alpha_sigma):
    return lambda self, t, dtype=torch.float32: [1.001 * part for part in alpha_sigma(self, t, dtype)]


@pytest.mark.parametrize(
    ("attribute", "broken", "rows"),
    [
        ("level", moved_time, {"level() finds its levels", "retime keeps its own grid"}),
        ("alpha_sigma", scaled, {"levels and add_noise agree", "eps, x0 and v give x0 back"}),
        ("retime", lambda retime: lambda self, levels: list(levels), {"retime refuses another's"}),
        ("sigma_data", lambda value: property(lambda self: next(self.drift)), {"eps, x0 and v give x0 back"}),
    ],
)
def test_processes_see_what_is_wrong(monkeypatch, attribute, broken, rows):
    monkeypatch.setattr(GaussianDiffusion, "drift", iter([1.0, 1.1] * 500), raising=False)
    monkeypatch.setattr(GaussianDiffusion, attribute, broken(getattr(GaussianDiffusion, attribute)))
    monkeypatch.setattr(processes, "processes", lambda: {"flow": RectifiedFlow(), "linear": GaussianDiffusion()})
    assert failed(processes.process_checks()) == {f"linear: {row}" for row in rows}


def test_a_table_that_is_not_the_product_of_its_betas_is_seen(monkeypatch):
    """The grid and add_noise read it alike, so between them nothing is wrong."""
    wrong = GaussianDiffusion()
    wrong.betas = wrong.betas.roll(1)
    monkeypatch.setattr(processes, "processes", lambda: {"right": GaussianDiffusion(), "wrong": wrong})
    assert failed(processes.process_checks()) == {"wrong: levels and add_noise agree"}


@pytest.mark.parametrize("cls", [EDMProcess, RectifiedFlow])
def test_a_grid_at_other_times_than_training_is_seen(monkeypatch, cls):
    right = cls.level
    monkeypatch.setattr(cls, "level", lambda self, at: right(self, at)._replace(t=right(self, at + 1e-6).t))
    monkeypatch.setattr(processes, "processes", lambda: {"wrong": cls()})
    assert "wrong: levels and add_noise agree" in failed(processes.process_checks())


def test_a_wrong_target_is_seen_in_every_process(monkeypatch):
    right = processes.target
    monkeypatch.setattr(processes, "target", lambda kind, *rest: (-1 if kind == "v" else 1) * right(kind, *rest))
    rows = {f"{name}: eps, x0 and v give x0 back" for name in processes.processes()}
    assert failed(processes.process_checks()) == rows


# ---- the bound


@pytest.mark.parametrize(
    ("what", "change", "least"),
    [
        ("posteriors", lambda q: q._replace(pull=1.001 * q.pull), 7),
        ("posteriors", lambda q: q._replace(small=0.99 * q.small), 5),
        ("posteriors", lambda q: q._replace(large=1.01 * q.large), 3),
        ("bound_term", lambda term: 1.0001 * term, 7),
        ("log_likelihood_of_bins", lambda log_p: log_p + 1e-9, 1),
    ],
)
def test_the_bound_sees_what_is_wrong(monkeypatch, what, change, least):
    right = getattr(bound, what)
    monkeypatch.setattr(bound, what, lambda *args: change(right(*args)))
    assert len(failed(bound.bound_checks())) >= least


def test_a_decoder_of_another_width_is_seen(monkeypatch):
    """Its probabilities add up to 1 all the same."""
    right = bound.log_likelihood_of_bins
    monkeypatch.setattr(bound, "log_likelihood_of_bins", lambda x0, mean, wide: right(x0, mean, wide + 1e-6))
    assert failed(bound.bound_checks()) == {"probability of each of 256 grey levels"}


# ---- images


def test_noise_that_is_one_stream_for_the_batch_is_seen(monkeypatch):
    class Shared(seeds.SeededNoise):
        def __call__(self, x):
            return torch.empty_like(x).normal_(generator=self.generators[0])

    monkeypatch.setattr(seeds, "SeededNoise", Shared)
    rows = {f"{what}: by {size} against all 7 at once" for what in ("noise", "images") for size in (1, 2)}
    assert failed(seeds.seed_checks()) == rows


def test_pictures_that_look_at_their_neighbours_are_seen(monkeypatch):
    right = seeds.Denoiser
    monkeypatch.setattr(
        seeds, "Denoiser", lambda *args: lambda x, level: right(*args)(x, level) + 1e-3 * x.mean(0, keepdim=True)
    )
    rows = {f"images: by {size} against all 7 at once" for size in (1, 2)}
    assert failed(seeds.seed_checks()) == rows


def test_one_seed_for_all_is_seen(monkeypatch):
    monkeypatch.setattr(seeds, "SeededNoise", lambda parts: pictures.SeededNoise([0] * len(parts)))
    assert failed(seeds.seed_checks()) == {"other seeds are other images"}


def test_checking_seeds_draws_nothing_from_the_callers_generator():
    state = torch.get_rng_state()
    seeds.seed_checks()
    assert torch.equal(torch.get_rng_state(), state)


def test_the_reference_on_pictures_is_the_exact_flow():
    """Runge-Kutta on Gaussian pixels, for which the flow is known."""
    process = GaussianDiffusion()
    x = torch.linspace(-3, 3, 9, dtype=torch.float64).view(1, 1, 3, 3)
    expected = GAUSSIAN.flow(x, process.level(common.NOISIEST), process.level(pictures.END))
    torch.testing.assert_close(pictures.runge_kutta(x, process, GAUSSIAN.denoise), expected, rtol=1e-9, atol=1e-9)


def coarse(step):
    return lambda *args: (step(*args)[0].half().to(args[0]), None) if args[0].dtype == torch.float32 else step(*args)


def short_of_the_end(step):
    return lambda x, now, nxt, *rest: (x, None) if nxt.sigma == 0 else step(x, now, nxt, *rest)


@pytest.mark.parametrize(
    ("broken", "rows"),
    [
        (lambda step: SAMPLERS["ddim"], {"dpmpp_2m: order"}),
        (coarse, {"dpmpp_2m: float32 against float64"}),
        (short_of_the_end, {"dpmpp_2m: ends on an image of the set"}),
    ],
    ids=["of order one", "rounds", "stops short"],
)
def test_pictures_see_what_is_wrong(monkeypatch, broken, rows):
    only(monkeypatch, "dpmpp_2m")
    monkeypatch.setitem(SAMPLERS, "dpmpp_2m", broken(SAMPLERS["dpmpp_2m"]))
    assert failed(pictures.picture_checks()) == rows
