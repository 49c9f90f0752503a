"""Who may import whom, read from the source; and what `import bytepixels` costs."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import bytepixels
from bytepixels.registries import NETWORKS, OBJECTIVES, PROCESSES, SAMPLERS, SCHEDULES, WEIGHTINGS
from bytepixels.verbs import PAGE, VERBS, loaded

PACKAGE = Path(bytepixels.__file__).parent
MODULES = {
    ".".join(("bytepixels", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
CORE = """schedules levels posterior continuous gaussian_diffusion prediction denoiser multistep flow_map exponential
samplers weighting timestep_sampling objectives losses flow_map_loss likelihood editing exact_denoisers
own_grid linear_operators inverse_problems recipe""".split()
LEAVES = set(
    "choices registries console errors events randomness signals spellings stopping threads verbs wording".split()
)
GROUND = LEAVES | {"distributed", "files", "hardware", "heap", "images", "memory", "version"}
ROOMS = {  # who may import whom, beside the ground
    "core": "",
    "networks": "",
    "data": "",
    "config": "core",
    "requests": "config core data",
    "codec": "networks data",
    "text": "data",
    "build": "config core networks codec",
    "runs": "config data codec",
    "metrics": "core codec networks",
    "interop": "build networks core runs config requests",
    "verification": "core networks codec data runs",
    "sampling": "build runs config requests codec data text interop core networks",
}
ROOMS |= dict.fromkeys(("training", "evaluation"), f"sampling metrics {ROOMS['sampling']}")
ROOMS["report"] = f"evaluation metrics sampling {ROOMS['sampling']}"
ROOMS["export"] = f"sampling {ROOMS['sampling']}"
ROOMS["cli"] = "api config requests"
TOP = {"api", "public", "__main__"}  # which may import anything
HEAVY = {
    "jinja2",
    "matplotlib",
    "scipy",
    "sklearn",
    "pooch",
    "tyro",
    "rich",
    "PIL",
    "tensorboard",
    "wandb",
    "diffusers",
    "transformers",
    "pyarrow",
    "huggingface_hub",
}


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


def allowed(module: str, other: str) -> bool:
    """Whether the table lets `module` import `other`."""
    room, found = part(module), part(other)
    if found in (room, "version") or room in (*TOP, ""):
        return True
    if room == "cli" and found in GROUND - LEAVES - {"heap", "memory"}:
        return False
    if room in LEAVES:
        return found in LEAVES
    return found in GROUND | set(ROOMS.get(room, "").split())


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_downwards(module):
    wrong = [other for other in imported(module) if not allowed(module, other)]
    assert wrong == []


@pytest.mark.parametrize("module", MODULES)
def test_charts_leave_the_pyplot_of_a_notebook_as_it_is(module):
    """Its backend and its open figures are those of the whole process."""
    assert "pyplot" not in MODULES[module].read_text()
    assert "matplotlib.use" not in MODULES[module].read_text()


def test_there_are_no_circles():
    """Not even by imports inside functions."""
    above, done = [], set()

    def visit(module):
        assert module not in above, " -> ".join([*above[above.index(module) :], module])
        if module not in done:
            above.append(module)
            for other in imported(module) & MODULES.keys() - {module}:
                visit(other)
            done.add(above.pop())

    for module in MODULES:
        visit(module)


@pytest.mark.parametrize("name", CORE)
def test_the_core_reads_from_schedules_to_likelihood(name):
    found = {other.split(".")[2] for other in imported(f"bytepixels.core.{name}") if part(other) == "core"}
    assert found <= set(CORE[: CORE.index(name)])


def test_the_core_is_all_there():
    assert {path.stem for path in (PACKAGE / "core").glob("*.py")} == {*CORE, "__init__"}


def test_the_reader_of_imports_sees_every_form():
    source = """
import torch, bytepixels.codec.codec
from . import unet as u, __version__
from ..core import samplers
from ..errors import InputError
from bytepixels.core import losses, posterior
def later():
    from ...outside import x
    from ..training import loop
    from ..training.loop import TrainState
"""
    parts = [
        "codec.codec",
        "networks.unet",
        "core.samplers",
        "errors",
        "core.losses",
        "core.posterior",
        "training.loop",
    ]
    expected = {f"bytepixels.{name}" for name in parts}
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
from bytepixels.cli.main import main
for line in {HELP}:
    try:
        main(line.split())
    except SystemExit:
        pass
    came = {HEAVY - {"tyro"} | {"torch", "numpy"}} & set(sys.modules)
    assert not came, (line, came)
"""
    python(code)


ROOT = PACKAGE.parents[1]


@pytest.mark.parametrize("path", sorted([*ROOT.glob("bench/*.py"), *ROOT.glob("examples/*.py")]), ids=lambda p: p.name)
def test_what_a_benchmark_or_an_example_imports_is_there(path):
    """They are called too seldom to notice by themselves that a name has moved."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "bytepixels":
            home = import_module(node.module)
            for alias in node.names:
                assert hasattr(home, alias.name) or f"{node.module}.{alias.name}" in MODULES, alias.name


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_is_listed_and_what_does_it_is_there(name):
    verb = VERBS[name]
    assert f"\n  {name} " in PAGE
    assert all(callable(loaded(place)) for place in (verb.request, verb.service, verb.command) if place)


def test_the_first_page_loads_next_to_nothing():
    code = "import sys; sys.argv[1:] = ['--help']; from bytepixels.__main__ import main; main(); print(*sys.modules)"
    said = python(code)
    assert "bytepixels train digits" in said
    assert not {"tyro", "bytepixels.cli.main", "dataclasses"} & set(said.splitlines()[-1].split())


def test_every_public_name_is_there_and_modules_too():
    assert python(
        """
import bytepixels
print(bytepixels.SAMPLERS is bytepixels.registries.SAMPLERS, set(bytepixels.__all__) <= set(dir(bytepixels)))
from bytepixels import *
print(DiT.__name__, sample.__module__, hasattr(bytepixels, "nothing"))
"""
    ).split() == ["True", "True", "DiT", "bytepixels.core.losses", "False"]


def test_every_entry_of_a_registry_is_where_it_says():
    for registry in (SCHEDULES, SAMPLERS, WEIGHTINGS, OBJECTIVES, PROCESSES, NETWORKS):
        for entry in registry.values():
            module, _, name = entry.place.rpartition(".")
            assert getattr(import_module(f"bytepixels.{module}"), name).__module__ == f"bytepixels.{module}"


def test_names_and_facts_are_known_without_torch():
    code = "import sys, bytepixels.config.run, bytepixels.registries; print({'torch', 'numpy'} & set(sys.modules))"
    assert python(code).strip() == "set()"
