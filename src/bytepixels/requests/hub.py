"""The flags of push and pull."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from ..errors import InputError, check_range

REPOSITORY = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")


def check_repository(name: str) -> None:
    """Raise InputError for what is no name of a repository."""
    if not REPOSITORY.fullmatch(name) or ".." in name:
        raise InputError(f"a repository is named OWNER/NAME, got {name!r}")


@dataclass(frozen=True, kw_only=True)
class Push:
    """Publish a run on the Hugging Face hub, with a model card made from its own records.

    What goes there: the averaged weights in half precision, the settings, a thinned log, the card and a grid of 16
    samples; no image that it was trained on, and no path of this machine. Captions that the run remembers go too. It
    needs bytepixels[hub], and an account: hf auth login, or the variable HF_TOKEN.
    """

    run: Positional[Annotated[Path, arg(metavar="RUN")]]
    """The folder of a run, or the name of a bundled model: digits, cifar10, cifar10-fast, emoji."""
    repository: Positional[Annotated[str, arg(metavar="REPO")]]
    """Where to: OWNER/NAME. It is made if it is not there."""
    license: str
    """The licence that others get it under, which the images must allow: mit, apache-2.0, cc-by-4.0, other ..."""
    data: str | None = None
    """What the training images are called on the card. Default: the name of their file or folder."""
    private: bool = False
    """Make a new repository private."""
    out: Path | None = None
    """Only write the files to this folder, to look at them; nothing is sent."""

    def __post_init__(self) -> None:
        check_repository(self.repository)
        if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,63}", self.license):
            raise InputError(f"--license must be a short name such as mit or cc-by-4.0, got {self.license!r}")


@dataclass(frozen=True, kw_only=True)
class Pull:
    """Fetch a run from the Hugging Face hub. Nothing in it is executed, and only what a run consists of is fetched.

    It needs bytepixels[hub]; for a private repository also an account: hf auth login, or the variable HF_TOKEN.
    """

    repository: Positional[Annotated[str, arg(metavar="REPO")]]
    """Where from: OWNER/NAME."""
    run: Path | None = None
    """The folder of the run. Default: runs/NAME."""
    revision: str | None = None
    """A branch, tag or commit. Default: the newest."""
    limit: int = 4
    """The most that is fetched, in GB."""

    def __post_init__(self) -> None:
        check_repository(self.repository)
        check_range("--limit", self.limit, 1)
