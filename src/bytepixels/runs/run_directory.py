"""The folder of a run: config.json, log.jsonl, checkpoints/, samples/, which suffice to resume and to sample."""

import json
import os
import platform
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any
from uuid import uuid4

from .. import events
from ..config.run import Config
from ..errors import InputError
from ..files import TEMPORARY, DamagedError, leftovers, one_line, read_sealed, reason, write_sealed, write_whole
from ..version import __version__
from .lock import HOLDER
from .lock import NAME as LOCK
from .models import model_as_run, model_names
from .origin import find_source

FORMAT = 1
CHECKPOINTS = "checkpoints"
FIRST_STAGE = "first-stage.safetensors"  # of a run on latents: weights, and in its metadata the settings
CONFIG, SPARE = "config.json", ".config.json"  # the same twice: without it all checkpoints would be lost


@dataclass(frozen=True)
class Run:
    """One run: its folder, its resolved config, and its training data."""

    path: Path
    config: Config
    data: dict[str, Any]
    """What it was trained on: source, count, classes and the sha256 of the packed images."""
    made_by: list[dict[str, Any]] = field(default_factory=list)
    """Versions, machine and commit of every process that worked on it, the first one first."""
    id: str = ""
    """What its checkpoints know it by."""
    opened: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"), compare=False)
    """When this process began to work on it."""

    @property
    def checkpoints(self) -> Path:
        return self.path / CHECKPOINTS

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def classes(self) -> list[str]:
        """Names of the classes that the network knows; empty if it is unconditional."""
        return list(self.data["classes"]) if self.config.network.labels else []

    @property
    def text(self) -> dict[str, Any] | None:
        """The hash of its text encoder, and some training captions; None without text conditioning."""
        return self.data.get("text")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of its images, known once the run has begun."""
        size, channels = self.config.data.size, self.config.data.channels
        if size is None or channels is None:
            raise InputError(f"{self.path / 'config.json'} does not say the size and channels of the images")
        return channels, *size

    @property
    def x0_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of what its network sees: its images, or their latents."""
        first = self.data.get("first_stage")
        return self.shape if first is None else tuple(first["shape"])

    def save(self) -> None:
        """Write the resolved config.json, with versions and commit, and its spare copy."""
        make_folder(self.path, "--run")
        made_by = [*self.made_by, provenance() | {"time": self.opened}]
        saved = {"format": FORMAT, "id": self.id, "config": self.config.to_dict(), "data": self.data}
        for name in (CONFIG, SPARE):
            write_sealed(self.path / name, saved | {"made_by": made_by})
        make_folder(self.samples, "--run")
        make_folder(self.checkpoints, "--run")

    def log(self, record: dict[str, Any]) -> None:
        """Append one line to log.jsonl."""
        self._append("log.jsonl", record)

    def note_evaluation(self, record: dict[str, Any]) -> None:
        """Append one line to eval.jsonl."""
        self._append("eval.jsonl", record)

    def _append(self, name: str, record: dict[str, Any]) -> None:
        with open(self.path / name, "a", encoding="utf-8") as file:
            file.write(one_line(record))

    def trim_log(self, step: int) -> int:
        """Drop the log lines after `step`: a killed process may have logged more than it saved.

        Lines that cannot be read go too; returns how many those were.
        """
        path = self.path / "log.jsonl"
        if not path.is_file():
            return 0
        content = path.read_bytes()
        lines = [(line, _logged_step(line)) for line in content.split(b"\n") if line]
        kept = b"".join(line + b"\n" for line, logged in lines if logged is not None and logged <= step)
        if kept != content:
            write_whole(path, kept.decode())
        return sum(logged is None for _, logged in lines)


def new_id() -> str:
    """Make an id that tells a run from every other."""
    return uuid4().hex


def run_leftovers(path: Path) -> list[Path]:
    """Paths that processes that were killed left half written or half removed in the run at `path`."""
    return leftovers(path) + leftovers(path / CHECKPOINTS)


