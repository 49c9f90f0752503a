"""push and pull: what is published of a run, and that a stranger's folder can do nothing but be a run."""

import http.server
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

import bytepixels as bp
from bytepixels.export import hub
from bytepixels.files import read_sealed, sha256, write_sealed
from bytepixels.runs.run_directory import open_run
from tests.tiny import cli, pixels_of, plain, train

COMMIT = "a" * 40


class Store:
    """A stand-in for huggingface_hub: repositories are folders below a root."""

    def __init__(self, root):
        self.root, self.fetched = root, []

    def HfApi(self):  # noqa: N802  (as the library names it)
        return self

    def create_repo(self, name, private=None, exist_ok=False):
        (self.root / name).mkdir(parents=True, exist_ok=exist_ok)

    def upload_folder(self, repo_id, folder_path, commit_message):
        subprocess.run(["cp", "-r", f"{folder_path}/.", self.root / repo_id], check=True)

    def model_info(self, name, revision=None, files_metadata=False):
        if not (self.root / name).is_dir():
            raise OSError("404: there is no such repository")
        files = [path for path in (self.root / name).rglob("*") if path.is_file()]
        names = [(path.relative_to(self.root / name).as_posix(), path.stat().st_size) for path in files]
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name, size=size) for name, size in names])

    def snapshot_download(self, name, revision=None, allow_patterns=(), local_dir=None):
        self.fetched = list(allow_patterns)
        for one in allow_patterns:
            (local_dir / one).parent.mkdir(parents=True, exist_ok=True)
            (local_dir / one).write_bytes((self.root / name / one).read_bytes())


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A hub with one run, me/tiny, in a folder to work in."""
    store = Store(tmp_path / "hub")
    monkeypatch.setattr(hub, "hub", lambda: store)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert train(tmp_path / "here/runs/own", steps=2) == 0
    assert cli("push", "runs/own", "me/tiny", "--license", "cc-by-4.0") == 0
    return store


def test_what_is_published_draws_the_same_elsewhere(store, capsys):
    """No path of this machine, no image of the training, no optimiser; a card that says what to type."""
    there = store.root / "me/tiny"
    names = sorted(path.relative_to(there).as_posix() for path in there.rglob("*") if path.is_file())
    step = next(name for name in names if name.endswith("state.json")).split("/")[1]
    checkpoint = [f"checkpoints/{step}/ema.safetensors", f"checkpoints/{step}/state.json"]
    assert names == sorted(["README.md", *checkpoint, "config.json", "log.jsonl", "samples.png"])
    for name in ("config.json", "README.md", "log.jsonl"):
        assert str(Path.cwd()) not in (there / name).read_text()
    card = (there / "README.md").read_text()
    assert card.startswith("---\nlicense: cc-by-4.0\n")
    assert "bytepixels pull me/tiny" in card
    assert "Not measured yet" in card
    assert cli("pull", "me/tiny") == 0
    assert "runs/tiny: the run of me/tiny" in capsys.readouterr().out
    for run in ("own", "tiny"):
        assert cli("sample", f"runs/{run}", "-n", 4, "--out", run) == 0
    apart = pixels_of(Path("own/grid.png")).astype(int) - pixels_of(Path("tiny/grid.png"))
    assert abs(apart).max() <= 2
    assert cli("pull", "me/tiny") == 2
    assert "runs/tiny is not empty" in capsys.readouterr().err
    Path("begun").mkdir()
    Path("begun/.lock").write_text("of a training that begins just now")
    assert cli("pull", "me/tiny", "--run", "begun") == 2
    assert Path("begun/.lock").is_file()
    Path("empty").mkdir()
    assert cli("pull", "me/tiny", "--run", "empty") == 0


def test_from_python(store):
    """The same code; an imported run, which has no images of its own, can be published too."""
    assert bp.Run.open("digits").push("me/more", "mit") == "https://huggingface.co/me/more"
    run = bp.pull("me/more", "there")
    assert run.classes == [str(k) for k in range(10)]
    assert run.sample(2, steps=4).shape == (2, 1, 8, 8)
    assert '--label "0"' in (store.root / "me/more/README.md").read_text()
    run.export("diffusers", out="folder")
    bp.import_run("folder", "imported").push("me/again", "mit", data="digits")
    card = (store.root / "me/again/README.md").read_text()
    assert "- Imported from folder, a UNet2DModel of diffusers" in card
    assert str(Path.cwd()) not in card


def test_the_card_has_what_was_measured(store, capsys):
    assert cli("evaluate", "runs/own", "-n", 32, "--features", "random", "--device", "cpu") == 0
    assert cli("push", "runs/own", "me/tiny", "--license", "mit", "--data", "Digits of hands", "--out", "look") == 0
    card = Path("look/README.md").read_text()
    value = json.loads(Path("runs/own/eval.jsonl").read_text())["measures"]["frechet"]["value"]
    assert f"frechet {value:.4g} ±" in card
    assert "features random" in card
    assert "Data: Digits of hands" in card
    assert not (store.root / "me/tiny/look").exists()
    assert cli("push", "runs/own", "me/tiny", "--license", "mit", "--out", "look") == 2
    assert "--out look is not empty" in capsys.readouterr().err


def test_only_what_a_run_consists_of_is_fetched(store):
    there = store.root / "me/tiny"
    for name in ("evil.py", "pickle.bin", "checkpoints/step-00000002/optimizer.pt", ".hidden/config.json"):
        (there / name).parent.mkdir(exist_ok=True)
        (there / name).write_text("no")
    assert cli("pull", "me/tiny") == 0
    assert "config.json" in store.fetched
    assert not set(store.fetched) & {"evil.py", "pickle.bin", ".hidden/config.json"}
    assert all(hub.FILES.fullmatch(name) for name in store.fetched)


@pytest.mark.parametrize(
    "name", ["../config.json", "/config.json", "a/config.json", "checkpoints/../config.json", "x.py"]
)
def test_names_that_lead_elsewhere(name):
    assert not hub.FILES.fullmatch(name)


def changed_config(there, **network):
    saved = read_sealed(there / "config.json")
    saved.pop("seal", None)
    saved["config"]["network"] |= network
    write_sealed(there / "config.json", saved)


def other_weights(there):
    (weights,) = there.rglob("ema.safetensors")
    save_file({name: torch.cat([t, t]) for name, t in load_file(weights).items()}, weights)
    state = read_sealed(weights.parent / "state.json")
    state.pop("seal", None)
    write_sealed(weights.parent / "state.json", state | {"sha256": {"ema.safetensors": sha256(weights)}})


HOSTILE = {  # what is done to the folder, and what is said
    "a network larger than memory": (lambda there: changed_config(there, width=10**7), "does not fit the network"),
    "weights of another network": (other_weights, "does not fit the network that config.json describes"),
    "no settings": (lambda there: (there / "config.json").write_text("{}"), "is no run that can be opened"),
    "nested settings": (lambda there: (there / "config.json").write_text("[" * 10**5), "is no run that can be opened"),
    "an unknown setting": (lambda there: changed_config(there, run_this="rm"), "is no run that can be opened"),
    "damaged weights": (
        lambda there: next(there.rglob("ema.safetensors")).write_bytes(b"x" * 99),
        "is no run that can",
    ),
    "a large log": (lambda there: (there / "log.jsonl").write_bytes(b" " * (hub.SMALL + 1)), "log.jsonl has 16.8 MB"),
    "no checkpoint": (lambda there: next(there.rglob("ema.safetensors")).unlink(), "it has no config.json, or no"),
    "no state": (lambda there: next(there.rglob("state.json")).unlink(), "is no run that can be opened"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_strangers_folder_is_refused_and_leaves_nothing(kind, store, capsys):
    act, why = HOSTILE[kind]
    act(store.root / "me/tiny")
    before = sorted(Path.cwd().rglob("*"))
    assert cli("pull", "me/tiny") == 2
    assert why in plain(capsys.readouterr().err)
    assert sorted(Path.cwd().rglob("*")) == before


def test_a_pulled_path_is_only_a_name(store):
    """What a stranger's run says of its images leads nowhere here."""
    assert cli("pull", "me/tiny") == 0
    assert not os.path.isabs(open_run(Path("runs/tiny")).data["source"])


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("push runs/own tiny --license mit", "a repository is named OWNER/NAME, got 'tiny'"),
        ("push runs/own me/../tiny --license mit", "a repository is named OWNER/NAME"),
        ("push runs/own me/tiny --license 'a b'", "--license must be a short name such as mit or cc-by-4.0"),
        ("push runs/own me/tiny", "--license"),
        ("pull me/none", "me/none: the hub could not be used (OSError: 404: there is no such repository)"),
        ("pull me/tiny --limit 0", "--limit must be at least 1, got 0"),
    ],
)
def test_what_is_refused(line, why, store, capsys):
    assert cli(*[word.strip("'") for word in re.findall(r"'[^']*'|\S+", line)]) == 2
    assert why in plain(capsys.readouterr().err)


