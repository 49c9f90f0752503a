"""The verbs runs list, show and prune: what was trained, its progress, its defects, and what can be removed."""

from collections.abc import Iterator
from shutil import get_terminal_size
from typing import TYPE_CHECKING

from ..api import list_runs, prune_runs
from ..requests.runs import ListRuns, PruneRuns, ShowRun
from ..wording import bytes_of, time_of
from .output import said
from .parsing import Line
from .runs_show import show_run

if TYPE_CHECKING:
    from ..api import Overview, PrunePlan

COLUMNS = ("run", "preset", "images", "images seen", "loss", "last change", "size", "state")
LEAST = ("last change", "images", "size", "loss")  # which a narrow terminal goes without, in this order


def say_list(line: Line[ListRuns]) -> int:
    """List every run, and every defect."""
    return said(_list(line.request()))


def say_run(line: Line[ShowRun]) -> int:
    """Describe one run."""
    return said(show_run(line.request().run))


def prune(line: Line[PruneRuns]) -> int:
    """Remove old checkpoints and say which."""
    return said(_prune(line.request()))


def _list(request: ListRuns) -> Iterator[str]:
    """A line for each run, and one for each defect."""
    found = list_runs(request.folder)
    if not found:
        yield f"no runs in {request.folder}"
        return
    yield from _table([COLUMNS, *map(_row, found)], get_terminal_size((10**6, 24)).columns)
    for one in found:
        yield from () if one.in_use else one.damage


def _table(rows: list[tuple[str, ...]], width: int) -> Iterator[str]:
    """Lay out a table within a number of characters: the columns LEAST are dropped where they do not fit."""
    columns = dict(zip(COLUMNS, zip(*rows, strict=True), strict=True))
    widths = {name: max(map(len, cells)) for name, cells in columns.items()}
    for name in LEAST:
        if sum(widths.values()) + 2 * (len(widths) - 1) > width:
            del widths[name]
    for k in range(len(rows)):
        yield "  ".join(columns[name][k].ljust(widths[name]) for name in widths).rstrip()


def _row(one: "Overview") -> tuple[str, ...]:
    name, size, changed = one.path.name, bytes_of(one.size), time_of(one.changed)
    if one.run is None:
        return name, "-", "-", "-", "-", changed, size, one.state
    budget = one.run.config.train.images
    seen = f"{one.images:,} / {budget:,} ({min(100, 100 * one.images // budget)}%)"
    loss = "-" if one.loss is None else f"{one.loss:.4f}"
    return name, one.run.config.preset, f"{one.run.data['count']:,}", seen, loss, changed, size, one.state


def _prune(request: PruneRuns) -> Iterator[str]:
    """Remove old checkpoints and say which. InputError, before any is removed, if a run is in use or missing."""
    freed = 0
    for plan in prune_runs(request.run, request.keep, request.optimizer, request.dry_run):
        freed += plan.freed
        yield from _pruned(plan, request.dry_run)
    yield f"{'would free' if request.dry_run else 'freed'} {bytes_of(freed)}"


def _pruned(plan: "PrunePlan", dry: bool) -> Iterator[str]:
    """Describe what is removed from one run, in sentences."""
    what, count = [path.name for path in plan.removed], len(plan.leftovers)
    what += [f"{count} leftover{'s' if count > 1 else ''} of killed processes"] if count else []
    what += [f"the optimizer of {', '.join(path.name for path in plan.stripped)}"] if plan.stripped else []
    done = f"{'would remove' if dry else 'removed'} {', '.join(what) or 'nothing'} ({bytes_of(plan.freed)})"
    kept = ", ".join(one.path.name for one in plan.kept) or "no checkpoint is intact, so all are"
    yield f"{plan.run.path}: {done}; {kept} kept"
    for one in plan.damaged:
        yield f"note: {one.damage}; it was left where it is"
