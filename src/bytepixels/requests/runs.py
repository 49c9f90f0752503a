"""The flags of the verb runs, a frozen dataclass per subcommand."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from ..errors import check_range


@dataclass(frozen=True, kw_only=True)
class ListRuns:
    """List every run in FOLDER: images, progress, loss (mean of its log's last 20 lines), and state.

    Of the checkpoints only the sizes are looked at; runs show compares every byte.
    """

    folder: Positional[Annotated[Path, arg(metavar="FOLDER")]] = Path("runs")
    """The folder that holds the runs."""


@dataclass(frozen=True, kw_only=True)
class ShowRun:
    """Describe one run: settings that differ from its preset's, data, log, and checkpoints, verified by checksums.

    Its loss is the mean of the log's last 20 lines, as in runs list.
    """

    run: Positional[Annotated[Path, arg(metavar="RUN")]]
    """The folder of a run, or a model that comes along: digits, cifar10, cifar10-fast, emoji."""


@dataclass(frozen=True, kw_only=True)
class PruneRuns:
    """Remove all but the newest intact checkpoints, and what killed processes left behind; print how much was freed.

    The newest whole checkpoint always stays; damaged ones that are newer are named and left where they are.
    """

    run: Positional[Annotated[tuple[Path, ...], arg(metavar="RUN")]]
    """One or more runs."""
    keep: int
    """Number of checkpoints to keep, at least 1."""
    optimizer: bool = False
    """Also remove the optimizer's state, half of a checkpoint: sampling still works, further training does not. An
    unfinished run keeps that of its newest checkpoint."""
    dry_run: bool = False
    """Only print what would be removed."""

    def __post_init__(self) -> None:
        check_range("--keep", self.keep, 1)
