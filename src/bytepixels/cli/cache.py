"""cache show and cache clear: what is kept between commands, how much of the disk it takes, and how it goes away."""

import time
from collections.abc import Iterator

from ..data.cache import KINDS, LIMIT, entries, limit, remove
from ..data.packed import default_cache
from ..requests.cache import CacheFlags, ClearCache
from ..wording import many
from .runs_show import bytes_of, time_of


def run_cache(flags: CacheFlags) -> Iterator[str]:
    """The lines of one of the two."""
    return _clear(flags) if isinstance(flags, ClearCache) else _show()


def _show() -> Iterator[str]:
    root, most = default_cache(), limit()
    found = entries(root)
    bound = f"limit {bytes_of(most)}" if most is not None else f"no limit; {LIMIT}=5GB would set one"
    yield f"{root}: {bytes_of(sum(one.size for one in found))} ({bound})"
    for kind, what in KINDS.items():
        if own := [one for one in found if one.kind == kind]:
            size = bytes_of(sum(one.size for one in own))
            yield f"  {kind:9}  {len(own):5,}  {size:>9}  last used {time_of(own[-1].used)}  {what}"
    if found:
        yield "All of it is made again when it is needed. bytepixels cache clear removes it."


def _clear(flags: ClearCache) -> Iterator[str]:
    before = time.time() - 86_400 * flags.older_than
    chosen = [one for one in entries(default_cache()) if one.kind in (flags.kinds or KINDS) and one.used <= before]
    if flags.dry_run:
        yield from (f"{one.path}  {bytes_of(one.size)}" for one in chosen)
        yield f"would free {bytes_of(sum(one.size for one in chosen))}"
        return
    freed = remove(chosen)
    left = sum(one.path.exists() for one in chosen)
    yield f"freed {bytes_of(freed)}" + (f"; {many(left, 'entry', 'entries')} in use or not writable" if left else "")