def is_run(path: Path) -> bool:
    """True if there is a run at `path`."""
    return (path / CONFIG).is_file() or (path / SPARE).is_file()


def is_free(path: Path) -> bool:
    """True if `path` is empty, or holds only the debris of a run killed while starting."""
    if not path.exists():
        return True
    return path.is_dir() and all(
        p.name in (LOCK, HOLDER, FIRST_STAGE) or p.name.startswith(TEMPORARY) for p in path.iterdir()
    )


def open_run(path: Path) -> Run:
    """Open the run at `path`, or a copy of the bundled model of that name; InputError if there is neither, or this
    version cannot read it.

    A damaged config.json is replaced by its spare copy, and said.
    """
    if not is_run(path) and (model := model_as_run(path)):
        path = model
    if not is_run(path):
        if inside := _runs_in(path):
            raise InputError(f"{path} is a folder of runs ({', '.join(inside)}), not a run; try {path / inside[0]}")
        folders = [folder for folder in (path.parent, Path("runs")) if _runs_in(folder)]
        hint = f"; runs in {folders[0]}: {', '.join(_runs_in(folders[0]))}" if folders else ""
        along = f"; models that come along: {', '.join(model_names())}" if path == Path(path.name) else ""
        raise InputError(f"{path} is not a run: it has no config.json{hint}{along}")
    try:
        return _read(path, CONFIG)
    except DamagedError as damage:
        try:
            run = _read(path, SPARE)
        except DamagedError:
            raise damage from None
        events.note(f"warning: {damage}; using its spare copy")
        with suppress(OSError):  # of a run that may only be read, every process takes the spare copy
            _restore(path)
        return run


def _runs_in(folder: Path) -> list[str]:
    """The names of the runs in a folder; none if it is no folder."""
    return sorted(found.parent.name for found in folder.glob(f"*/{CONFIG}")) if folder.is_dir() else []


def _restore(path: Path) -> None:
    """Replace config.json by its spare copy, and set the damaged one aside."""
    spare = (path / SPARE).read_text(encoding="utf-8")
    with suppress(FileNotFoundError):
        os.replace(path / CONFIG, path / f"{CONFIG}.damaged")
    write_whole(path / CONFIG, spare)


def _read(path: Path, name: str) -> Run:
    try:
        saved = read_sealed(path / name)
        if saved["format"] != FORMAT:
            raise InputError(f"{path} has run format {saved['format']}, this version reads {FORMAT}")
        config, data = Config.from_dict(saved["config"]), saved["data"]
        data["source"], f"{data['count']:d}", data["classes"], data["sha256"]
        data |= {"source": find_source(data, path) or data["source"]}
        return Run(path, config, data, saved["made_by"], saved["id"])
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise DamagedError(f"{path / name} cannot be read: {reason(error)}") from error


def provenance() -> dict[str, Any]:
    """Versions, machine and git commit, for reproducing a run."""
    import torch  # here, so that opening a run does not wait for it

    return {
        "bytepixels": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "git_commit": _git_commit(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def make_folder(path: Path, flag: str) -> None:
    """Make a folder and its parents for writing; InputError, naming the flag, if that fails."""
    done = "made"
    try:
        path.mkdir(parents=True, exist_ok=True)
        done = "written"
        with TemporaryFile(dir=path):  # permissions alone do not tell
            pass
    except OSError as error:
        raise InputError(f"{flag}: the folder {path} cannot be {done} ({error.strerror})") from error


def _logged_step(line: bytes) -> int | None:
    """The step of one line of log.jsonl; None for a truncated line or one of another kind."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, OverflowError):
        return None


def _git_commit() -> str | None:
    """The commit of the code, if it runs from its own checkout."""
    here = Path(__file__)
    try:
        _git(here, "ls-files", "--error-unmatch", here.name)  # else it is installed inside somebody's repository
        return _git(here, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(here: Path, *words: str) -> str:
    command = ["git", "-C", str(here.parent), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
