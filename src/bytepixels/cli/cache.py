"""The verbs cache show and cache clear: list what is cached, how much disk space it takes, and remove it."""

import time
from collections.abc import Iterator

from ..api import cached, clear_cache
from ..choices import CACHE_LIMIT, CACHED
from ..requests.cache import ClearCache, ShowCache
from ..wording import bytes_of, many, time_of
from .output import said
from .parsing import Line


def say_cache(line: Line[ShowCache]) -> int:
    """Describe the cache."""
    line.request()
    return said(_show())


def clear(line: Line[ClearCache]) -> int:
    """Remove what was asked for, and say how much that freed."""
    return said(_clear(line.request()))


def _show() -> Iterator[str]:
    root, most, found = cached()
    bound = f"limit {bytes_of(most)}" if most is not None else f"no limit; {CACHE_LIMIT}=5GB would set one"
    yield f"{root}: {bytes_of(sum(one.size for one in found))} ({bound})"
    for kind, what in CACHED.items():
        if own := [one for one in found if one.kind == kind]:
            size = bytes_of(sum(one.size for one in own))
            yield f"  {kind:9}  {len(own):5,}  {size:>9}  last used {time_of(own[-1].used)}  {what}"
    if found:
        yield "All of it is made again when it is needed. bytepixels cache clear removes it."


def _clear(flags: ClearCache) -> Iterator[str]:
    before = time.time() - 86_400 * flags.older_than
    chosen = [one for one in cached()[2] if one.kind in (flags.kinds or CACHED) and one.used <= before]
    if flags.dry_run:
        yield from (f"{one.path}  {bytes_of(one.size)}" for one in chosen)
        yield f"would free {bytes_of(sum(one.size for one in chosen))}"
        return
    freed = clear_cache(chosen)
    left = sum(one.path.exists() for one in chosen)
    yield f"freed {bytes_of(freed)}" + (f"; {many(left, 'entry', 'entries')} in use or not writable" if left else "")
