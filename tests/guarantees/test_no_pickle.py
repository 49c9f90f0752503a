"""No pickle on any load path, read from the source: whoever opens a file of somebody else's runs none of their code."""

import ast
from pathlib import Path

import pytest

import bytepixels

PACKAGE = Path(bytepixels.__file__).parent
SOURCES = {path.relative_to(PACKAGE).as_posix(): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}
# CIFAR-10 is published as pickles; tests/data/test_untrusted_pickles.py holds what this reader lets through.
RESTRICTED = "data/sources/official_files.py"
# TorchScript is read by torch's C++, which makes no Python objects and runs no Python; which file, the user says.
SCRIPTS = {"metrics/features.py": "torch.jit.load", "training/perceptual.py": "torch.jit.load"}
# One file of one package, whose sha256 is compared first, with weights_only.
SCRIPTS |= {"metrics/imagenet.py": "torch.load"}
UNPICKLERS = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle"}
LOADERS = {("torch", "load"), ("torch", "jit"), ("numpy", "load"), ("pandas", "read_pickle"), ("torch", "package")}


def dotted(node: ast.expr) -> tuple[str, ...]:
    """np.load -> ("np", "load"); () for what is no chain of names."""
    if isinstance(node, ast.Attribute):
        above = dotted(node.value)
        return (*above, node.attr) if above else ()
    return (node.id,) if isinstance(node, ast.Name) else ()


def finds(source: str) -> list[str]:
    """What in a source could unpickle, as "line: what"."""
    tree, names, found = ast.parse(source), {}, []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
                if UNPICKLERS & set(alias.name.split(".")):
                    found.append(f"{node.lineno}: import {alias.name}")
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                if UNPICKLERS & {*node.module.split("."), alias.name}:
                    found.append(f"{node.lineno}: from {node.module} import {alias.name}")
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        full = tuple(".".join((names.get(name[0], name[0]), *name[1:])).split(".")) if name else ()
        if full[:2] not in LOADERS:
            continue
        refuses = any(word.arg == "allow_pickle" and ast.unparse(word.value) == "False" for word in node.keywords)
        if full != ("numpy", "load") or not refuses:
            found.append(f"{node.lineno}: {ast.unparse(node.func)}")
    return found


@pytest.mark.parametrize("name", SOURCES)
def test_nothing_unpickles(name):
    if name != RESTRICTED:
        found = [what for what in finds(SOURCES[name]) if what.split(": ")[1] != SCRIPTS.get(name)]
        assert found == []


def test_the_one_reader_of_pickles_is_the_restricted_one():
    assert [one.split(": ")[1] for one in finds(SOURCES[RESTRICTED])] == ["import pickle"]
    assert "pickle.load" not in SOURCES[RESTRICTED]
    assert SOURCES[RESTRICTED].count("pickle.Unpickler") == 1  # what _ArrayUnpickler derives from


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "import numpy as np, cloudpickle",
        "from pickle import loads",
        "from torch import serialization, load\nload(path)",
        "import torch\ntorch.load(path, weights_only=True)",
        "import torch as t\ndef later():\n    t.load(path)",
        "import numpy as np\nnp.load(path)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import numpy\nnumpy.load(path, allow_pickle=maybe)",
        "from numpy import load as read\nread(path)",
        "import torch\ntorch.jit.load(path)",
    ],
)
def test_the_reader_sees_every_form(line):
    assert finds(line) != []


def test_the_reader_lets_others_be():
    assert finds("import json, numpy as np\njson.load(file)\nnp.load(path, allow_pickle=False)\nself.load(1)") == []
