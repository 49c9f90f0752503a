"""A run is a directory: config.json, log.jsonl, checkpoints/, samples/. All that is needed to go on or to sample."""

import json
import os
import platform
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..errors import InputError
from .config import Config

FORMAT = 1


@dataclass(frozen=True)
class Run:
    path: Path
    config: Config
    data: dict[str, Any]
    """What it was trained on: source, count, classes, size, channels and sha256 of the packed pictures."""

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
        self.samples.mkdir(parents=True, exist_ok=True)
        self.checkpoints.mkdir(exist_ok=True)
        write_json(
            self.path / "config.json",
            {"format": FORMAT, "config": self.config.to_dict(), "data": self.data, "made_by": provenance()},
        )

    def log(self, record: dict[str, Any]) -> None:
        """Append one line to log.jsonl."""
        with open(self.path / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


def is_run(path: Path) -> bool:
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
        return Run(path, Config.from_dict(saved["config"]), saved["data"])
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise InputError(f"{path / 'config.json'} cannot be read: {error!r}") from error


def provenance() -> dict[str, Any]:
    """Versions, machine and git commit, for whoever repeats a run."""
    return {
        "bytepixels": version("bytepixels"),
        "torch": version("torch"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "git_commit": _git_commit(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def write_json(path: Path, value: Any) -> None:
    """Write to a temporary name, then rename: the file is whole or absent."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def _git_commit() -> str | None:
    """The commit of the code, when it runs from a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
