"""compare RUN: the same seeds for every pair, what is counted, and what is refused before anything is drawn."""

import json
import math
from dataclasses import replace

import pytest

from bytepixels.config.sampling import SampleConfig
from bytepixels.evaluation.compare_rows import Row, as_good, table, verdict
from tests.evaluation.test_sample_quality import lines
from tests.tiny import cli, pixels_of, plain, words


def test_every_pair_is_measured_and_said(run, capsys):
    flags = words("--samplers ddim heun --steps 6 2 -n 24 --batch 16")
    assert cli("compare", run, *flags) == 0
    said = plain(capsys.readouterr().out)
    line = lines(run)[-1]
    assert line["kind"] == "compare"
    assert cli("runs", "show", run) == 0
    assert f"heun 6 {line['rows'][3]['frechet']['value']:.4g}" in plain(capsys.readouterr().out)
    assert [(row["sampler"], row["steps"], row["evaluations"]) for row in line["rows"]] == [
        ("ddim", 2, 2),
        ("ddim", 6, 6),
        ("heun", 2, 3),
        ("heun", 6, 11),
    ]
    assert all(row["frechet"]["interval"] > 0 and row["seconds_per_picture"] > 0 for row in line["rows"])
    assert line["floor"]["frechet"]["value"] < min(row["frechet"]["value"] for row in line["rows"])
    assert "24 held-out images" in said
    assert "24 images do not span the 192 dimensions" in said
    assert pixels_of(run / "evaluate" / "compare.png").shape[0] > 300
    assert cli("evaluate", run, "-n", 24, "--sampler", "ddim", "--steps", 6) == 0
    alone = lines(run)[-1]
    assert alone["frechet_distance"] == pytest.approx(line["rows"][1]["frechet"]["value"], rel=1e-4)


def row(sampler, steps, frechet, without):
    return Row(SampleConfig(sampler, steps), frechet, without, (0.0, 0.0), 0.1)


def test_as_good_is_judged_by_differences_on_the_same_seeds():
    """Both spread by the same seeds: a difference that is the same in every part is one, however wide the intervals."""
    best = row("ddim", 50, 10.0, [8.0, 12.0] * 5)
    worse = row("ddim", 5, 10.5, [8.5, 12.5] * 5)
    alike = row("ddim", 10, 10.5, [12.0, 9.0] * 5)
    assert worse.interval > 1
    assert not as_good(worse, best)
    assert as_good(alike, best)
    nearest, unsure = list(table([best, worse, alike], best, "held out", "FID", 64))[-2:]
    assert nearest == "Nearest: ddim with 50 evaluations."
    assert "64 samples are too few to tell ddim with 10 evaluations (10.5) from it (10); try -n 200,000" in unsure
    alone = "Best: ddim with 50 evaluations. None with fewer evaluations is as near."
    assert list(table([best], best, "held out", "FID", 64))[-1] == alone


def test_fewer_evaluations_win_where_they_are_shown_to_be_as_good():
    best = row("ddim", 50, 10.0, [8.0, 12.0] * 5)
    close = row("unipc_3", 10, 10.1, [8.1, 12.2] * 5)
    (said,) = verdict([best, close], 1000)
    assert said.startswith(
        "Best: unipc_3 with 10 evaluations: as near as ddim with 50 evaluations within 10%, with 5 t"
    )


def test_an_interval_that_there_is_not_is_not_shown():
    one = replace(row("ddim", 5, 1.0, [1.0, 1.0] * 5), kernel=(0.25, math.nan))
    assert not any("nan" in line for line in table([one], one, "held out", "FID", 16))


def test_grids_of_the_models_own_are_rows_of_their_own(run, capsys):
    assert cli("compare", run, *words("--samplers ddim --steps 3 --spacings auto own -n 16")) == 0
    said = capsys.readouterr().out
    assert "ddim, own grid" in said
    assert [one["spacing"] for one in lines(run)[-1]["rows"]] == ["trailing", "own"]
    assert cli("evaluate", run, *words("--spacing own --steps 3 -n 16")) == 0
    assert lines(run)[-1]["spacing"] == "own"


def test_what_was_measured_before_an_interruption_is_kept(run, monkeypatch, capsys):
    from bytepixels.evaluation.sample_quality import MatchedSampler

    draw, calls = MatchedSampler.draw, []

    def interrupted(self, *rest):
        calls.append(rest)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return draw(self, *rest)

    monkeypatch.setattr(MatchedSampler, "draw", interrupted)
    assert cli("compare", run, *words("--samplers ddim --steps 2 3 4 -n 16")) == 130
    assert [one["steps"] for one in lines(run)[-1]["rows"]] == [2]
    said = f"interrupted: 1 of 3 rows kept, which bytepixels report {run} shows\n"
    assert capsys.readouterr().err.endswith(said)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--samplers dimm", "did you mean 'ddim'"),
        ("--steps 5 21", "steps must be in 1..20, got 21"),
        ("--steps 5 5", "--steps must be one or more, each once, got 5 5"),
        ("--spacings own own", "--spacings must be one or more, each once, got own own"),
        ("--spacings karas", "did you mean 'karras'"),
        ("-n 3", "-n must be at least 16, got 3"),
        ("--features x", "--features must be auto, random"),
    ],
)
def test_what_is_refused(run, capsys, flags, sentence):
    before = json.dumps(lines(run))
    assert cli("compare", run, *words(flags)) == 2
    assert sentence in plain(capsys.readouterr().err)
    assert json.dumps(lines(run)) == before
