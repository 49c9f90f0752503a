"""The reader's map: every file, line and name that it points to is there, and its code runs."""

import re
from pathlib import Path

import pytest

import bytepixels
from bytepixels.registries import NETWORKS, OBJECTIVES, PROCESSES, SAMPLERS, SCHEDULES
from bytepixels.verbs import VERBS

ROOT = Path(bytepixels.__file__).parents[2]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"])
CODE = [
    (path.name, code)
    for path in sorted((ROOT / "docs/change").glob("*.md"))
    if (code := "\n".join(re.findall(r"```python\n(.*?)```", path.read_text(), re.S)))
]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_page_links_to_is_there(page):
    for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert link.startswith("http") or (page.parent / link).exists(), link


def test_every_equation_is_on_the_line_that_the_map_names():
    rows = re.findall(r"\]\(\.\./(src[^)]+)\) \| `(.+?)` \|", (ROOT / "docs/reading.md").read_text())
    assert len(rows) == 12
    for path, line in rows:
        assert line in (ROOT / path).read_text(), (path, line)
        assert len((ROOT / path).read_text().splitlines()) <= 180, f"{path} does not fit on two screens"


@pytest.mark.parametrize(("page", "code"), CODE, ids=[name for name, _ in CODE])
def test_the_code_of_a_page_runs(page, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for registry in (NETWORKS, OBJECTIVES, PROCESSES, SAMPLERS, SCHEDULES, VERBS):  # what it adds is gone after it
        for name in ("blank", "double", "exponential", "huber", "mine"):
            monkeypatch.setitem(registry, name, None)
            monkeypatch.delitem(registry, name)
    exec(compile(code, page, "exec"), {})


def test_names_in_the_notation_are_names_in_the_code():
    source = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    for name in re.findall(r"^\| [^|]+ \| `(?:Level\.)?(\w+)", (ROOT / "docs/notation.md").read_text(), re.M):
        assert re.search(rf"\b{name}\b", source), name
