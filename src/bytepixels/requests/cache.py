"""The flags of the verb cache, a frozen dataclass per subcommand."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from ..choices import CACHED
from ..errors import check_choice, check_range


@dataclass(frozen=True, kw_only=True)
class ShowCache:
    """Say where the cache is, how large, and what it holds by kind.

    Decoded images, latents, features and the like are cached, so that the next command starts at once.
    BYTEPIXELS_CACHE=FOLDER moves it. BYTEPIXELS_CACHE_LIMIT=5GB limits its size: when something is added, the least
    recently used entries are removed.
    """


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
