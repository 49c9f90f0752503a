"""Who may import whom, read from the source; and what `import bytepixels` costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import bytepixels
from bytepixels import choices

PACKAGE = Path(bytepixels.__file__).parent
MODULES = {
    ".".join(("bytepixels", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
CORE = """schedules levels posterior continuous process prediction denoise multistep samplers weighting importance
training likelihood editing""".split()
LEAVES = {"choices", "errors", "randomness", "spellings", "threads", "words"}
TOP = {"cli", "firstpage", "flags", "helptext", "parsing", "verbs", "__main__"}
HEAVY = {"matplotlib", "scipy", "sklearn", "pooch", "tyro", "rich", "PIL", "tensorboard", "diffusers", "transformers"}


def imported(module: str) -> set[str]:
    """Full names of every bytepixels module that `module` imports, at its top or inside a function."""
    return imported_by(MODULES[module].read_text(), module, is_package=MODULES[module].name == "__init__.py")


def imported_by(source: str, module: str, is_package: bool) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            home = module.split(".")[: len(module.split(".")) - node.level + is_package] if node.level else []
            base = ".".join([*home, *([node.module] if node.module else [])])
            names = {f"{base}.{alias.name}" for alias in node.names if alias.name != "__version__"}
            found |= {name if name in MODULES else base for name in names}
    return {name for name in found if name.split(".")[0] == "bytepixels"}


def part(module: str) -> str:
    """bytepixels.networks.unet -> networks; the package itself -> ''."""
    return [*module.split("."), ""][1]


def parts_imported(module: str) -> set[str]:
    return {part(name) for name in imported(module)} - {part(module)}


def allowed(name: str) -> set[str] | None:
    """The parts that part `name` may import; None where nothing is said."""
    if name in LEAVES:
        return LEAVES
    if name in CORE:
        return LEAVES | set(CORE[: CORE.index(name)])
    return {"networks": {"errors"}, "data": LEAVES, "interop": {"errors", "networks"}}.get(name)


def forbidden(name: str) -> set[str]:
    """The parts that part `name` must not import, whatever else it may."""
    if name in TOP:
        return set()
    engines = {"networks", "train"}  # which the losses of a first stage do not know, nor does a run
    own = {"train": {*CORE, "networks"}, "runs": engines, "reconstruction": engines}.get(name, set())
    whole = set() if name == "" else {""}  # the package imports its parts, never a part the package
    return own | whole | TOP | ({"build"} - {name})


@pytest.mark.parametrize("module", MODULES)
def test_imports_never_go_backwards(module):
    name, found = part(module), parts_imported(module)
    may = allowed(name)
    assert may is None or found <= may, f"{module} imports {sorted(found - may)}"
    assert not found & forbidden(name), f"{module} imports {sorted(found & forbidden(name))}"


def test_the_reader_of_imports_sees_every_form():
    source = """
import torch, bytepixels.codec
from . import unet as u, __version__
from .. import samplers
from ..errors import InputError
from bytepixels import process, sample
def later():
    from ...outside import x
    from ..training import diffusion_loss
"""
    parts = ["codec", "networks.unet", "samplers", "errors", "process", "training"]
    expected = {"bytepixels", *(f"bytepixels.{name}" for name in parts)}
    assert imported_by(source, "bytepixels.networks.dit", is_package=False) == expected
    assert imported_by("from .unet import UNet", "bytepixels.networks", is_package=True) == {"bytepixels.networks.unet"}


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_importing_costs_little_more_than_torch_and_nothing_heavy_comes_along():
    """Within one process, so that a busy machine slows both alike; the best of three."""
    code = """
import sys, time
start = time.process_time(); import torch, numpy
middle = time.process_time(); before = set(sys.modules); import bytepixels; bytepixels.sample
print((time.process_time() - start) / (middle - start), *{name.split(".")[0] for name in set(sys.modules) - before})
"""
    ratios = []
    for _ in range(3):
        ratio, *came_along = python(code).split()
        assert not HEAVY & set(came_along)
        ratios.append(float(ratio))
        if ratios[-1] <= 1.3:
            return
    pytest.fail(f"import bytepixels takes {min(ratios):.2f} times import torch")


HELP = (
    "--version",
    "--help",
    "train --help --preset digits",
    "train autoencoder --help",
    "train latent --help",
    "encode --help",
    "sample --help",
    "edit --help",
    "edit inpaint --help",
    "runs --help",
    "runs prune --help",
    "cache --help",
    "cache clear --help",
    "show --help",
    "data --help",
    "data doctor --help",
    "evaluate --help",
    "evaluate --bits --help",
    "evaluate train-features --help",
    "compare --help",
    "report --help",
    "verify --help",
)


def test_help_and_version_load_none_of_the_libraries_that_take_seconds():
    """Each in its turn in one process: what one of them had loaded would be there for all to see."""
    code = f"""
import sys
from bytepixels.cli import main
for line in {HELP}:
    try:
        main(line.split())
    except SystemExit:
        pass
    came = {HEAVY - {"tyro"} | {"torch", "numpy"}} & set(sys.modules)
    assert not came, (line, came)
"""
    python(code)


def test_the_first_page_loads_next_to_nothing():
    code = "import sys; sys.argv[1:] = ['--help']; from bytepixels.__main__ import main; main(); print(*sys.modules)"
    said = python(code)
    assert "bytepixels train digits" in said
    assert not {"tyro", "bytepixels.cli", "dataclasses"} & set(said.splitlines()[-1].split())


def test_every_public_name_is_there_and_modules_too():
    assert python(
        """
import bytepixels
print(bytepixels.SAMPLERS is bytepixels.samplers.SAMPLERS, set(bytepixels.__all__) <= set(dir(bytepixels)))
from bytepixels import *
print(DiT.__name__, sample.__module__, hasattr(bytepixels, "nothing"))
"""
    ).split() == ["True", "True", "DiT", "bytepixels.training", "False"]


def test_the_names_of_choices_are_those_of_the_registries():
    assert tuple(bytepixels.SAMPLERS) == choices.SAMPLERS
    assert tuple(bytepixels.SCHEDULES) == choices.SCHEDULES
    assert tuple(bytepixels.WEIGHTINGS) == choices.WEIGHTINGS
