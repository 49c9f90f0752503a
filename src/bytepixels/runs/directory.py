"""A run is a directory: config.json, log.jsonl, checkpoints/, samples/. All that is needed to go on or to sample."""

import json
import math
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import torch

from ..errors import InputError
from ..version import __version__
from .config import Config

FORMAT = 1


@dataclass(frozen=True)
class Run:
    """One run: where it is, its resolved config, and what it was trained on."""

    path: Path
    config: Config
    data: dict[str, Any]
    """What it was trained on: source, count, classes and the sha256 of the packed pictures."""
    made_by: list[dict[str, Any]] = field(default_factory=list)
    """Versions, machine and commit of every process that worked on it, the first one first."""

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def classes(self) -> list[str]:
        """Names of the classes the network knows; empty when it knows none."""
        return list(self.data["classes"]) if self.config.network.labels else []

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of its pictures, known once the run has begun."""
        size, channels = self.config.data.size, self.config.data.channels
        if size is None or channels is None:
            raise InputError(f"{self.path / 'config.json'} does not say the size and channels of the pictures")
        return channels, *size

    def save(self) -> None:
        """Write config.json, resolved, with the versions and the commit that made it."""
        make_folder(self.samples, "--run")
        make_folder(self.checkpoints, "--run")
        made_by = [*self.made_by, provenance()]
        saved = {"format": FORMAT, "config": self.config.to_dict(), "data": self.data, "made_by": made_by}
        write_json(self.path / "config.json", saved)

    def log(self, record: dict[str, Any]) -> None:
        """Append one line to log.jsonl."""
        with open(self.path / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(one_line(record))

    def trim_log(self, step: int) -> None:
        """Drop the lines after `step`: a process that was killed may have logged more than it saved."""
        path = self.path / "log.jsonl"
        if path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if _logged_step(line) <= step]
            if len(kept) < len(lines):
                write_whole(path, "".join(line + "\n" for line in kept))


def is_run(path: Path) -> bool:
    """Whether there is a run at `path`."""
    return (path / "config.json").is_file()


def open_run(path: Path) -> Run:
    """The run at `path`; InputError when there is none or it is not one that this version reads."""
    if not is_run(path):
        near = sorted(p.parent.name for p in path.parent.glob("*/config.json")) if path.parent.is_dir() else []
        hint = f"; there are runs {', '.join(near)} in {path.parent}" if near else ""
        raise InputError(f"{path} is not a run: it has no config.json{hint}")
    try:
        saved = json.loads((path / "config.json").read_text(encoding="utf-8"))
        if saved["format"] != FORMAT:
            raise InputError(f"{path} has run format {saved['format']}, this version reads {FORMAT}")
        return Run(path, Config.from_dict(saved["config"]), saved["data"], _as_list(saved["made_by"]))
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise InputError(f"{path / 'config.json'} cannot be read: {error!r}") from error


def provenance() -> dict[str, Any]:
    """Versions, machine and git commit, for whoever repeats a run."""
    return {
        "bytepixels": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "git_commit": _git_commit(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def make_folder(path: Path, flag: str) -> None:
    """Make a folder to write to, and those above it; InputError, naming the flag it came from, where that fails."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=path):  # permissions alone do not tell
            pass
    except OSError as error:
        raise InputError(f"{flag}: the folder {path} cannot be written ({error.strerror})") from error


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON; the file is whole or as it was."""
    write_whole(path, json.dumps(finite(value), indent=2, allow_nan=False) + "\n")


def one_line(value: Any) -> str:
    """`value` as a line of a .jsonl file."""
    return json.dumps(finite(value), allow_nan=False) + "\n"


def finite(value: Any) -> Any:
    """`value` with null for every number that JSON cannot say: NaN and the infinities."""
    if isinstance(value, Mapping):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_whole(path: Path, text: str) -> None:
    """Write to a temporary name, then rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]  # the first runs had one record


def _logged_step(line: str) -> float:
    """The step of one line of log.jsonl; infinite for a line that was cut short."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return float("inf")


def _git_commit() -> str | None:
    """The commit of the code, when it runs from a checkout of its own."""
    here = Path(__file__)
    try:
        _git(here, "ls-files", "--error-unmatch", here.name)  # else it is installed inside somebody's repository
        return _git(here, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(here: Path, *words: str) -> str:
    command = ["git", "-C", str(here.parent), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
