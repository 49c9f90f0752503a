"""What the README shows works as it stands: its Python runs, and the flags of its commands are there."""

import re
import shlex
from pathlib import Path

import pytest
import torch

from bytepixels.cli.parsing import Line
from tests.cli.test_help_text import KINDS

PAGES = [Path(__file__).parents[2] / name for name in ("README.md", "docs/cluster.md", "docs/article.md")]
TEXT = {page.name: page.read_text() for page in PAGES}
PYTHON = re.findall(r"```python\n(.*?)```", TEXT["README.md"], re.DOTALL)
COMMANDS = {
    line.split(" #")[0].strip()
    for text in TEXT.values()
    for line in re.findall(r"^(?:.*torchrun.* -m )?(bytepixels .*)$", text, re.MULTILINE)
}


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: block.splitlines()[-1])
def test_python_blocks_run_as_they_stand(block, tmp_path, monkeypatch):
    found = {}
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    exec(block, found)
    last = found["x"]
    assert last.ndim == 4
    assert last.isfinite().all()


def test_there_is_something_to_try():
    assert len(PYTHON) == 3
    assert len(COMMANDS) > 15


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_commands_have_the_flags_that_they_are_shown_with(command):
    words = [word for word in shlex.split(re.sub(r"[\[\]]", "", command))[1:] if word != "--"]
    verb = next((verb for n in (3, 2, 1) if (verb := " ".join(words[:n])) in KINDS), None)
    assert verb, words
    bits = verb == "evaluate" and {"--bits", "--loss"} & set(words)
    Line(verb, KINDS["evaluate bits" if bits else verb], words[len(verb.split()) :])
