"""The location of a run's images: an absolute path, or beside the run if both have moved."""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

BESIDE = "source_beside"  # of a run's data: the source as seen from the run's folder


def absolute(source: str) -> str:
    """Make a source's path absolute; the name of a known data set is returned as it is."""
    from ..data.sources.known_datasets import NAMED  # here, so that a list of runs does not wait for it

    return source if source in NAMED else os.path.abspath(os.path.expanduser(source))


def kept(source: str, run: Path) -> dict[str, str]:
    """The record that a run in the folder `run` keeps of its source."""
    place = absolute(source)
    if os.path.isabs(place):
        with suppress(ValueError):  # another drive of Windows
            return {"source": place, BESIDE: os.path.relpath(place, run.absolute())}
    return {"source": place}


def source_places(data: Mapping[str, Any], run: Path) -> list[str]:
    """Paths at which to look for the source of a run, in this order; [] for a known set."""
    source, folder = str(data["source"]), run.absolute()
    if not os.path.isabs(absolute(source)):
        return []
    beside = [os.path.normpath(folder / data[BESIDE])] if isinstance(data.get(BESIDE), str) else []
    return list(dict.fromkeys([absolute(source), *beside]))


def find_source(data: Mapping[str, Any], run: Path) -> str | None:
    """The source of the run in the folder `run`, if it exists; else None."""
    if not (looked := source_places(data, run)):
        return str(data["source"])
    return next((place for place in looked if _exists(place)), None)


def _exists(place: str) -> bool:
    from ..data.sources.webdataset import named_by_braces
    from ..errors import InputError

    with suppress(InputError, ValueError, OSError):  # what is no path at all
        return os.path.exists(place) or any(shard.exists() for shard in named_by_braces(place)[:1])
    return False
