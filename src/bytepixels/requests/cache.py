"""The flags of the verb cache, a frozen dataclass per subcommand, and its help."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from ..choices import CACHED
from ..errors import check_choice, check_range

HELP = """\
usage: bytepixels cache show|clear [OPTIONS]

Decoded images, latents, features and the like are cached, so that the next command starts at once.

  bytepixels cache show                    folder, limit, and disk space by kind
  bytepixels cache clear                   remove all of it; it is made again when it is needed
  bytepixels cache clear packs             remove one kind: packs, latents, texts, features, ...
  bytepixels cache clear --older-than 30   remove what was not used for 30 days

BYTEPIXELS_CACHE=FOLDER moves it. BYTEPIXELS_CACHE_LIMIT=5GB limits its size: when something is added, the least
recently used entries are removed.
"""


@dataclass(frozen=True, kw_only=True)
class ShowCache:
    """Say where the cache is, how large, and what it holds by kind."""


@dataclass(frozen=True, kw_only=True)
class ClearCache:
    """Remove what the cache holds. It is made again when it is needed, which only takes time."""

    kinds: Positional[Annotated[tuple[str, ...], arg(metavar="KIND")]] = ()
    """What to remove: packs, latents, texts, features, indexes or downloads. Default: all of them."""
    older_than: float = 0.0
    """Only entries that were not used for this many days."""
    dry_run: bool = False
    """Only print what would be removed."""

    def __post_init__(self) -> None:
        for kind in self.kinds:
            check_choice("KIND", kind, CACHED)
        check_range("--older-than", self.older_than, 0)


CacheFlags = ShowCache | ClearCache
KINDS: dict[str, type[CacheFlags]] = {"show": ShowCache, "clear": ClearCache}
