"""Pictures from anywhere to one uint8 array: `pack(source)`."""

from .named import NAMED as SOURCES
from .pack import pack
from .packed import Packed, default_cache, open_packed

__all__ = ["SOURCES", "Packed", "default_cache", "open_packed", "pack"]
