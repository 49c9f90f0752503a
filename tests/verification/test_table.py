"""`bytepixels verify`: it passes as things are, and every check fails when what it checks is broken."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from bytepixels import SAMPLERS, RectifiedFlow, Sampler, SeededNoise
from bytepixels.core import multistep, samplers
from bytepixels.core.exact_denoisers import GAUSSIAN
from bytepixels.events import Progress, listening
from bytepixels.verification import Check, bound, exact, moments, orders, seeds, suite, verify
from bytepixels.verification import table as verb
from bytepixels.verification.check import log_snr_grid
from bytepixels.verification.table import row
from tests.core.test_samplers import affine
from tests.tiny import cli, pixels_of

PROCESSES = ("VP", "EDM", "flow")
EXPONENTIAL = ("exp_euler", "exp_2m", "exp_2c")


def failed(checks):
    return {check.name for check in checks if not check.passed}


def only(monkeypatch, *names):
    """Leave these samplers, to be quick; ddpm and ddim are what others are compared with."""
    for name in set(SAMPLERS) - {"ddpm", "ddim", *names}:
        monkeypatch.delitem(SAMPLERS, name)


def section(title, *checks):
    """A section of finished checks; an exception among them is raised."""

    def run():
        for check in checks:
            if isinstance(check, Exception):
                raise check
            yield check

    return suite.Section(title, "What it is about.", run)


# ---- the function and the verb


@pytest.mark.slow
def test_everything_passes_on_this_machine(tmp_path, capsys):
    assert cli("verify", "--out", tmp_path / "out") == 0
    *rows, last = capsys.readouterr().out.splitlines()
    passed = [line for line in rows if "  ok" in line]
    assert not any("FAIL" in line for line in rows)
    assert last.startswith(f"{len(passed)} checks, all passed in ")
    assert last.endswith(f"plot: {tmp_path / 'out' / 'verify.png'}")
    assert len(passed) > 60
    for name in SAMPLERS:
        assert sum(name in line for line in passed) >= 2
    assert pixels_of(tmp_path / "out" / "verify.png").std() > 10
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["verify.png"]


def test_from_python_it_returns_a_check_for_every_row_and_tells_its_progress(monkeypatch, capsys):
    monkeypatch.setattr(suite, "SECTIONS", [section("One", Check("a", 1, 1), Check("b", 2, 1)), section("Two")])
    events = []
    with listening(events.append):
        checks = verify()
    assert [(check.section, check.name, check.measured, check.passed) for check in checks] == [
        ("One", "a", 1, True),
        ("One", "b", 2, False),
    ]
    assert all(0 <= check.seconds < 1 for check in checks)
    told = [event for event in events if isinstance(event, Progress)]
    assert [(event.done, event.total, event.note) for event in told] == [(0, 2, "a"), (0, 2, "b"), (2, 2, "")]
    assert capsys.readouterr().out == ""


def test_a_lower_order_than_promised_is_seen_and_the_exit_code_says_so(tmp_path, capsys, monkeypatch):
    only(monkeypatch, "dpmpp_3m")
    monkeypatch.setitem(SAMPLERS, "dpmpp_3m", replace(SAMPLERS["dpmpp_3m"], place=multistep.dpmpp_2m_step))
    monkeypatch.setattr(suite, "SECTIONS", [suite.ORDERS])
    assert cli("verify", "--out", tmp_path) == 1
    said = capsys.readouterr().out
    names = "; ".join(f"{suite.ORDERS.title}: dpmpp_3m, {process}" for process in PROCESSES)
    assert f"checks, 3 FAILED ({names}) in " in said
    assert said.count("FAIL ") == 3
    assert (tmp_path / "verify.png").is_file()


def test_a_section_that_breaks_is_a_failure_and_the_others_still_run(tmp_path, capsys, monkeypatch):
    broken = section(suite.ORDERS.title, Check("begun", 0), RuntimeError("no such thing"))
    sections = [broken, section("Two", Check("fine", 1, 1))]
    for module in (suite, verb):
        monkeypatch.setattr(module, "SECTIONS", sections)
    assert cli("verify", "--out", tmp_path) == 1
    said = capsys.readouterr().out
    assert "FAIL  RuntimeError: no such thing" in said
    assert f"3 checks, 1 FAILED ({suite.ORDERS.title}: could not be finished) in " in said
    assert said.count("What it is about.") == 2
    assert list(tmp_path.iterdir()) == []  # no order was measured, no plot


def test_out_that_cannot_be_is_one_sentence(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert cli("verify", "--out", tmp_path / "file") == 2
    assert capsys.readouterr().err.startswith(f"bytepixels: --out: the folder {tmp_path / 'file'} cannot be made")


@pytest.mark.parametrize(
    ("check", "passed"),
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
def test_what_passes(check, passed):
    assert check.passed is passed
    assert ("FAIL" in row(check)) is not passed


def test_a_row_says_what_was_measured_what_should_be_and_why():
    check = Check("heun, VP", 2.0075, 2, 0.15, {128: 1.8e-4, 512: 1.1e-5}, "odd")
    assert row(check).split() == "heun, VP 2.0075 2 ± 0.15 ok odd; error 1.8e-04 in 128 steps, 1.1e-05 in 512".split()
    assert row(Check("mean", 7.2e-16, 0, 1e-12)).split() == "mean 7.2e-16 0 ± 1e-12 ok".split()


# ---- orders and moments


def test_a_sampler_without_an_expected_order_fails(monkeypatch):
    only(monkeypatch)
    monkeypatch.setitem(SAMPLERS, "mine", samplers.heun_step)
    checks = list(orders.order_checks())
    assert failed(checks) == {f"mine, {process}" for process in PROCESSES}
    assert [one.measured for one in checks if one.name in failed(checks)] == pytest.approx([2, 2, 2], abs=0.02)
    assert "no order is known" in checks[-1].note


def test_ipndm_with_three_weights_is_of_order_three(monkeypatch):
    weights = multistep.ipndm_step.__globals__["ADAMS_BASHFORTH"]
    monkeypatch.setitem(multistep.ipndm_step.__globals__, "ADAMS_BASHFORTH", (*weights[:3], (*weights[2], 0.0)))
    checks = list(orders.sampler_checks("ipndm", "ipndm", orders.even_grid, orders.EVEN_ORDERS["ipndm"]))
    assert failed(checks) == {f"ipndm, {process}" for process in PROCESSES}
    assert [check.measured for check in checks] == pytest.approx([3, 3, 3], abs=0.3)


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


@pytest.mark.parametrize(
    ("name", "broken", "rows"),
    [
        ("ddpm", lambda step: louder(step, 1.02), {f"variance of ddpm, {p}" for p in PROCESSES}),
        ("ddpm", shifted, {"mean of ddpm, all processes"}),
        ("ddpm", lambda step: louder(step, 1 + 1e-8), {f"ddim (eta 1) minus ddpm, {p}" for p in PROCESSES}),
        ("ddim", lambda step: louder(step, 1.02), {f"variance of ddim (eta 1), {p}" for p in PROCESSES}),
        ("dpmpp_sde_2m", forgetful, {f"variance of dpmpp_sde_2m, {p}" for p in PROCESSES}),
    ],
    ids=["loud ddpm", "shifted ddpm", "ddpm is not ddim", "loud ddim", "forgetful sde"],
)
def test_moments_see_what_is_wrong(monkeypatch, name, broken, rows):
    monkeypatch.setitem(SAMPLERS, name, replace(SAMPLERS[name], place=broken(SAMPLERS[name])))
    assert rows <= failed(moments.moment_checks())


def test_a_noisy_sampler_without_an_expected_order_fails(monkeypatch):
    monkeypatch.setitem(SAMPLERS, "mine", Sampler(SAMPLERS["ddpm"], stochastic=True))
    assert failed(moments.moment_checks()) == {f"variance of mine, {p}" for p in PROCESSES}


# ---- the bound


@pytest.mark.parametrize(
    ("what", "change", "least"),
    [
        ("posteriors", lambda q: q._replace(coef_x0=1.001 * q.coef_x0), 7),
        ("posteriors", lambda q: q._replace(variance=0.99 * q.variance), 5),
        ("posteriors", lambda q: q._replace(beta=1.01 * q.beta), 3),
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
    assert failed(bound.bound_checks()) == {"decoder: error of the probabilities"}


# ---- images


def test_noise_that_is_one_stream_for_the_batch_is_seen(monkeypatch):
    class Shared(seeds.SeededNoise):
        def __call__(self, x):
            return torch.empty_like(x).normal_(generator=self.generators[0])

    monkeypatch.setattr(seeds, "SeededNoise", Shared)
    rows = {f"{what}, batches of {size}" for what in ("noise", "images") for size in (1, 2)}
    assert failed(seeds.seed_checks()) == rows


def test_images_that_look_at_their_neighbours_are_seen(monkeypatch):
    right = seeds.Denoiser
    monkeypatch.setattr(
        seeds, "Denoiser", lambda *args: lambda x, level: right(*args)(x, level) + 1e-3 * x.mean(0, keepdim=True)
    )
    rows = {f"images, batches of {size}" for size in (1, 2)}
    assert failed(seeds.seed_checks()) == rows


def test_one_seed_for_all_is_seen(monkeypatch):
    monkeypatch.setattr(seeds, "SeededNoise", lambda parts: SeededNoise([0] * len(parts)))
    assert failed(seeds.seed_checks()) == {"pairs of seeds with the same image"}


def test_checking_seeds_draws_nothing_from_the_callers_generator():
    state = torch.get_rng_state()
    list(seeds.seed_checks())
    assert torch.equal(torch.get_rng_state(), state)


# ---- exponential integration of Gaussian data


def test_the_exponential_integrators_are_exact_and_a_wrong_deviation_is_seen(monkeypatch):
    assert failed(exact.exact_checks()) == set()
    assert len(list(exact.exact_checks())) == len(EXPONENTIAL) + 1
    monkeypatch.setitem(SAMPLERS, "exp_2m", replace(SAMPLERS["exp_2m"], place="core.samplers.ddim_step", bound={}))
    monkeypatch.setattr(exact, "step_of", lambda name, process: SAMPLERS[name])  # 1, where EDM's data have 0.5
    assert failed(exact.exact_checks()) == {f"{name}, all processes" for name in EXPONENTIAL}
