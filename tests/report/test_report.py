"""report RUN: one file that fetches nothing, says what was measured, and survives what is missing or hostile."""

import json
import math
import re
import shutil
import tomllib
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest

import bytepixels
from bytepixels.files import read_sealed, write_sealed
from bytepixels.report.charts import noise_level_chart
from tests.tiny import cli, plain, snapshot, train, words

VOID = {"meta", "link", "img"}


class Reader(HTMLParser):
    """The text of a page, its tags and attributes; fails where tags do not match."""

    def __init__(self, page):
        super().__init__()
        self.open, self.attributes, self.tags, self.words, self.images = [], [], [], [], Counter()
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag == "img":
            self.images[re.match("data:image/(png|svg)", dict(attributes)["src"])[1]] += 1
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def report(*runs, flags=()):
    assert cli("report", *runs, *flags) == 0
    path = runs[0] / "report.html"
    return Reader(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def measured(run):
    """The small run with everything measured, and grids on the way."""
    assert cli("evaluate", run, "-n", 40) == 0
    assert cli("evaluate", run, "--loss", "-n", 20) == 0
    assert cli("compare", run, *words("--steps 2 4 --samplers ddim -n 20")) == 0
    shutil.copy(run / "evaluate" / "samples.png", run / "samples" / "images-000000320.png")
    return run


def test_the_file_fetches_nothing(measured):
    page = report(measured)
    assert "script" not in page.tags
    for name, value in page.attributes:
        assert name not in ("srcset", "action", "poster")
        assert not name.startswith("on")
        if name in ("src", "href"):
            assert value.startswith(("data:", "#"))
    raw = (measured / "report.html").read_text()
    assert "url(" not in raw
    assert "@import" not in raw
    assert "default-src 'none'" in raw
    assert "viewport" in raw
    assert "prefers-color-scheme: dark" in raw


def test_it_says_what_was_measured(measured):
    page = report(measured)
    lines = [json.loads(line) for line in (measured / "eval.jsonl").read_text().splitlines()]
    quality = next(one for one in reversed(lines) if one["kind"] == "quality")
    assert f"{quality['frechet_distance']:.4g}" in page.text
    assert quality["reference"]["source"] in page.text
    for heading in (
        "Samples",
        "Nearest training images",
        "Out of the noise",
        "Over time",
        "How good",
        "How many steps",
    ):
        assert heading in page.text
    for chart in ("Training loss", "Error at every noise level", "Brightness", "Power spectrum, dB", "Learning rate"):
        assert chart in page.text
    assert "FID" not in page.text
    assert "bytepixels train" in page.text
    assert f"bytepixels evaluate {measured} -n 40 --features random --seed 0 --sampler ddim --steps 3" in page.text
    assert page.images["svg"] == 1 + 2 + 2 + 1 + 4  # ladder, drift, compare, loss by level, training
    assert page.images["png"] == 4  # samples, neighbours, the strip, a grid on the way
    assert all(value for name, value in page.attributes if name == "alt")


def test_a_run_of_which_nothing_is_known_has_a_report(tmp_path):
    assert train(tmp_path / "bare", steps=1) == 0
    page = report(tmp_path / "bare", flags=["--strip", 0])
    assert "Not measured yet: bytepixels evaluate" in page.text
    assert page.images["png"] == 0
    (tmp_path / "bare" / "log.jsonl").unlink()
    (tmp_path / "bare" / "eval.jsonl").write_text('{"kind": "bits"}\nno json\n[]\n')
    report(tmp_path / "bare")


def test_two_runs_side_by_side(measured, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(measured, other)
    assert cli("evaluate", other, "-n", 24) == 0
    page = report(measured, other, flags=["--out", measured / "report.html"])
    assert "Side by side" in page.text
    assert "These distances are not comparable" in page.text
    assert page.images["svg"] == 4 + 2 * 10
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(set(ids)) == len(ids)
    assert {value for name, value in page.attributes if name == "href" and value[0] == "#"} == {"#run-0", "#run-1"}


def test_names_from_outside_are_only_ever_text(measured, tmp_path):
    hostile = tmp_path / "<img src=x onerror=alert(1)>"
    shutil.copytree(measured, hostile)
    saved = read_sealed(hostile / "config.json")
    saved["data"].pop("source_beside")
    saved["data"]["source"] = "</pre><script>alert(1)</script>"
    saved["config"]["data"]["background"] = "<img src=y onerror=alert(2)>"
    write_sealed(hostile / "config.json", saved)
    page = report(hostile, flags=["--strip", 0])
    assert "script" not in page.tags
    assert not any(name.startswith("on") for name, _ in page.attributes)
    assert "</pre><script>alert(1)</script>" in page.text
    assert "<img src=y onerror=alert(2)>" in page.text


def test_hostile_names_in_charts_and_legends_are_text_too(measured, tmp_path):
    """$ would be mathematics to matplotlib, and a leading _ hides a name from its legends."""
    hostile = tmp_path / "_$x^{$<script>"
    shutil.copytree(measured, hostile)
    name = "</svg><script>alert(3)</script>"
    lines = [json.loads(line) for line in (hostile / "eval.jsonl").read_text().splitlines()]
    for line in lines:
        line.setdefault("features", {})["name"] = name
        line.setdefault("floor", {})["of"] = "<b>held out</b>"
    (hostile / "eval.jsonl").write_text("\n".join(map(json.dumps, lines)))
    page = report(measured, hostile, flags=["--strip", 0])
    assert not {"script", "b"} & set(page.tags)
    assert page.text.count("_$x^{$<script>") > 2 + 4  # links and headings, and the legends of training
    assert "floor: <b>held out</b>" in page.text
    assert f"Frechet distance (features {name})" in page.text


def test_of_the_same_run_the_file_is_the_same(measured, tmp_path):
    for name in ("one", "two"):
        assert cli("report", measured, "--strip", 1, "--out", tmp_path / name) == 0
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_the_template_comes_along_in_a_wheel():
    """What is no Python does only where pyproject.toml names it."""
    package = Path(bytepixels.__file__).parent
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["bytepixels"]
    assert package / "report/template.html" in {path for pattern in patterns for path in package.glob(pattern)}


def test_nothing_of_the_run_changes_but_the_report(measured):
    (measured / "report.html").unlink(missing_ok=True)
    before = snapshot(measured)
    report(measured)
    after = snapshot(measured)
    assert after.pop("report.html")
    assert after == before


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [("nowhere", "nowhere is not a run"), ("--strip 65", "--strip must be in 0..64, got 65")],
)
def test_what_is_refused(measured, capsys, flags, sentence):
    assert cli("report", measured, *words(flags)) == 2
    assert sentence in plain(capsys.readouterr().err)


def test_errors_of_equal_images_are_no_shares_of_a_guess_that_makes_none():
    black = [[0.5, 0.1], [0.25, 0.1]]
    record = {"log_snr": [0.0, 1.0], "errors": {"training": black, "ideal": black, "trivial": [[0.0, 0.0], [0.5, 0.0]]}}
    training, ideal = noise_level_chart(record).series
    assert math.isnan(training.y[0])
    assert training.y[1] == ideal.y[1] == 0.5
