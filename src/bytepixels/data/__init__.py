"""Read images from any source into one uint8 array: `pack(source)`."""

from .pack import pack
from .packed import Packed, default_cache, open_packed
from .sources.known_datasets import NAMED as SOURCES

__all__ = ["SOURCES", "Packed", "default_cache", "open_packed", "pack"]
