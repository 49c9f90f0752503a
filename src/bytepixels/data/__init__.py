"""Pictures from anywhere to one uint8 array: `pack(source)`."""

from bytepixels.data.named import NAMED as SOURCES
from bytepixels.data.pack import pack
from bytepixels.data.packed import Packed, default_cache, open_packed

__all__ = ["SOURCES", "Packed", "default_cache", "open_packed", "pack"]