def test_larger_than_allowed(store, monkeypatch, capsys):
    (weights,) = (store.root / "me/tiny").rglob("ema.safetensors")
    with open(weights, "ab") as file:
        file.truncate(1_200_000_000)
    assert cli("pull", "me/tiny", "--limit", 1) == 2
    assert "more than --limit 1 GB" in plain(capsys.readouterr().err)


def test_without_the_library(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.delitem(sys.modules, "huggingface_hub.errors", raising=False)
    monkeypatch.chdir(tmp_path)
    for line in (("pull", "me/tiny", "--run", tmp_path / "run"), ("push", "digits", "me/tiny", "--license", "mit")):
        assert cli(*line) == 2
        assert "pip install 'bytepixels[hub]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


class Server(http.server.BaseHTTPRequestHandler):
    """The hub's interface, as far as its client needs it to fetch a repository."""

    root: Path

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        path = self.path.partition("?")[0]
        files = {one.relative_to(self.root).as_posix(): one for one in self.root.rglob("*") if one.is_file()}
        if path.startswith("/api/models/me/tiny"):
            siblings = [{"rfilename": name, "size": one.stat().st_size} for name, one in files.items()]
            tree = [
                {"type": "file", "path": name, "size": one.stat().st_size, "oid": "0" * 40}
                for name, one in files.items()
            ]
            found = tree if "/tree/" in path else {"id": "me/tiny", "sha": COMMIT, "siblings": siblings}
            content, kind = json.dumps(found).encode(), "application/json"
        elif (name := path.partition(f"/resolve/{COMMIT}/")[2]) in files:
            content, kind = files[name].read_bytes(), "application/octet-stream"
        else:
            self.send_error(404)
            return
        self.send_response(200)
        for key, value in (("Content-Type", kind), ("Content-Length", len(content)), ("X-Repo-Commit", COMMIT)):
            self.send_header(key, str(value))
        self.send_header("ETag", f'"{sha256(files[name]) if "/resolve/" in path else COMMIT}"')
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *told):
        pass


def test_the_librarys_own_client_fetches_it(store, tmp_path):
    """From a server on this machine, which answers as the hub does."""
    own = type("Own", (Server,), {"root": store.root / "me/tiny"})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), own)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    told = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path / "home")}
    line = [sys.executable, "-m", "bytepixels", "pull", "me/tiny"]
    found = subprocess.run(line, env=os.environ | told, capture_output=True, text=True, timeout=120)
    server.shutdown()
    assert found.returncode == 0, found.stderr
    names = {path.relative_to("runs/tiny").as_posix() for path in Path("runs/tiny").rglob("*") if path.is_file()}
    assert {name for name in names if not name.startswith(".")} >= {"config.json", "README.md", "samples.png"}
    assert not any(name.startswith(".cache") for name in names)
    assert open_run(Path("runs/tiny")).id == open_run(Path("runs/own")).id
